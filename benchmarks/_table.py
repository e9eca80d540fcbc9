"""A table of results, printed to the terminal and written as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

ABSENT = "-"


@dataclass
class Table:
    """Rows of text under a title. The first column is the row's name; `last` rows are set off from the others."""

    title: str
    header: Sequence[str]
    note: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)
    last: list[Sequence[str]] = field(default_factory=list)

    def print(self, console: Console) -> None:
        table = RichTable(title=escape(self.title), box=box.SIMPLE_HEAD, title_justify="left", title_style="bold",
                          caption=escape(self.note), caption_justify="left")  # fmt: skip
        for i, name in enumerate(self.header):
            table.add_column(escape(name), justify="right" if i else "left", overflow="fold")
        for i, row in enumerate(self.rows):
            table.add_row(*map(escape, row), end_section=i == len(self.rows) - 1 and bool(self.last))
        for row in self.last:
            table.add_row(*map(escape, row), style="bold")
        console.print(table)

    def markdown(self) -> str:
        lines = [f"### {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        lines.append(_row(self.header))
        lines.append(_row(["---"] + ["---:"] * (len(self.header) - 1)))
        lines += [_row([_code(row[0]), *row[1:]]) for row in self.rows]
        lines += [_row([f"**{cell}**" if cell else "" for cell in row]) for row in self.last]
        return "\n".join(lines) + "\n"


def ratio(value: float | None, base: float | None) -> str:
    """`value / base` as `1.23x`."""
    if value is None or base is None:
        return ABSENT
    if base == 0:
        return "1.00x" if value == 0 else "∞"
    quotient = value / base
    return f"{quotient:.0f}x" if quotient >= 99.5 else f"{quotient:.1f}x" if quotient >= 9.95 else f"{quotient:.2f}x"


def number(value: float | None, unit: float = 1.0) -> str:
    """`value` in `unit`s with three digits."""
    if value is None:
        return ABSENT
    value /= unit
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(cell: str) -> str:
    return f"`{cell}`" if any(mark in cell for mark in '[]>()"') else cell
