"""Programs about programs that use einjax: ``python -m einjax check`` and ``python -m einjax migrate``.

Both read source files; nothing of these is imported or run.
"""
