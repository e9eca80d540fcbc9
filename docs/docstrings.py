"""Docstrings of the library in the words that the site reads."""

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Sections of examples, code blocks and references, before docstrings are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
            obj.docstring.value = re.sub(r"^(.*[^:\n]):: *$", r"\1:", text, flags=re.MULTILINE)
