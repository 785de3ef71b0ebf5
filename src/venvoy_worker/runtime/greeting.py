"""The start of a worker, and of a template: answer HELLO, do what it asks for, say READY or what stands in the way.

Stateless. Law: code of the user's runs inside `interrupt.run`, so that nothing but its errors comes out of it.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from ..contract import codec, frames, messages
from ..contract.failures import failure
from ..contract.reducers import Table
from . import coroutines, interrupt, lent, records, replies, sources, stdio, targets
from .coroutines import COROUTINE, finish
from .perform import report, resolve


def greet(channel: Channel, send: Callable[[Pieces], None], line: Control, prepare: Prepare) -> bool:
    """Answer HELLO with READY or with the error that stands in the way; return True when ready.

    Args:
        channel: the call channel, of the first lane.
        send: writes to it.
        prepare: does what the settings say; returns what READY says besides the facts, if anything.
    """
    capabilities = messages.capabilities()
    try:
        frame = channel.receive()
        if frame is None:
            return False
        oldest, newest, abilities = messages.read_greeting(frame.target)
        if not oldest <= frames.PROTOCOL_VERSION <= newest:
            _refuse(send, oldest, newest)
            return False
        settings = codec.decode_frame(frame)
        if settings.get("log_levels") is not None:
            records.relay(line.send_record, settings["log_levels"])
        if settings["attributes_output"] and coroutines.has_loop():
            from . import printing  # start-up time

            printing.begin(line.send_record)
        if "segments" in abilities and "segments" in capabilities:
            channel.parser.borrower = lent.open_line(line, settings["segments"])
        found: Any = interrupt.run(0, prepare, (settings,), {})
    except BaseException as error:
        _fail_to_start(send, error)
    stdio.leave_if_forked()
    stdio.flush()
    pieces, _ = codec.encode(dict(_facts(), **found) if found else _facts())
    target = messages.greeting(frames.OLDEST_PROTOCOL, frames.PROTOCOL_VERSION, capabilities)
    send(frames.pack(messages.READY, codec=codec.PICKLE, target=target, body=pieces))
    return True


def _refuse(send: Callable[[Pieces], None], oldest: int, newest: int) -> None:
    text = "the host speaks protocol %d to %d, this worker %d to %d" % (
        oldest,
        newest,
        frames.OLDEST_PROTOCOL,
        frames.PROTOCOL_VERSION,
    )
    _send_error(send, failure("protocol_error", text))


def _fail_to_start(send: Callable[[Pieces], None], error: BaseException) -> None:
    stdio.leave_if_forked()
    stdio.flush()
    _send_error(send, report(error))
    os._exit(1)  # threads of a module half imported must not keep the process


def _send_error(send: Callable[[Pieces], None], problem: dict[str, object]) -> None:
    send(frames.pack(messages.ERROR, codec=codec.PICKLE, body=replies.encode_report(problem, None)))


def prepare_spawned(settings: Settings) -> None:
    """Do what the pool asks for before a worker is ready."""
    settle(settings)
    for name in settings["preload"]:
        targets.import_module(name)
    prepare_forked(settings)


def settle(settings: Settings) -> None:
    """Say where modules are found, and how values travel."""
    if settings["sys_path"] is not None:
        sys.path[:] = settings["sys_path"]
    sys.path[:0] = settings["paths"]
    is_home = settings["is_home"]
    codec.use(Table(is_home, not is_home, tuple(settings["classes"]), tuple(settings["paths"])))
    targets.configure(settings["module"], settings["sources_folder"], settings["host_version"])


def prepare_forked(settings: Settings) -> None:
    """Do what is left to a worker whose template has settled, and imported what is preloaded."""
    if settings["module"]:
        targets.import_module(settings["module"])
    for number, (text, place) in enumerate(settings["sources"], 1):
        sources.add(number, text, place)
    if settings["initializer"] is not None:
        kind, name, definition, body = settings["initializer"]
        if definition is not None:
            digest, encoded = definition
            targets.define([digest], partial(codec.decode, encoded, []))
        arguments = codec.decode(body, [])
        result = resolve(kind, name)(*arguments[0], **arguments[1])
        if type(result) is COROUTINE:
            finish(result)


def _facts() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "version": sys.version.split()[0],
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "platform": sys.platform,
    }


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Union

    from ..contract.channel import Channel
    from .control import Control

    Settings = Dict[str, Any]
    Prepare = Callable[[Settings], Optional[Dict[str, object]]]
    Pieces = List[Union[bytes, bytearray, memoryview]]
