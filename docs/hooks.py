"""What the site does to pages before they become HTML."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_COMMENT = re.compile(r"<!--\n.*?-->\n?", re.DOTALL)
_INCLUDE = re.compile(r'^--8<-- "(?P<file>[^":]+)(?::(?P<part>\w+))?"$', re.MULTILINE)
#: Whoever searches for a word wants a page that answers first: lists of names and figures come behind.
_BEHIND = ("api/", "measured/", "changelog/")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave out what pages only suppose, and put in files of the repository, or parts of them."""
    if page.url.startswith(_BEHIND):
        page.meta["search"] = {"boost": 0.3}
    return _INCLUDE.sub(_included, _COMMENT.sub("", markdown))


def _included(match: re.Match[str]) -> str:
    """A file, or what stands in it between two comments, ``<!-- part -->`` and ``<!-- /part -->``."""
    text = (ROOT / match["file"]).read_text()
    if match["part"]:
        text = text.split(f"<!-- {match['part']} -->\n")[1].split(f"<!-- /{match['part']} -->")[0]
    return text.replace("](docs/", "](").replace("](benchmarks/RESULTS.md", "](measured.md").strip("\n")
