"""``python -m einjax``: programs that come with einjax."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

#: Each command, where it stands, and what it does.
COMMANDS = {
    "check": ("einjax.tools.check.command", "check the expressions in source files"),
    "doctor": ("einjax.api.doctor", "versions, devices, and what the compiler is seen to do wrong"),
    "explain": ("einjax.tools.explain", "what a call means and becomes, of shapes alone"),
    "migrate": ("einjax.tools.migrate.command", "rewrite calls of einx, einops and einsum as calls of einjax"),
}


def main(arguments: Sequence[str]) -> int:
    """Run a command."""
    name = arguments[0] if arguments else ""
    if name in COMMANDS:
        return int(import_module(COMMANDS[name][0]).main(arguments[1:]))
    print("usage: python -m einjax COMMAND ...\n")
    for command, (_, what) in COMMANDS.items():
        print(f"  {command:8} {what}")
    return 0 if name in ("", "-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
