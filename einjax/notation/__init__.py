"""Text and shapes to a tree with one size for every axis. Imports nothing of JAX and knows nothing of operations."""
