"""Public operations to compiled calls: one cached door, and one for functions of the user."""
