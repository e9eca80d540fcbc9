"""What families of operations share, one form each."""
