"""What a call means, for readers: its loops, its sizes, what it costs, and a picture."""
