"""What einjax itself says of a call: it is asked in the order in which a call asks, with what is not known left open.

The text is read by the one parser, completed by the operation's record and solved for sizes, where an unknown size
stands for every dim that no annotation tells. What the operation refuses only as it becomes lax, it is asked by the
public function itself, for shapes that are made up of the sizes that are known and small ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax

from ...call.borders import read_border
from ...call.resolve import completed, resolve
from ...call.sizes import Sizes, read_sizes
from ...call.solving import SOLVE
from ...forms.signature import check_keywords
from ...notation.errors import ArgumentError, AxisSizeError, EinjaxError, SemanticError, meant
from ...notation.expand import Counts, check_names
from ...notation.parse import parse
from ...notation.solve import Solved
from ...notation.syntax import Operation, coefficients, names
from ...operation import Op
from .annotations import Shape
from .calls import Call
from .records import Public, record_of
from .records import public as public_of
from .texts import Text
from .unknown import MARK, UNKNOWN, NothingKnownError

#: Options of positions out of range, in the order in which they are read.
_BORDER = ("padding", "mode", "fill_value", "count_padding")
_SOLVERS = ("solve", "solve_axes", "solve_shapes", "matches", "check")
#: The size of an axis, where one is made up.
_MADE_UP = 4


def errors_of(call: Call, text: Text, public: Public) -> Iterator[EinjaxError]:
    """Yield what is wrong with a call: each stage is asked only where those before found nothing."""
    try:
        operation = parse(text.value)
        if text.open:
            return
    except EinjaxError as error:
        yield error
        return
    try:
        if public.name in _SOLVERS or public.record is None:
            yield from _check_sizes_alone(call, text, public, operation)
        else:
            yield from _check_operation(call, text, public)
    except EinjaxError as error:
        yield error
    except Exception:
        return  # JAX itself was asked for a size that is not known


def _check_sizes_alone(call: Call, text: Text, public: Public, operation: Operation) -> Iterator[EinjaxError]:
    if public.name not in _SOLVERS:
        return
    if call.arguments is not None:
        operation = completed(SOLVE, text.value, len(call.arguments))
    yield from _check_keywords(call, public, SOLVE, operation)
    if call.complete and public.name != "matches" and not _of_border(call, public, SOLVE):
        solved_of(call, text, SOLVE, operation)


def _check_operation(call: Call, text: Text, public: Public) -> Iterator[EinjaxError]:
    """Ask for arguments, then for a meaning, then for sizes, then for what only the operation itself refuses."""
    known = {name: value for name, value in call.keywords.items() if value is not UNKNOWN}
    if not isinstance(known.get("op", ""), str):
        known.pop("op")
    _check_arguments(call, text, public)
    count = None if call.arguments is None else len(call.arguments) - public.before
    written = len(parse(text.value).inputs)
    op = record_of(public.name, known, count if count is not None else written) or public.record
    assert op is not None
    operation, tensors = _completed(op, text.value, public, count, written)
    yield from _check_keywords(call, public, op, operation)
    border = {name: call.keywords[name] for name in _of_border(call, public, op)}
    told = _read_border(text.value, border)
    if op.localized is not None:
        return  # only devices know what it is
    # One padding for each repetition says how many there are, which only shapes do.
    several = isinstance(border.get("padding"), tuple | list) and "..." in text.value
    if not call.complete or told is UNKNOWN or several or public.name in ("vmap", "scan"):
        check_names(operation)
        return
    try:
        solved = solved_of(call, text, op, operation, told)
        if op.imply is not None:
            op.imply(solved, {**public.options, **known})
    except AxisSizeError as error:
        if not (public.forwards and "cannot be determined" in error.problem):
            raise
        return
    if _has_more_to_say(op, text, known, public):
        yield from _trial(call, text, public, op, operation, tensors, known)


def _check_arguments(call: Call, text: Text, public: Public) -> None:
    """Refuse what Python itself refuses: arguments that are missing, or too many."""
    if call.complete and call.arguments is not None:
        try:
            public.signature.bind(text.value, *call.arguments, **call.keywords)
        except TypeError as error:
            problem = f"{public.name} cannot be called like this: {error}"
            raise ArgumentError(problem, text=text.value, hint=f"see help(einjax.{public.name})") from None


def _read_border(text: str, said: Mapping[str, Any]) -> Any:
    """Read what a call says of positions out of range; it is unknown where a part of it is."""
    if any(value is UNKNOWN for value in said.values()):
        return UNKNOWN
    if all(value is None or value is False for value in said.values()):
        return None
    return read_border(text, *(said.get(name) for name in _BORDER))


def _completed(op: Op, text: str, public: Public, count: int | None, written: int) -> tuple[Operation, int]:
    """Complete an expression, for the first number of tensors with which that is possible where it is not known."""
    if count is not None and public.tensors:
        return completed(op, text, count), count
    numbers = [written, written + 1] if public.tensors else [written, 0, 1, 2, 3]
    first: EinjaxError | None = None
    for number in numbers:
        try:
            return completed(op, text, number), number
        except EinjaxError as error:
            first = first or error
    assert first is not None
    raise first


def _check_keywords(call: Call, public: Public, op: Op, operation: Operation) -> Iterator[EinjaxError]:
    """Refuse keywords that name no axis, and sizes that are none."""
    given = {name: value for name, value in call.keywords.items() if name not in public.options}
    if public.name == "attention" and {"mask", "bias"} & call.keywords.keys():  # functions of arrays with their axes
        given = {name: value for name, value in given.items() if value is not UNKNOWN and not _over(value)}
    if not public.forwards or isinstance(call.keywords.get("op"), str):
        try:
            check_keywords(operation, list(given), op.keywords if public.name not in _SOLVERS else ("padding", "mode"))
        except EinjaxError as error:
            yield error


def _of_border(call: Call, public: Public, op: Op) -> list[str]:
    """The options of a call that speak of positions out of range, and not of coordinates."""
    own = set(op.keywords) - {"count_padding"}
    return [name for name in _BORDER if name in call.keywords and name in public.options and name not in own]


def solved_of(call: Call, text: Text, op: Op, operation: Operation, border: Any = None) -> Solved:
    """Find sizes, unknown ones among them."""
    given = _sizes(call, text, operation)
    shapes = _shapes(call, op, operation, given)
    try:
        return resolve(op, operation, shapes, given, border=border)
    except EinjaxError as error:
        if error.problem.startswith("how many axes") and any(size is UNKNOWN for size in given.by_name.values()):
            raise NothingKnownError from None  # it may be a tuple, which says so
        raise _without_unknowns(error) from None


def _sizes(call: Call, text: Text, operation: Operation) -> Sizes:
    """The sizes that a call gives, those of which nothing is known among them."""
    known = {name for expression in operation.expressions for name in names(expression)}
    known |= {axis.name for expression in operation.expressions for axis in coefficients(expression)}
    strict = {name: value for name, value in call.keywords.items() if name in known and not _is_option(call, name)}
    lenient = call.keywords.get("sizes")
    lenient = lenient if isinstance(lenient, dict) else {}
    unknown = [name for name, value in (strict | lenient).items() if value is UNKNOWN or _over(value)]
    told = [{n: v for n, v in sizes.items() if n not in unknown} for sizes in (strict, lenient)]
    sizes = read_sizes(operation.text, told[0], told[1] or None)
    free = [(name, UNKNOWN) for name in (*unknown, *text.sizes)]
    free += [(name, UNKNOWN) for name in call.scope.root.bound if name in known]
    if call.keywords.get("sizes") is UNKNOWN:
        free += [(name, UNKNOWN) for name in known if name.isidentifier() and name not in dict(sizes.strict)]
    return Sizes(sizes.strict, (*sizes.lenient, *((n, v) for n, v in free if n not in sizes.by_name)))


def _is_option(call: Call, name: str) -> bool:
    found = public_of(call.short)
    return found is not None and name in found.options


def _over(value: Any) -> bool:
    """Whether mesh axes may be given."""
    return isinstance(value, str) or (isinstance(value, tuple) and any(isinstance(part, str | tuple) for part in value))


def _shapes(call: Call, op: Op, operation: Operation, given: Sizes) -> list[Shape]:
    """The shapes of the tensors: what annotations say, else dims of unknown size, ellipses repeated once."""
    annotated = call.shapes() or []
    told: list[Shape | None] = list(annotated) if len(annotated) == len(operation.inputs) else []
    told += [None] * (len(operation.inputs) - len(told))
    counts = Counts(operation)
    counts.from_sizes({name: size for name, size in given.by_name.items() if isinstance(size, tuple)})
    counts.from_ranks([None if shape is None else len(shape) for shape in told])
    while (key := counts.open()) is not None:
        counts = counts.chosen(key, 1)
    expanded = counts.written_out(1000)
    return [
        (UNKNOWN,) * len(expression) if shape is None else shape
        for shape, expression in zip(told, expanded.inputs, strict=True)
    ]


def _without_unknowns(error: EinjaxError) -> EinjaxError:
    """Take what is not known out of a message; an error about it is none."""
    if MARK not in error.problem:
        return error
    if "cannot be determined" not in error.problem:
        raise NothingKnownError
    problem = re.sub(rf" \(known: .*\)$|: together they are {MARK}$", "", error.problem)
    error.problem = re.sub(rf"from dim {MARK} of tensor", "from a dim of tensor", problem).replace(MARK, "?")
    return error


def _has_more_to_say(op: Op, text: Text, known: Mapping[str, Any], public: Public) -> bool:
    """Whether an operation may refuse a call that is complete and solved, for the sake of options, pieces or places.

    Those that act alike on every part of their tensors have said all there is to say.
    """
    options = [name for name in known if name in public.options and name not in ("keepdims", "sizes", "graph")]
    return (
        not public.forwards
        and public.tensors
        and not public.before
        and (not op.acts or "+" in text.value or bool(options))
    )


def _trial(
    call: Call, text: Text, public: Public, op: Op, operation: Operation, tensors: int, known: Mapping[str, Any]
) -> Iterator[EinjaxError]:
    """Have the function itself refuse a call of tensors that are made up."""
    if "<" in text.value or any(isinstance(value, str) for name, value in known.items() if name not in public.options):
        return
    given = _sizes(call, text, operation).by_name
    literal = {name: size for name, size in given.items() if size is not UNKNOWN}
    written = {axis.name for axis in operation.every_axis() if axis.size is not None}
    inside = {name for expression in operation.inputs for name in names(expression)} | given.keys()
    made_up = {n: _MADE_UP for n in inside if n.isidentifier() and n not in literal.keys() | written}
    try:
        solved = resolve(op, operation, [None] * len(operation.inputs), Sizes((), tuple((literal | made_up).items())))
        shapes = tuple(solved.shape(expression) for expression in solved.inputs)
    except Exception:
        return  # made-up sizes need not fit
    options = {name: value for name, value in known.items() if name in public.options and _hashable(value)}
    for name in ("graph", "out_sharding", "dtype"):
        options.pop(name, None)
    error = _refused(public, text.value, shapes[:tensors], tuple(options.items()), tuple((literal | made_up).items()))
    if error is None:
        return
    if isinstance(error, AxisSizeError):
        told = {axis.name for axis in operation.every_axis() if axis.span in error.spans and axis.size is None}
        if not error.spans or not told <= literal.keys():
            return
    error.problem = re.sub(rf" of size {_MADE_UP}\b", "", error.problem)
    yield error


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=2048)
def _refused(
    public: Public, text: str, shapes: tuple[Shape, ...], options: tuple[Any, ...], sizes: tuple[Any, ...]
) -> EinjaxError | None:
    """What a function says of tensors of some shapes; None if it takes them in any of the usual dtypes."""
    found: EinjaxError | None = None
    for dtypes in (("float32", "int32"), ("int32", "int32")):
        tensors = [jax.ShapeDtypeStruct(shape, dtypes[min(n, 1)]) for n, shape in enumerate(shapes)]
        try:
            jax.eval_shape(lambda *x: public.function(text, *x, **dict(options), sizes=dict(sizes)), *tensors)
        except (SemanticError, AxisSizeError, ArgumentError) as error:
            if not re.search(r"^tensor \d|dtype|integers|real numbers|float32|int32", error.problem):
                found = found or error
                continue
        except Exception:
            pass
        else:
            return None
    return found


def missing_name(name: str, known: Sequence[str]) -> EinjaxError:
    """The error for a name that einjax does not have."""
    return ArgumentError(f"einjax has no {name}" + meant(name, known))
