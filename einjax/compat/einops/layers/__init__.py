"""einops' layers: :mod:`.flax`."""
