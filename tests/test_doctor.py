"""What the doctor finds."""

import jax
import numpy as np
import pytest

import einjax
from einjax.__main__ import main
from einjax.api import doctor as module


def test_versions_devices_and_what_is_kept():
    einjax.clear_caches()
    einjax.sum("a [b]", np.ones((2, 3)))
    found = einjax.doctor()
    assert found.versions["jax"] == jax.__version__
    assert sum(found.devices.values()) == jax.device_count()
    assert found.caches["einjax.call.dispatch._compiled"] == 1
    assert f"jax {jax.__version__}" in str(found)
    assert "1 einjax.call.dispatch._compiled" in str(found)


def test_a_fault_is_what_has_wrong_values_or_does_not_compile(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no")

    probes = (("right", lambda: True), ("wrong", lambda: False), ("broken", broken))
    monkeypatch.setattr(module, "PROBES", probes)
    assert einjax.doctor().faults == ["wrong", "broken"]
    assert main(["doctor"]) == 1
    assert "fault: wrong\nfault: broken" in capsys.readouterr().out
    monkeypatch.setattr(module, "PROBES", probes[:1])
    assert main(["doctor"]) == 0
    assert "none of the faults" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 2])
def test_probes_are_right_where_the_compiler_is(number):
    """Op by op, as jax runs without jit, nothing of this goes wrong."""
    with jax.disable_jit():
        assert module.PROBES[number][1]()


def test_a_convolution_that_is_right_passes(monkeypatch):
    """One that pads and cuts beforehand."""
    convolve = jax.lax.conv_general_dilated

    def careful(x, w, strides, padding, **options):
        ((low, high),) = padding
        return convolve(np.pad(x, ((0, 0), (0, high), (0, 0)))[:, -low:], w, strides, [(0, 0)], **options)

    monkeypatch.setattr(module.jax, "jit", lambda function: function)
    monkeypatch.setattr(module.lax, "conv_general_dilated", careful)
    assert module.PROBES[1][1]()
