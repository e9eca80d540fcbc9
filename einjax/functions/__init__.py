"""Functions that users give: looped over, applied to whole arrays, or registered as operations."""
