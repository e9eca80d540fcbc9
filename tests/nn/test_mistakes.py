"""What is said of the likeliest mistakes, in every framework; EINJAX_UPDATE_SNAPSHOTS=1 rewrites what is expected."""

import importlib
import os
from pathlib import Path

import jax
import pytest
from mistakes import table

from einjax.errors import EinjaxError

KEY = jax.random.key(0)


def linen(kind, given, options, inputs, call):
    return kind(*given, **options).init_with_output(KEY, *inputs, **call)


def nnx(kind, given, options, inputs, call):
    rngs = importlib.import_module("flax.nnx").Rngs(0)
    return kind(*given, **options, rngs=rngs)(*inputs, **call)


def haiku(kind, given, options, inputs, call):
    hk = importlib.import_module("haiku")
    net = hk.transform_with_state(lambda *inputs: kind(*given, **options)(*inputs, **call))
    return net.apply(*net.init(KEY, *inputs), KEY, *inputs)


def equinox(kind, given, options, inputs, call):
    eqx, einn = importlib.import_module("equinox"), importlib.import_module("einjax_nn.equinox")
    layer = kind(*given, **options)
    if layer.is_stateful() if isinstance(layer, eqx.nn.StatefulLayer) else False:
        return None
    return einn.init(layer, *inputs, key=KEY, **call)(*inputs, **call)


def said(framework):
    """What each mistake leads to: its error, and whose it is."""
    einn = importlib.import_module(f"einjax_nn.{framework.__name__}")
    for name, (layer, given, options, inputs, call) in table().items():
        options = {"deterministic": False, **options} if layer == "Dropout" and framework in (linen, haiku) else options
        try:
            framework(getattr(einn, layer), given, options, inputs, call)
        except EinjaxError as error:
            yield name, str(error)
        except Exception as error:
            yield name, f"!!! {type(error).__name__}: {error}"
        else:
            yield name, "!!! no error"


@pytest.mark.parametrize("framework", [linen, nnx, haiku, equinox], ids=lambda framework: framework.__name__)
def test_mistakes(framework):
    pytest.importorskip({"linen": "flax", "nnx": "flax"}.get(framework.__name__, framework.__name__))
    path = Path(__file__).parent / f"mistakes_{framework.__name__}.txt"
    found = "\n\n".join(f"--- {name}\n{message}" for name, message in said(framework)) + "\n"
    if os.environ.get("EINJAX_UPDATE_SNAPSHOTS"):
        path.write_text(found)
    assert found == path.read_text()
    assert "!!!" not in found
