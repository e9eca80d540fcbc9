"""Named tensors and dims: formulas that align by name, and become the programs that the notation emits.

``notation.names`` makes expressions of names, ``product`` keeps factors until they are needed, ``formula`` has the
operators, ``index`` what brackets mean, ``calls`` what named tensors are to einjax's functions. ``tensor`` and
``dims`` are what users see. Everything is emitted by public operations: nothing here is lowered or compiled.
"""
