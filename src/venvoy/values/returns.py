"""What `options(returns=)` makes of a result: a value of a declared type, or one that JSON can say.

Types are converted by msgspec, which is imported when the first one is asked for. Stateless.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from venvoy_worker.contract.codec import CodecError
from venvoy_worker.contract.plain import plain

from ..errors import EncodingError
from ..exchange import Convert


def converter(wanted: Any, name: str) -> Convert:
    """Return the function that makes of a call's result what was asked for.

    Args:
        wanted: a type (dataclass, TypedDict, NamedTuple, `msgspec.Struct`, pydantic model, enumeration, `list[int]`,
            and so on), or "plain".
        name: of the call, for errors.

    Raises of the function:
        EncodingError: the result is not of that type, or has no plain form; the message says where in it.
    """
    if isinstance(wanted, str):
        return partial(_plain_result, name)
    return partial(_typed_result, wanted, name)


def _plain_result(name: str, value: object) -> object:
    try:
        return plain(value)
    except CodecError as error:
        raise EncodingError(f"{name}: {error}") from None


def _typed_result(wanted: Any, name: str, value: object) -> object:
    if _is_one(value, wanted):
        return value
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):  # msgspec knows those of int or str only
        return _member(wanted, name, value)
    import msgspec  # only for those who ask for types

    for simplify in (_as_it_is, _with_plain_leaves, _with_plain_arrays):
        try:
            simple = simplify(value)
            return msgspec.convert(simple, wanted, dec_hook=_convert_other, from_attributes=True)
        except msgspec.ValidationError as error:
            problem = error
        except RecursionError:
            raise EncodingError(f"{name}: the result is nested too deeply to be converted") from None
        except TypeError as error:  # of the type, not of the value
            raise EncodingError(f"{name}: returns={wanted!r}: {error}") from error
    raise EncodingError(f"{name}: the result is not what returns= says: {_described(problem)}") from problem


def _convert_other(wanted: Any, value: Any) -> object:
    """Convert to a type that msgspec does not know: a pydantic model, a class of whoever."""
    if _is_one(value, wanted):
        return value
    validate = getattr(wanted, "model_validate", None)
    if validate is not None:
        return validate(value)
    if isinstance(wanted, type) and hasattr(wanted, "__fspath__") and isinstance(value, str):
        return wanted(value)
    shown = getattr(wanted, "__qualname__", repr(wanted))
    raise ValueError(f"Expected `{shown}`, got `{type(value).__name__}`")


def _is_one(value: object, wanted: Any) -> bool:
    try:
        return wanted is Any or isinstance(value, wanted)
    except TypeError:  # a generic type, or a protocol
        return False


def _member(wanted: type[enum.Enum], name: str, value: object) -> enum.Enum:
    """Return the member of a value, or of a name, which is the plain form of a member without a plain value."""
    try:
        return wanted(value)
    except ValueError as error:
        if isinstance(value, str) and value in wanted.__members__:
            return wanted[value]
        raise EncodingError(f"{name}: the result is not what returns= says: result: {error}") from error


def _described(error: Any) -> str:
    """Return what msgspec says, with the path as an expression of `result`."""
    text, _, path = str(error).partition(" - at ")
    where = "result" + path.strip("`").removeprefix("$")
    inner = error.__cause__
    if inner is not None and hasattr(inner, "errors"):  # pydantic has a path of its own
        first = inner.errors()[0]
        where += "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        text = first["msg"]
    return f"{where}: {text[:1].lower()}{text[1:]}"


def _as_it_is(value: object) -> object:
    return value


def _with_plain_leaves(value: Any) -> Any:
    """Return a value whose numbers are Python's and whose enumeration members are their values."""
    return _replaced(value, _plain_leaf)


def _with_plain_arrays(value: Any) -> Any:
    """Return a value whose arrays are lists, besides."""
    return _replaced(value, lambda leaf: leaf.tolist() if hasattr(leaf, "tolist") else _plain_leaf(leaf))


def _plain_leaf(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        return value.item()
    return list(value) if isinstance(value, range) else value


def _replaced(value: Any, leaf: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {_replaced(key, leaf): _replaced(item, leaf) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_replaced(item, leaf) for item in value]
    return leaf(value)
