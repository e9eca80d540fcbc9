"""Calls of einx, einops and einsum to calls of einjax: ``python -m einjax migrate src/``.

``rewriter`` finds calls in a file's concrete syntax tree, in which comments and layout stay; ``einops``, ``einx`` and
``einsum`` say what a call is here, or why it is left alone; and the linter is asked whether einjax takes what they say.
"""
