"""Kinds of channels between a swarm and its processes: `pipe`, `fifo`, `file`, `handle` for inputs; where outputs go.

Frozen descriptions only. `inputs=` makes channels of them, `stdout=` and `stderr=` make destinations.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

Encoder = Callable[..., Any]
"""`item -> bytes | str | None`; or a class or factory called with the process id, which gives such a function."""

Lines = Callable[[int, Any], object]

COLLECT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Channel:
    """An input of each process, or the file or handle an output goes to; made by `pipe`, `fifo`, `file`, `handle`.

    Args:
        kind: which of these.
        target: the path, with `{id}` for the process id, or the open file.
        encoder: what makes an item's bytes for this channel.
        encoding: of the text that the encoder returns; None: it returns bytes.
        factory: the encoder is called with the process id and gives the function that encodes.
        required: a process that stops reading this channel before its end has failed.
        env_name: the environment variable that tells the process where the channel is; None is the channel's name.
        append: a file is added to and not truncated.
    """

    kind: Literal["pipe", "fifo", "file", "handle"]
    target: Any = None
    encoder: Encoder | None = None
    encoding: str | None = None
    factory: bool = False
    required: bool = True
    env_name: str | None = None
    append: bool = False

    def __post_init__(self) -> None:
        if self.encoder is not None and not callable(self.encoder):
            raise TypeError(f"an encoder is a function of an item, not {self.encoder!r}")
        if self.encoding is not None:
            "".encode(self.encoding)
        if self.factory and self.encoder is None:
            raise ValueError("factory=True needs an encoder: it is called with the process id")
        if self.kind in ("fifo", "file") and not isinstance(self.target, str | os.PathLike):
            raise TypeError(f"{self.kind}(path): the path of a file, not {self.target!r}")
        if self.kind == "handle" and not (hasattr(self.target, "write") or hasattr(self.target, "fileno")):
            raise TypeError(f"handle(f): an open file, not {self.target!r}")

    @property
    def is_per_process(self) -> bool:
        """Whether the encoder has a state of its own for each process."""
        return self.factory or (isinstance(self.encoder, type) and self.encoder not in (bytes, str))


def pipe(encoder: Encoder | None = None, **options: Any) -> Channel:
    """A pipe. The process finds its number in an environment variable, or on its standard input where named `stdin`.

    Args:
        encoder: makes an item's bytes for this channel; None: nothing for this channel.
        options: `encoding`, `factory`, `required`, `env_name` of `Channel`.

    Examples:
        >>> from venvoy.feed import Swarm, pipe
        >>> inputs = {"stdin": lambda item: b"%d;" % item, "DOUBLED": pipe(lambda item: b"%d;" % (2 * item))}
        >>> with Swarm(["sh", "-c", "cat - /dev/fd/$DOUBLED"], inputs=inputs, stdout="lines") as swarm:
        ...     list(swarm.lines([1, 2]))
        [(0, '1;2;2;4;')]
    """
    return Channel("pipe", None, encoder, **options)


def fifo(path: str | os.PathLike[str], encoder: Encoder | None = None, **options: Any) -> Channel:
    """A named pipe made at `path` (`{id}` is the process id) and removed at the end; its path is in the environment.

    Args:
        path: where it is made, with `{id}` for the process id.
        encoder, options: as of `pipe`.

    Examples:
        >>> from venvoy.feed import Swarm, fifo
        >>> inputs = {"NUMBERS": fifo("numbers-{id}", lambda item: b"%d;" % item)}
        >>> with Swarm(["sh", "-c", "cat $NUMBERS"], inputs=inputs, stdout="lines") as swarm:
        ...     list(swarm.lines([1, 2]))
        [(0, '1;2;')]
    """
    return Channel("fifo", path, encoder, **options)


def file(path: str | os.PathLike[str], encoder: Encoder | None = None, **options: Any) -> Channel:
    """A regular file at `path` (`{id}` is the process id), truncated unless `append=True`; for inputs and outputs.

    Args:
        path: where it is, with `{id}` for the process id.
        encoder, options: as of `pipe`; `append` too.

    Examples:
        >>> from pathlib import Path
        >>> from venvoy.feed import Swarm, file
        >>> with Swarm(["cat"], stdout=file("{id}.txt", append=True)) as swarm:
        ...     swarm.feed("hello")
        >>> Path("0.txt").read_text()
        'hello'
    """
    return Channel("file", path, encoder, **options)


def handle(f: IO[Any] | Any, encoder: Encoder | None = None, **options: Any) -> Channel:
    """An open file of yours, which stays open; for inputs and outputs. All processes' items or lines go to it whole.

    Args:
        f: has a `fileno()`, or a `write()`.
        encoder, options: as of `pipe`.

    Examples:
        >>> from pathlib import Path
        >>> from venvoy.feed import Swarm, handle
        >>> with open("all.txt", "wb") as f, Swarm(["cat"], count=2, stdout=handle(f)) as swarm:
        ...     swarm.feed_many(["one\\n", "two\\n"])
        2
        >>> sorted(Path("all.txt").read_text().split())
        ['one', 'two']
    """
    return Channel("handle", f, encoder, **options)


def as_is(item: bytes | str) -> bytes | str:
    """The encoder of an item that is bytes, or text in UTF-8.

    Examples:
        >>> from venvoy.feed import Swarm, as_is
        >>> with Swarm(["cat"], inputs={"stdin": as_is}, stdout="lines") as swarm:
        ...     list(swarm.lines(["é", b";"]))
        [(0, 'é;')]
    """
    return item


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one output of each process goes; made by `collect`, `lines`, `blocks`, `inherit`, or from plain values.

    Args:
        kind: what is done with it.
        target: path, open file, or function.
        limit: bytes that are kept of each process; None keeps all.
        encoding: of lines; None gives bytes.
        append: a file is added to and not truncated.
    """

    kind: Literal["inherit", "discard", "collect", "lines", "file", "handle", "call_lines", "call_blocks"]
    target: Any = None
    limit: int | None = None
    encoding: str | None = "utf-8"
    append: bool = False

    @property
    def is_per_process_file(self) -> bool:
        """Whether each process has a file of its own."""
        return self.kind == "file" and "{id}" in os.fspath(self.target)


def collect(limit: int | None = COLLECT_BYTES) -> Destination:
    """Keep the last `limit` bytes of each process for its report; None keeps all.

    Examples:
        >>> from venvoy.feed import Swarm, collect
        >>> with Swarm(["cat"], stdout=collect(limit=3)) as swarm:
        ...     swarm.feed("hello")
        >>> swarm.report.processes[0].stdout
        b'llo'
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ValueError(f"collect(limit): a number of bytes, or None for all, not {limit!r}")
    return Destination("collect", limit=limit)


def lines(function: Lines | None = None, encoding: str | None = "utf-8") -> Destination:
    """Call `function(process_id, line)` for each line, on a thread of the swarm; without one, for `Swarm.lines()`.

    Args:
        encoding: lines are text of this encoding; None gives bytes. They come without their line end.

    Examples:
        >>> from venvoy.feed import Swarm, lines
        >>> with Swarm(["cat"], stdout=lines(lambda process_id, line: print(process_id, line))) as swarm:
        ...     swarm.feed("hello\\n")
        0 hello
    """
    if function is not None and not callable(function):
        raise TypeError(f"lines(function): called with each process id and line, not {function!r}")
    return Destination("lines" if function is None else "call_lines", function, encoding=encoding)


def blocks(function: Lines) -> Destination:
    """Call `function(process_id, data)` with bytes as they come, on a thread of the swarm.

    Examples:
        >>> from venvoy.feed import Swarm, blocks
        >>> with Swarm(["cat"], stdout=blocks(lambda process_id, data: print(process_id, data))) as swarm:
        ...     swarm.feed("hello\\n")
        0 b'hello\\n'
    """
    if not callable(function):
        raise TypeError(f"blocks(function): called with each process id and block, not {function!r}")
    return Destination("call_blocks", function)


def to_channels(inputs: Mapping[str, Encoder | Channel] | None) -> dict[str, Channel]:
    """Return the input channels by their names.

    Raises:
        TypeError, ValueError: naming the channel, and what is wrong with it.
    """
    if inputs is None:
        return {"stdin": pipe(as_is)}
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs is a dict of channel names to encoders or channels, not {inputs!r}")
    if not inputs:
        raise ValueError("inputs has no channel; leave it out to send items to stdin")
    return {name: _to_channel(name, given) for name, given in inputs.items()}


def _to_channel(name: str, given: Any) -> Channel:
    if not isinstance(name, str) or not name or "=" in name or "\0" in name:
        raise ValueError(f"channel {name!r}: a name is 'stdin' or that of an environment variable")
    if name in ("stdout", "stderr"):
        raise ValueError(f"channel {name!r} is an output: use {name}=")
    channel = given if isinstance(given, Channel) else None if given is None else _from_encoder(name, given)
    if channel is None or channel.encoder is None:
        raise ValueError(f"channel {name!r} has no encoder; as_is passes bytes and text on")
    if name == "stdin" and channel.kind != "pipe":
        raise ValueError(f"channel 'stdin' is a pipe, not a {channel.kind}; give the {channel.kind} a name of its own")
    return channel


def _from_encoder(name: str, given: Any) -> Channel:
    if not callable(given):
        raise TypeError(f"channel {name!r}: an encoder or pipe(...), fifo(...), file(...), handle(...), not {given!r}")
    return pipe(given)


def to_destination(name: str, given: Any) -> Destination:
    """Return what `stdout=` or `stderr=` means.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if isinstance(given, Destination):
        return given
    if isinstance(given, Channel):
        if given.kind not in ("file", "handle") or given.encoder is not None:
            raise ValueError(f"{name} goes to a file(path) or a handle(f), without an encoder, not to {given!r}")
        return _to_file(given.target, given.append) if given.kind == "file" else Destination("handle", given.target)
    if given in ("inherit", "discard"):
        return Destination(given)
    if given in ("collect", "lines"):
        return collect() if given == "collect" else lines()
    if isinstance(given, str | os.PathLike):
        return _to_file(given, False)
    if hasattr(given, "write"):
        return Destination("handle", given)
    if callable(given):
        return lines(given)
    raise TypeError(
        f"{name} is 'inherit', 'discard', 'collect', 'lines', the path of a file, an open file or a function,"
        f" not {given!r}"
    )


def _to_file(path: str | os.PathLike[str], append: bool) -> Destination:
    return Destination("file", os.path.abspath(os.fspath(path)), append=append)


def is_text(f: Any) -> bool:
    """Whether an open file takes text."""
    return isinstance(f, io.TextIOBase) or (hasattr(f, "encoding") and not isinstance(f, io.RawIOBase))


def check_folder(what: str, path: str) -> None:
    """Raise a clear error where the folder of a file is missing.

    Raises:
        FileNotFoundError: naming the folder, and whose it is.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{what}: there is no folder {str(folder)!r} for {os.path.basename(path)!r}; make it first"
        )
