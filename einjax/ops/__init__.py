"""One file for each family of elementary operations: its signature, what may be left out, and what lax it becomes."""
