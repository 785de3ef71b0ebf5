"""From a target and its arguments to a `Call`; the calling methods that a pool, a view of it and a lease share.

Stateless: everything is encoded here, in the caller's thread, before a lock or a worker is taken.
"""

from __future__ import annotations

from typing import Any

from venvoy_worker.contract import codec, messages

from .errors import EncodingError
from .exchange import Call, Definition
from .options import CallOptions, Target, WorkerOptions
from .pool.recipe import EncodedInitializer
from .source import SOURCE, VALUE, target_for
from .source import Target as Resolved

_NO_OPTIONS = CallOptions()


def make_call(
    target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions = _NO_OPTIONS
) -> Call:
    """Return an encoded call.

    Raises:
        TypeError, ValueError: the target is none.
        EncodingError: the target or an argument cannot travel.
    """
    resolved = target_for(target)
    if resolved.bound_args or resolved.bound_kwargs:
        args = resolved.bound_args + args
        kwargs = {**resolved.bound_kwargs, **kwargs}
    try:
        if resolved.kind == VALUE:
            assert resolved.value is not None
            encoded = codec.encode((*resolved.value, args, kwargs))
        else:
            encoded = codec.encode_call(args, kwargs)
    except codec.CodecError as error:
        raise _cannot_travel(resolved.name.rpartition(":")[2], args, kwargs, error) from error.__cause__
    return _call(resolved, resolved.kind, encoded, options)


def make_chunk(target: Resolved, items: list[Any], is_starred: bool, options: CallOptions) -> Call:
    """Return a call that runs a target over many arguments in one go.

    Args:
        items: tuples of arguments if `is_starred`, else single ones.

    Raises:
        EncodingError: an argument cannot travel.
    """
    first: tuple[Any, ...] | None = target.bound_args
    if not is_starred and (first or target.bound_kwargs):
        items = [(item,) for item in items]
    elif not is_starred:
        first = None
    value: tuple[Any, ...] = (items, first, dict(target.bound_kwargs))
    try:
        encoded = codec.encode((*target.value, *value) if target.value is not None else value)
    except codec.CodecError as error:
        raise EncodingError(f"{target.name}: an argument of map {error}") from error.__cause__
    return _call(target, target.kind | messages.FLAG_CHUNK, encoded, options)


def make_eval(text: str, values: dict[str, Any], mode: str, session: str, options: CallOptions) -> Call:
    """Return a call that evaluates an expression (`mode` "eval") or executes statements ("exec").

    Raises:
        TypeError: the text is no str.
        EncodingError: one of the values cannot travel.
    """
    if not isinstance(text, str):
        raise TypeError(f"{mode}() takes source text, not {type(text).__name__}")
    try:
        encoded = codec.encode((text, values, mode))
    except codec.CodecError as error:
        raise EncodingError(f"a value for {mode}() {error}") from error.__cause__
    return Call(
        f"{mode}({text[:60]!r})",
        messages.KIND_EVAL,
        session.encode(),
        encoded,
        options=options,
    )


def placeholder(name: str, options: CallOptions) -> Call:
    """Return a call that is never sent: it stands for whoever waits for a worker."""
    return Call(name, messages.KIND_EVAL, b"", ((b"",), ()), options=options)


def encode_initializer(worker: WorkerOptions) -> EncodedInitializer | None:
    """Return what HELLO says of the initializer of a pool's workers, if there is one.

    Raises:
        EncodingError: it has no name, or an argument cannot travel.
    """
    if worker.initializer is None:
        return None
    target = target_for(worker.initializer)
    if target.kind == VALUE:
        raise EncodingError(f"the initializer {target.name} has no name a worker could import; use a function")
    definition = definition_of(target)
    encoded = None if definition is None else (definition.digest, definition.encoded())
    args = (*target.bound_args, *worker.initializer_args)
    try:
        body = codec.encode_inline((args, dict(target.bound_kwargs)))
    except codec.CodecError as error:
        raise EncodingError(f"an argument of the initializer {error}") from error.__cause__
    return target.kind, target.name, encoded, body


def definition_of(target: Resolved) -> Definition | None:
    """Return the source text that a worker needs before it can run a target, if it needs any."""
    source = target.source
    return source and Definition(source.digest, source.text, source.filename, dict(source.bindings))


def _call(target: Resolved, flags: int, encoded: codec.Encoded, options: CallOptions) -> Call:
    definition = definition_of(target)
    shown = target.name.partition(":")[2] if target.kind == SOURCE else target.name
    return Call(shown, flags, target.name.encode(), encoded, definition, options)


def _cannot_travel(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: codec.CodecError) -> EncodingError:
    """Return the error that says which argument it is."""
    places = [(f"argument {index}", value) for index, value in enumerate(args)]
    places += [(f"argument {key!r}", value) for key, value in kwargs.items()]
    for place, value in places:
        try:
            codec.encode(value)
        except codec.CodecError as single:
            return EncodingError(f"{name}: {place} (a {type(value).__name__}) {single}")
    return EncodingError(f"{name}: {error}")
