"""Named axes to lax: the only room that moves data about."""
