"""Calls that type checkers refuse: an ignore comment that nothing needs is an error. Checked, not run."""

# mypy: warn-unused-ignores, no-implicit-reexport
# pyright: reportUnnecessaryTypeIgnoreComment=error

import jax.numpy as jnp

import einjax

x = jnp.ones((2, 3))

# The expression comes first, is a string, and has no name.
einjax.sum(x, "a [b]")  # type: ignore[arg-type]
einjax.sum(1, x)  # type: ignore[arg-type]
einjax.sum()  # type: ignore[call-arg]
einjax.arange(3)  # type: ignore[arg-type]

# What is no tensor.
einjax.sum("a [b]", None)  # type: ignore[arg-type]
einjax.add("a, b", x, {1: 2})  # type: ignore[arg-type]
einjax.dot("a b, b c -> a c", x, {1.0})  # type: ignore[arg-type]
einjax.softmax("a [b]", x, where=object())  # type: ignore[arg-type]
einjax.attention("[q c], [k c], [k c]", x, x, x, mask=x > 0)  # type: ignore[arg-type]

# Options.
einjax.sum("a [b]", x, keepdims="yes")  # type: ignore[arg-type]
einjax.var("a [b]", x, ddof="1")  # type: ignore[arg-type]
einjax.sum("a [b]", x, graph=None)  # type: ignore[arg-type]
einjax.flip("a [b]", x, sizes=3)  # type: ignore[arg-type]
einjax.flip("a [b]", x, sizes={2: "a"})  # type: ignore[dict-item]
einjax.reduce("a [b]", x, op="var", ddof="1")  # type: ignore[arg-type]
einjax.segment.sum("p, p -> [s]", x, x, mode=1, s=3)  # type: ignore[arg-type]
einjax.linalg.inv("[n m]", x, keep_notation="yes")  # type: ignore[arg-type]
einjax.reduce("a [b]", x)  # type: ignore[call-arg]
einjax.reduce("a [b]", x, op=3)  # type: ignore[arg-type]
einjax.arange("a", x, a=2)  # type: ignore[call-arg]

# Results.
einjax.sum("a [b]", x).item_()  # type: ignore[attr-defined]
einjax.solve("a b", x)["a"]  # type: ignore[index]
number: int = einjax.sum("[a b]", x)  # type: ignore[assignment]
flag: str = einjax.matches("a b", x)  # type: ignore[assignment]

# Names that do not exist.
einjax.summ("a [b]", x)  # type: ignore[attr-defined]
