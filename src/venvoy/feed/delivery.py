"""The consumers of outputs: functions of the user's, open files and the host's own streams, on a thread of the swarm.

Owns the thread and the files it opened. Lines that several processes write to one place arrive there whole.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO
from typing import Any

from .channels import Destination, is_text
from .outputs import Kept, Mailbox, Reader
from .plumbing import open_file

Sink = Callable[[Reader, bytes], object]


class Delivery:
    """The thread that runs sinks.

    Args:
        box: where chunks come from.
        on_failure: called with what a sink raised; the output is thrown away from then on.
    """

    def __init__(self, box: Mailbox, on_failure: Callable[[BaseException], object]) -> None:
        self.box = box
        self._on_failure = on_failure
        self._files = ExitStack()
        self._sinks: dict[Reader, Sink] = {}
        self._shared: dict[str, Any] = {}
        self._is_broken = False
        self._thread = threading.Thread(target=self._run, name="venvoy-feed-output", daemon=True)
        self._thread.start()

    def connect(self, reader: Reader, sink: Sink) -> None:
        """Let `sink` get what `reader` reads; before its first chunk."""
        self._sinks[reader] = sink

    def file_of(self, destination: Destination, process_id: int, is_again: bool) -> Any:
        """Return the open file of an output, which processes and streams share where they have the same path."""
        path = os.fspath(destination.target).replace("{id}", str(process_id))
        if path not in self._shared:
            fd = open_file(destination, process_id, is_again, ExitStack())
            self._shared[path] = self._files.enter_context(FileIO(fd, "wb"))
        return self._shared[path]

    def _run(self) -> None:
        with self._files:
            for reader, data in self.box:
                if self._is_broken:
                    continue
                try:
                    self._sinks[reader](reader, data)
                except BaseException as error:  # sys.exit() in a callback must not end the thread that drains
                    self._is_broken = True
                    self._on_failure(error)
        self._sinks.clear()

    def finish(self) -> None:
        """Deliver what is there, and end the thread."""
        self.box.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def sink_for(destination: Destination, stream: str, file: Any, kept: Kept | None) -> Sink:
    """Return what delivers one stream to its destination.

    Args:
        file: the open file, for "file" and "handle".
        kept: where "collect" collects.
    """
    if destination.kind == "call_blocks":
        return lambda reader, data: destination.target(reader.process_id, data) if data else None
    if destination.kind == "call_lines":
        return _call_lines(destination)
    if destination.kind == "inherit":
        return _by_lines(lambda process_id, whole: _print(stream, process_id, whole))
    if kept is not None:
        return _by_lines(lambda process_id, whole: kept.add(whole))
    return _by_lines(lambda process_id, whole: write_whole(file, whole))


def _by_lines(write: Callable[[int, bytes], object]) -> Sink:
    def take(reader: Reader, data: bytes) -> None:
        whole = reader.splitter.whole_lines(data) if data else reader.splitter.rest()
        if whole:
            write(reader.process_id, whole if whole.endswith(b"\n") else whole + b"\n")

    return take


def _call_lines(destination: Destination) -> Sink:
    def take(reader: Reader, data: bytes) -> None:
        whole = reader.splitter.whole_lines(data) if data else reader.splitter.rest()
        for line in cut_lines(whole, destination.encoding):
            destination.target(reader.process_id, line)

    return take


def cut_lines(whole: bytes, encoding: str | None) -> list[Any]:
    """Return whole lines one by one, without their ends."""
    if not whole:
        return []
    lines = (whole[:-1] if whole.endswith(b"\n") else whole).split(b"\n")
    return lines if encoding is None else [line.decode(encoding, "replace") for line in lines]


def _print(stream: str, process_id: int, whole: bytes) -> None:
    out = getattr(sys, stream)
    if out is None:  # pythonw, and daemons
        return
    text = "".join(f"[{process_id}] {line}\n" for line in cut_lines(whole, "utf-8"))
    encoding = getattr(out, "encoding", None)
    if encoding:
        text = text.encode(encoding, "replace").decode(encoding)
    out.write(text)
    out.flush()


def write_whole(file: Any, data: bytes) -> None:
    """Write all of it, to a file of bytes or of text."""
    if is_text(file):
        file.write(data.decode(getattr(file, "encoding", None) or "utf-8", "replace"))
    else:
        view = memoryview(data)
        while view:
            count = file.write(view)
            view = view[len(view) if count is None else count :]
    if hasattr(file, "flush"):
        file.flush()
