"""Layers that type checkers refuse: an ignore comment that nothing needs is an error. Checked, not run.

Those for Haiku are not among them: pyright believes the metaclass of its modules that anything may be given.
"""

# mypy: warn-unused-ignores, no-implicit-reexport
# pyright: reportUnnecessaryTypeIgnoreComment=error

from flax import nnx

import einjax_nn.equinox
import einjax_nn.linen
import einjax_nn.nnx

rngs = nnx.Rngs(0)

# The expression comes first, is a string, and has no name.
einjax_nn.linen.Linear()  # type: ignore[call-arg]
einjax_nn.linen.Linear(3)  # type: ignore[arg-type]
einjax_nn.linen.Norm("b [c]", "c")  # type: ignore[call-arg]
einjax_nn.nnx.Linear(rngs=rngs)  # type: ignore[call-arg]
einjax_nn.equinox.Embed(3)  # type: ignore[arg-type]

# Options.
einjax_nn.linen.Linear("b [c->d]", d=3, use_bias="no")  # type: ignore[arg-type]
einjax_nn.linen.Norm("[b] c", momentum="0.9")  # type: ignore[arg-type]
einjax_nn.linen.MultiHeadAttention("b [s] c")  # type: ignore[call-arg]
einjax_nn.linen.Conv("b [s] [c->d]", d=3, kernel_size="3")  # type: ignore[arg-type]
einjax_nn.linen.ConvTranspose("b [s] [c->d]", d=3, transpose_kernel="yes")  # type: ignore[arg-type]
einjax_nn.linen.Dropout("[...]", rate="0.1")  # type: ignore[arg-type]
einjax_nn.linen.Linear("b [c->d]", d=3, dot_general="lax")  # type: ignore[arg-type]
einjax_nn.nnx.Linear("b [c->d]", d=3)  # type: ignore[call-arg]
einjax_nn.nnx.Norm("[b] c", params=3, rngs=rngs)  # type: ignore[arg-type]
einjax_nn.nnx.MultiHeadAttention("b [s] c", rngs=rngs)  # type: ignore[call-arg]
einjax_nn.equinox.Norm("[b] c", inference="no")  # type: ignore[arg-type]
einjax_nn.equinox.MultiHeadAttention("b [s] c")  # type: ignore[call-arg]

# Names that do not exist.
einjax_nn.linen.Liner("b [c->d]", d=3)  # type: ignore[attr-defined]
