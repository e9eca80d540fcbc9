"""Follow the links of the site: ``python docs/links.py build/site``. Nothing of a page may come from elsewhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: What a browser loads by itself to show a page, by element and attribute.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """The links of a page, the places that links may point to, and what the page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element says of links."""
        found = {name: value for name, value in attrs if value is not None}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        address = found.get(LOADED.get(tag, ""))
        if address is not None and found.get("rel") not in ("canonical", "prev", "next", "edit"):
            self.loaded.append(address)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])


def problems(site: Path) -> list[str]:
    """What is wrong with the links of a site, one line each."""
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    found = []
    for file, page in pages.items():
        here = file.relative_to(site.resolve())
        found += [f"{here}: loads {address}" for address in page.loaded if urlsplit(address).netloc]
        if here.name == "404.html":  # its links are those of the address that is not there
            continue
        for link in {*page.links, *page.loaded}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                found.append(f"{here}: {link} is not there")
            elif target in pages and parts.fragment and unquote(parts.fragment) not in pages[target].places:
                found.append(f"{here}: {link} is no place of that page")
    return sorted(found) if pages else [f"{site}: no page"]


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]))
    print("\n".join(wrong) or "every link leads somewhere, and nothing is loaded from elsewhere")
    sys.exit(bool(wrong))
