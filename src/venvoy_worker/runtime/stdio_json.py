"""The start of a worker for hosts in other languages: the command line, the descriptors, what is loaded before `ready`.

Stateless. The frames' own descriptors are duplicates that user code never hears of; what it prints goes to stderr, or
into frames of the kind `output`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the module `signal` imports enum
import codecs
import os
import sys
import threading
import tokenize

import venvoy_worker as _face

from ..contract import host_functions
from . import coroutines, records, sources, stdio
from .json_host import Host, failure_of

PROTOCOL_VERSION = 1
MOST_WORKERS = 4
LARGEST_FRAME = 1 << 28
_USAGE = "usage: __main__.py --stdio-json [--max-workers N] [--source FILE]... [--output-frames] [--max-frame BYTES]"


class Options:
    """What the command line says: how many calls run at once, files to load, the largest frame that may come."""

    def __init__(self) -> None:
        self.max_workers = MOST_WORKERS
        self.max_frame = LARGEST_FRAME
        self.sources: list[str] = []
        self.has_output_frames = False


def main(arguments: list[str]) -> None:
    """Serve a host on stdin and stdout until stdin ends."""
    options = read_options(arguments)
    source, sink, errors = _own_streams()
    stdio.guard([source, sink], errors)
    host = Host(source, sink, options.max_workers, options.max_frame)
    _face._current = host.current
    host_functions.lines.append(host)
    coroutines.finish_with(host.finish)
    records.tell(host.log)
    _signal.signal(_signal.SIGINT, lambda number, frame: None)  # a Ctrl-C in the host's terminal is the host's affair
    if options.has_output_frames:
        _forward_output(host)
    for path in options.sources:
        _load(host, path)
    ready: dict[str, object] = {"type": "ready", "protocolVersion": PROTOCOL_VERSION, "pid": os.getpid()}
    host.say(dict(ready, pythonVersion=sys.version.split()[0], maxWorkers=options.max_workers))
    threading.Thread(target=host.listen, name="venvoy-reader", daemon=True).start()
    host.serve()


def read_options(arguments: list[str]) -> Options:
    """Return what the command line says; end the process with status 2 where it says nothing that we know."""
    options = Options()
    rest = iter(arguments)
    for name in rest:
        if name == "--output-frames":
            options.has_output_frames = True
        elif name == "--source":
            options.sources.append(next(rest, "") or _refuse("--source wants a file"))
        elif name in ("--max-workers", "--max-frame"):
            text = next(rest, "")
            if not text.isdecimal() or not int(text):
                _refuse("%s wants a number from 1 up, not %r" % (name, text))
            setattr(options, name[2:].replace("-", "_"), int(text))
        elif name != "--stdio-json":
            _refuse("unknown argument %r" % name)
    return options


def _refuse(text: str) -> str:
    sys.stderr.write("venvoy: %s\n%s\n" % (text, _USAGE))
    raise SystemExit(2)


def _own_streams() -> tuple[int, int, int]:
    """Return private duplicates of 0, 1 and 2, and give user code an empty 0, and stderr as 1."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        errors = os.dup(2)
    except OSError:  # closed
        os.dup2(null, 2)
        errors = os.dup(2)
    try:
        source, sink = os.dup(0), os.dup(1)
    except OSError as error:
        _refuse("stdin and stdout are the host's, and have to be open: %s" % error)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return source, sink, errors


def _load(host: Host, path: str) -> None:
    """Run a file in the namespace of the sources; one that fails is why there is no `ready`."""
    try:
        with tokenize.open(path) as file:  # which knows what encoding a Python file has
            text = file.read()
        sources.append(text, (os.path.abspath(path), 1, ()))
    except BaseException as error:
        told = failure_of(error)
        sys.stderr.write("venvoy: the source %s cannot be loaded\n%s\n" % (path, told["traceback"] or error))
        stdio.flush()
        host.say(dict(told, type="error"))
        os._exit(1)


def _forward_output(host: Host) -> None:
    """Send what is written to 1 and 2 as frames from now on."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        ours, theirs = os.pipe()
        os.dup2(theirs, fd)
        os.close(theirs)
        threading.Thread(target=_forward, args=(host, name, ours), name="venvoy-" + name, daemon=True).start()


def _forward(host: Host, name: str, fd: int) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    piece = os.read(fd, 65_536)
    while piece:
        text = decode(piece)
        if text:
            host.say({"type": "output", "stream": name, "text": text})
        piece = os.read(fd, 65_536)
