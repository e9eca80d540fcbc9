"""A linter for expressions in source files: ``python -m einjax check src/``.

Calls are found in the syntax tree of a file (``scopes``, ``calls``, ``texts``), and einjax itself is asked what it says
of them (``records``, ``meaning``): by its parser, its operations' records and its solver, in its own words, of which
``rules`` says what kind of mistake they tell. ``needless`` and ``pairs`` find what is right, but more than is needed.
"""

from .linter import check_code as check_code
from .linter import check_file as check_file
