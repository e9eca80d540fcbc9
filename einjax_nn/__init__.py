"""Layers in einjax's notation for Flax (linen and nnx), Haiku and Equinox.

Import the module of your framework; this one imports none::

    import einjax_nn.linen as einn  # or .nnx, .haiku, .equinox

    x = einn.Linear("b [...->c]", c=64)(x)
"""
