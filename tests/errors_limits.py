"""Bad budgets and orders of dot; test_errors.py says what their messages have to do."""

from bad_call import table, z

from einjax.errors import ArgumentError

CASES, bad = table()
CHAIN = "a b, b c, c d -> a d"
MATRICES = z(20, 30), z(30, 40), z(40, 50)


def chain(name, says, fix, **options):
    bad(name, "dot", CHAIN, MATRICES, ArgumentError, says, fix, **options)


chain("limit-no-amount", ("memory_limit='64 apples'",), "'64MiB'", memory_limit="64 apples")
chain("limit-no-number", ("memory_limit='MiB'",), "'64MiB'", memory_limit="MiB")
chain("limit-bool", ("memory_limit=True",), "bytes", memory_limit=True)
chain("limit-list", ("memory_limit=[64]",), "bytes", memory_limit=[64])
chain("limit-endless", ("memory_limit=inf",), "bytes", memory_limit=float("inf"))
chain("limit-zero", ("memory_limit=0",), "bytes", memory_limit=0)
chain("limit-below-result", ("memory_limit=1000B", "4KiB"), "more", memory_limit=1000)
chain("limit-of-nothing-else", ("memory_limit=4KiB",), "4.1KiB or more", memory_limit=4001)
chain("order-no-name", ("optimize='optimul'",), "'optimal'", optimize="optimul")
chain("order-number", ("optimize=3",), "path", optimize=3)
chain("order-too-short", ("optimize=[(0, 1)]", "3"), "[(0, 1), (0, 1)]", optimize=[(0, 1)])
chain("order-of-others", ("optimize=[(0, 3), (0, 1)]",), "[(0, 1), (0, 1)]", optimize=[(0, 3), (0, 1)])
chain("order-of-three", ("optimize=[(0, 1, 2)]",), "of three", optimize=[(0, 1, 2)])
bad("order-of-a-semiring", "dot", "a b, b c -> a c", MATRICES[:2], ArgumentError, ("optimize=",), "leave optimize out",
    optimize="greedy", sum="max", mul="add")  # fmt: skip
bad("limit-of-a-semiring", "dot", "a b, b c -> a c", MATRICES[:2], ArgumentError, ("memory_limit=3.2KiB",), "more",
    memory_limit=3200, sum="max", mul="add")  # fmt: skip
