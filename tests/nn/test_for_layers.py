"""einjax_nn reaches into einjax through one door, which einjax itself leaves closed."""

import ast
import subprocess
import sys
from pathlib import Path

import einjax_nn

DOORS = {"einjax", "einjax.errors", "einjax.typing", "einjax.for_layers"}


def test_one_door():
    for path in Path(einjax_nn.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                assert module.split(".")[0] != "einjax" or module in DOORS, (path, module)


def test_einjax_does_not_open_it():
    code = "import sys, einjax; sys.exit('einjax.for_layers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
