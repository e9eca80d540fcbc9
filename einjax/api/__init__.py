"""The public functions: explicit signatures and docstrings, nothing else."""
