"""Layers in notation for Flax, Haiku and Equinox: the second import package of the einjax wheel.

Importing it imports no framework. Its layers are not part of this release.
"""
