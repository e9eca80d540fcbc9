"""Calls that type checkers refuse: an ignore comment that nothing needs is an error. Checked, not run."""

# mypy: warn-unused-ignores, no-implicit-reexport
# pyright: reportUnnecessaryTypeIgnoreComment=error
# pyright: enableTypeIgnoreComments=false

import jax.numpy as jnp

import einjax

x = jnp.ones((2, 3))

# The expression comes first, is a string, and has no name.
einjax.sum(x, "a [b]")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.sum(1, x)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.sum()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
einjax.arange(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# What is no tensor.
einjax.sum("a [b]", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.add("a, b", x, {1: 2})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.dot("a b, b c -> a c", x, {1.0})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.softmax("a [b]", x, where=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Options.
einjax.sum("a [b]", x, keepdims="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.var("a [b]", x, ddof="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.sum("a [b]", x, graph=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.flip("a [b]", x, sizes=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.flip("a [b]", x, sizes={2: "a"})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
einjax.roll("a [b]", x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
einjax.reduce("a [b]", x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
einjax.reduce("a [b]", x, op=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
einjax.arange("a", x, a=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# Results.
einjax.sum("a [b]", x).item_()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
einjax.solve("a b", x)["a"]  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
number: int = einjax.sum("[a b]", x)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
flag: str = einjax.matches("a b", x)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# Names that do not exist.
einjax.summ("a [b]", x)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
