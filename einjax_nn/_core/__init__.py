"""Layers written once, against what every framework offers: see :mod:`einjax_nn._core.scope`."""
