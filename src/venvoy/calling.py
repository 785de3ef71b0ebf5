"""From a target and its arguments to a `Call`; the calling methods that a pool, a view of it and a lease share.

Stateless: everything is encoded here, in the caller's thread, before a lock or a worker is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from venvoy_worker.contract import codec, messages, reducers
from venvoy_worker.contract.host_functions import Passing

from .errors import EncodingError, MessageTooLarge, StaleProxy
from .exchange import Call, Convert, Definition, Dialogue
from .objects.references import Operation, Reference, borrowed, lent
from .options import CallOptions, Target, WorkerOptions
from .places import placed
from .pool.recipe import EncodedInitializer
from .source import VALUE, target_for
from .source import Target as Resolved
from .streams.drawing import drawn
from .values.returns import converter

_NO_OPTIONS = CallOptions()
_COPY = "pass a copy of the object: venvoy.value(proxy)"


def make_call(
    target: Target,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: CallOptions = _NO_OPTIONS,
    table: reducers.Table | None = None,
) -> Call:
    """Return an encoded call.

    Args:
        table: of the workers.

    Raises:
        TypeError, ValueError: the target is none.
        EncodingError: the target or an argument cannot travel.
        MessageTooLarge: the arguments take more bytes than the options allow.
    """
    resolved = target_for(target)
    if resolved.bound_args or resolved.bound_kwargs:
        args = resolved.bound_args + args
        kwargs = {**resolved.bound_kwargs, **kwargs}
    passed: list[Callable[..., object]] | None = None
    if kwargs or resolved.kind == VALUE or not codec.is_small(args):
        passed = []
        encoded = _encoded(resolved, args, kwargs, table, passed)
    else:  # it refers to nothing
        encoded = codec.encode_small((args, {}))
    if options.max_bytes is not None:
        _check_size(resolved.name, encoded, options.max_bytes)
    call = _call(resolved, resolved.kind, encoded, options, passed)
    if lent:
        call.keeps = borrowed()
    return call


def _encoded(
    target: Resolved,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    table: reducers.Table | None,
    passed: list[Callable[..., object]],
) -> codec.Encoded:
    """Return the encoded arguments of a call; functions among them come into `passed`."""
    args, kwargs = drawn(args, kwargs)
    try:
        with Passing(passed):
            if target.kind != VALUE:
                return codec.encode((args, kwargs), table)
            assert target.value is not None
            return codec.encode((*target.value, args, kwargs), table)
    except codec.CodecError as error:
        _check_lent(error)
        raise _cannot_travel(target.name.rpartition(":")[2], args, kwargs, error, table) from error.__cause__


def make_operation(
    reference: Reference,
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: CallOptions,
    flags: int = 0,
) -> Operation:
    """Return an encoded operation on an object in a worker.

    Args:
        operation: as in docs/protocol.md.
        flags: besides the kind.

    Raises:
        EncodingError: an argument cannot travel, or is an object of another worker.
        StaleProxy: an argument is no more.
        MessageTooLarge: the arguments take more bytes than the options allow.
    """
    residence, kind = reference.residence, reference.kind
    name = operation if kind is None else f"{operation} of {kind.name}"
    table = residence.core.table
    call = _operation(name, reference.handle, operation, args, kwargs, options, table, flags)
    if lent:
        call.keeps = held = borrowed()
        if any(other.residence.worker is not residence.worker for other in held or ()):
            raise EncodingError(f"{name}: an argument is a proxy of an object in another worker; {_COPY}")
    return call


def make_origin(
    operation: str, args: tuple[Any, ...], options: CallOptions, table: reducers.Table | None = None
) -> Operation:
    """Return a call that makes an object: "script", "module" or "instance", see docs/protocol.md.

    Raises:
        EncodingError: an argument cannot travel.
    """
    call = _operation(operation, 0, operation, args, {}, options, table, 0)
    if lent:
        call.keeps = borrowed()
    return call


def _operation(
    name: str,
    handle: int,
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    options: CallOptions,
    table: reducers.Table | None,
    flags: int,
) -> Operation:
    passed: list[Callable[..., object]] = []
    try:
        if operation == "__call__" or operation[:1] == ".":  # others, as setting an attribute, keep what they are given
            args, kwargs = drawn(args, kwargs)
            with Passing(passed):
                encoded = codec.encode_call(args, kwargs, table)
        else:
            encoded = codec.encode_call(args, kwargs, table)
    except codec.CodecError as error:
        _check_lent(error)
        raise _cannot_travel(name, args, kwargs, error, table) from error.__cause__
    target = b"%d %s" % (handle, operation.encode())
    if options.max_bytes is not None:
        _check_size(name, encoded, options.max_bytes)
        flags |= messages.FLAG_LIMITED
        target = b"%d %s" % (options.max_bytes, target)
    call = Operation(name, messages.KIND_OBJECT | flags, target, encoded, None, options)
    call.id, call.is_given_up = 0, False
    if passed:
        call.dialogue = Dialogue(passed)
    return call


def _check_lent(error: codec.CodecError) -> None:
    """After a failed encoding: forget the proxies it met, and raise StaleProxy if that was the reason."""
    borrowed()
    if isinstance(error.__cause__, StaleProxy):
        raise error.__cause__


def make_chunk(
    target: Resolved,
    items: list[Any],
    is_starred: bool,
    options: CallOptions,
    table: reducers.Table | None = None,
    goes_on: bool = False,
) -> Call:
    """Return a call that runs a target over many arguments in one go.

    Args:
        items: tuples of arguments, or dicts of keywords, if `is_starred`, else single arguments.
        goes_on: errors are results in their places, and the items after them are run.

    Raises:
        EncodingError: an argument cannot travel.
    """
    first: tuple[Any, ...] | None = target.bound_args
    if not is_starred and (first or target.bound_kwargs):
        items = [(item,) for item in items]
    elif not is_starred:
        first = None
    value: tuple[Any, ...] = (items, first, dict(target.bound_kwargs), goes_on)
    passed: list[Callable[..., object]] = []
    try:
        with Passing(passed):
            encoded = codec.encode((*target.value, *value) if target.value is not None else value, table)
    except codec.CodecError as error:
        _check_lent(error)
        path, part = codec.failing_part(items, table)
        where = f"items{path} (a {type(part).__name__})" if path else "an argument"
        raise EncodingError(f"{target.name}: {where} of map {error}") from error.__cause__
    limit = options.max_bytes
    if limit is not None and codec.size_of(encoded) > limit:
        for item in items:
            _check_size(target.name, codec.encode(item, table), limit)
    call = _call(target, target.kind | messages.FLAG_CHUNK, encoded, options, passed)
    if lent:
        call.keeps = borrowed()
    if goes_on and call.convert is not None:
        call.convert = partial(_converted_or_error, call.convert)
    return call


def make_chunks(
    target: Resolved,
    items: list[Any],
    is_starred: bool,
    options: CallOptions,
    table: reducers.Table,
    goes_on: bool,
) -> list[tuple[Call | Exception, int]]:
    """Return the calls for the items of a chunk, each with its number of items: one, usually.

    One whose arguments cannot travel is its error. If errors are results (`goes_on`), each item has a call of its own
    then, so that the others are run.
    """
    try:
        return [(make_chunk(target, items, is_starred, options, table, goes_on), len(items))]
    except EncodingError as error:
        if not goes_on or len(items) == 1:
            return [(error, len(items))]
    return [pair for item in items for pair in make_chunks(target, [item], is_starred, options, table, goes_on)]


def make_request(request: Sequence[Any], options: CallOptions, table: reducers.Table) -> Call | Exception:
    """Return the call of a request `(target, args, kwargs)`, the last two of which may be missing; else its error."""
    if not isinstance(request, tuple | list) or not 1 <= len(request) <= 3:
        return TypeError(f"a request is (target, args, kwargs), not {request!r}")
    args: Any = request[1] if len(request) > 1 else ()
    if not isinstance(args, tuple | list):
        return TypeError(f"args of a request are a tuple or a list, not {args!r}")
    try:
        kwargs = keywords_of(request[2]) if len(request) > 2 else {}
        return make_call(request[0], tuple(args), kwargs, options, table)
    except (EncodingError, TypeError, ValueError) as error:
        return error


def keywords_of(item: Any) -> dict[str, Any]:
    """Return keyword arguments as a dict.

    Raises:
        TypeError: they are none.
    """
    if not isinstance(item, Mapping) or not all(isinstance(name, str) for name in item):
        raise TypeError(f"keyword arguments are a dict of names to values, not {item!r}")
    return dict(item)


def _converted_or_error(convert: Convert, value: object) -> object:
    try:
        return convert(value)
    except EncodingError as mismatch:
        return mismatch


def make_eval(text: str, values: dict[str, Any], mode: str, session: str, options: CallOptions) -> Call:
    """Return a call that evaluates an expression, or runs statements that may `return` and `await`.

    Args:
        text: dedented if its first line is indented; errors show it where it stands in the file of whoever called us.
        mode: "eval" for an expression, or statements with a `return`; "exec" for statements.
        session: whose names are kept; "" keeps none.

    Raises:
        TypeError: the text is no str.
        EncodingError: one of the values cannot travel.
    """
    if not isinstance(text, str):
        raise TypeError(f"{mode}() takes source text, not {type(text).__name__}")
    text, place = placed(text, mode)
    try:
        encoded = codec.encode((text, values, mode, place), reducers.ARGUMENTS)
    except codec.CodecError as error:
        _check_lent(error)
        path, part = codec.failing_part(values, reducers.ARGUMENTS)
        raise EncodingError(f"values{path} (a {type(part).__name__}) for {mode}() {error}") from error.__cause__
    name = f"{mode}({text[:60]!r})"
    if options.max_bytes is not None:
        _check_size(name, encoded, options.max_bytes)
    call = _made(name, messages.KIND_EVAL, session.encode(), encoded, None, options)
    if lent:
        call.keeps = borrowed()
    return call


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
        body = codec.encode_inline((args, dict(target.bound_kwargs)), reducers.ARGUMENTS)
    except codec.CodecError as error:
        raise EncodingError(f"an argument of the initializer {error}") from error.__cause__
    return target.kind, target.name, encoded, body


def definition_of(target: Resolved) -> Definition | None:
    """Return the source text that a worker needs before it can run a target, if it needs any."""
    source = target.source
    return source and Definition(source.digest, source.text, source.filename, dict(source.bindings))


def _call(
    target: Resolved,
    flags: int,
    encoded: codec.Encoded,
    options: CallOptions,
    passed: list[Callable[..., object]] | None,
) -> Call:
    name, definition = target.name, None
    sent = name.encode()
    if target.source is not None:
        definition = definition_of(target)
        name = name.partition(":")[2]
    make = Call if options.max_bytes is None and options.returns is None else _made
    call = make(name, flags, sent, encoded, definition, options)
    if passed:
        call.dialogue = call.dialogue or Dialogue()
        call.dialogue.passed = passed
    return call


def _made(
    name: str,
    flags: int,
    target: bytes,
    encoded: codec.Encoded,
    definition: Definition | None,
    options: CallOptions,
) -> Call:
    if options.max_bytes is not None:
        flags |= messages.FLAG_LIMITED
        target = b"%d %s" % (options.max_bytes, target)
    call = Call(name, flags, target, encoded, definition, options)
    if options.returns is not None:
        call.convert = converter(options.returns, name)
    return call


def _check_size(name: str, encoded: codec.Encoded, limit: int) -> None:
    size = codec.size_of(encoded)
    if size > limit:
        raise MessageTooLarge(
            f"{name}: the arguments take {size} bytes, but at most {limit} are allowed (max_bytes)",
            size=size,
            limit=limit,
        )


def _cannot_travel(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: codec.CodecError, table: reducers.Table | None
) -> EncodingError:
    """Return the error that says which argument it is, and where in it the reason is."""
    with Passing([]):  # a callback is not what is wrong
        path, part = codec.failing_part(args, table)
        path = f"args{path}" if path else ""
        if not path and kwargs:
            path, part = codec.failing_part(kwargs, table)
            path = f"kwargs{path}" if path else ""
    if not path:
        return EncodingError(f"{name}: {error}")
    return EncodingError(f"{name}: argument {path} (a {type(part).__name__}) {error}")
