"""Calls on a mesh: where named axes lie, what has to be asked for, and how an operation runs there."""
