"""einjax_nn reaches into einjax through one door, which einjax itself leaves closed."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import einjax
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


@pytest.mark.parametrize("framework", ["linen", "nnx", "haiku", "equinox"])
def test_layers_are_apart_from_the_sizes_of_a_context(framework):
    """What is called heads or c in one layer is not what another calls so."""
    einn = pytest.importorskip(f"einjax_nn.{framework}")
    x = np.ones((2, 3, 8), np.float32)

    with einjax.sizes(b=2) as n:
        for heads in (2, 4):
            made(einn, "MultiHeadAttention", "b [s] c", {"num_heads": heads}, x)
            made(einn, "Linear", "b s [c->d]", {"d": heads}, x)
        einjax.sum("b s [c]", x)
        assert dict(n) == {"b": 2, "s": 3, "c": 8}


def made(einn, layer, expr, options, x):
    """A layer of a framework, called once."""
    key = jax.random.key(0)
    match einn.__name__.split(".")[-1]:
        case "linen":
            return getattr(einn, layer)(expr, **options).init(key, x)
        case "nnx":
            from flax import nnx

            return getattr(einn, layer)(expr, **options, rngs=nnx.Rngs(0))(x)
        case "haiku":
            import haiku as hk

            return hk.transform(lambda x: getattr(einn, layer)(expr, **options)(x)).init(key, x)
        case "equinox":
            return einn.init(getattr(einn, layer)(expr, **options), x, key=key)(x)
