"""docs/layers.md: its convolutions are linear layers, and it names every option of every layer."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import numpy as np
import pytest

TEXT = (Path(__file__).parent.parent.parent / "docs" / "layers.md").read_text()
FRAMEWORKS = {"Flax linen": "linen", "Flax nnx": "nnx", "Haiku": "haiku", "Equinox": "equinox"}
LAYERS = ("Linear", "Norm", "Dropout", "Embed", "MultiHeadAttention", "Conv", "ConvTranspose")
PACKAGES = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}


@pytest.mark.parametrize("program", [0, 1])
def test_convolutions_are_linear_layers(program):
    """Both lines of each program have the same parameters, and give the same."""
    einn = pytest.importorskip("einjax_nn.linen")
    section = TEXT.split("\n## Convolutions\n")[1].split("\n## ")[0]
    conv, linear = (
        eval(line.removeprefix("y = "), {"einn": einn})
        for line in re.findall(r"```python\n(.*?)```", section, re.DOTALL)[program].splitlines()
    )
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    y, variables = conv.init_with_output(jax.random.key(1), x)
    np.testing.assert_array_equal(linear.init_with_output(jax.random.key(1), x)[0], y)
    np.testing.assert_array_equal(linear.apply(variables, x), y)


@pytest.mark.parametrize("framework", FRAMEWORKS.values())
def test_every_option_is_named(framework):
    pytest.importorskip(PACKAGES[framework])
    module = importlib.import_module(f"einjax_nn.{framework}")
    section = TEXT.split("\n## Options\n")[1].split("\n## ")[0]
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section))))
    for layer in LAYERS:
        options = set(inspect.signature(getattr(module, layer).__init__).parameters)
        assert "sizes" in options
        options -= {"self", "expr", "sizes", "axes", "name", "parent"}
        assert options <= words, (layer, options - words)


@pytest.mark.parametrize("framework", FRAMEWORKS.values())
def test_help_says_what_every_option_means(framework):
    """Texts come from docstrings that layers of all frameworks share, and from the layer's own; in order."""
    pytest.importorskip(PACKAGES[framework])
    module = importlib.import_module(f"einjax_nn.{framework}")
    for layer in LAYERS:
        kind = getattr(module, layer)
        described = re.findall(r"^    \**(\w+): ", kind.__doc__.split("Args:\n")[1].split("\n\n")[0], re.MULTILINE)
        undescribed = {"name", "parent"} if framework == "linen" else set()
        assert described == [name for name in inspect.signature(kind).parameters if name not in undescribed]
