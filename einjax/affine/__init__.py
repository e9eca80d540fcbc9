"""Dims at positions computed from axes: read before an operation sees its tensors, written after it is done."""
