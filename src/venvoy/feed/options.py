"""What a swarm is asked to be: options, validated where they are given, frozen from then on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from ..checks import check_names
from .channels import Channel, Destination, check_folder, to_channels, to_destination

EnvVars = Mapping[str, str] | Callable[[int], Mapping[str, str]]


class SwarmOptions(TypedDict, total=False):
    """Keywords of `Swarm` besides its first arguments; `Plan` says what they mean."""

    env_vars: EnvVars | None
    cwd: str | os.PathLike[str] | None
    on_exit: Literal["fail", "reroute", "restart"]
    name: str
    shell: bool
    template: bool
    distribute: Literal["ready", "round-robin", "key"]
    key: Callable[[Any], Any] | None
    merge: bool
    check: bool
    at_least_once: bool
    encode_threads: int
    max_process_bytes: int
    max_bytes: int
    max_restarts: int
    stall_timeout: float | None
    grace_period: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A swarm's options.

    Args:
        env_vars: environment variables of the processes besides the host's; a dict, or a function of the process id.
        cwd: their working folder; None is the host's.
        on_exit: what the exit of a process before the end of its input means. "fail": the swarm has failed.
            "reroute": what it did not receive goes to the others. "restart": it is started again.
        name: of the swarm, for messages.
        shell: the command is one string for `/bin/sh`.
        template: `{id}` in the command's arguments is replaced by the process id.
        distribute: "ready": to whoever has room; "round-robin": in turn; "key": all items of a key to one process.
        key: the key of an item, hashable, for `distribute="key"`.
        merge: stderr goes where stdout goes, whole lines at a time.
        check: a status other than 0 after the whole input is an error.
        at_least_once: on "reroute" and "restart", send all again that the process had got; memory grows with its input.
        encode_threads: threads that run the encoders; 0 is the thread that feeds.
        max_process_bytes: of memory for input that one process has not taken.
        max_bytes: of memory for all input that is waiting.
        max_restarts: of one process, before the swarm has failed.
        stall_timeout: seconds after which a process that takes no input, writes nothing and uses no processor has
            stalled; None waits for ever.
        grace_period: seconds between SIGTERM and SIGKILL.
    """

    command: str | Sequence[str]
    count: int
    channels: dict[str, Channel]
    stdout: Destination
    stderr: Destination
    env_vars: EnvVars | None = None
    cwd: str | os.PathLike[str] | None = None
    on_exit: Literal["fail", "reroute", "restart"] = "fail"
    name: str = "swarm"
    shell: bool = False
    template: bool = False
    distribute: Literal["ready", "round-robin", "key"] = "ready"
    key: Callable[[Any], Any] | None = None
    merge: bool = False
    check: bool = True
    at_least_once: bool = False
    encode_threads: int = 0
    max_process_bytes: int = 64 << 20
    max_bytes: int = 256 << 20
    max_restarts: int = 3
    stall_timeout: float | None = 60.0
    grace_period: float = 2.0

    def __post_init__(self) -> None:
        _check_command(self.command, self.shell)
        _check_whole("count", self.count, 1)
        _check_choice("on_exit", self.on_exit, ("fail", "reroute", "restart"))
        _check_choice("distribute", self.distribute, ("ready", "round-robin", "key"))
        if (self.distribute == "key") != (self.key is not None):
            raise ValueError("distribute='key' and key=function go together")
        if self.key is not None and not callable(self.key):
            raise TypeError(f"key is a function of an item, not {self.key!r}")
        if self.at_least_once and self.on_exit == "fail":
            raise ValueError("at_least_once=True needs on_exit='reroute' or 'restart'")
        for name, least in (("encode_threads", 0), ("max_process_bytes", 1), ("max_bytes", 1), ("max_restarts", 0)):
            _check_whole(name, getattr(self, name), least)
        for name in ("stall_timeout", "grace_period"):
            _check_seconds(name, getattr(self, name), or_none=name == "stall_timeout")
        if not isinstance(self.name, str):
            raise TypeError(f"name is a str, not {self.name!r}")
        if self.cwd is not None and not os.path.isdir(self.cwd):
            raise NotADirectoryError(f"cwd: there is no folder {os.fspath(self.cwd)!r}")
        self._check_files()
        self._check_names()

    def _check_files(self) -> None:
        for name, destination in (("stdout", self.stdout), ("stderr", self.stderr)):
            if destination.kind == "file":
                check_folder(name, destination.target)
        for name, channel in self.channels.items():
            if channel.kind in ("fifo", "file"):
                check_folder(f"channel {name!r}", os.path.abspath(os.fspath(channel.target)))
                if self.count > 1 and "{id}" not in os.fspath(channel.target):
                    raise ValueError(f"channel {name!r}: {self.count} processes need a path with '{{id}}' in it")

    def _check_names(self) -> None:
        taken: set[str] = {*os.environ, *self.environ_of(0)}
        for name, channel in self.channels.items():
            if name == "stdin" or channel.kind == "handle":
                continue
            variable = channel.env_name or name
            if channel.env_name is None and variable in taken:
                raise ValueError(f"channel {name!r}: an environment variable has that name; give env_name=")
            taken.add(variable)

    def environ_of(self, process_id: int) -> dict[str, str]:
        """Return the environment variables that one process gets besides the host's."""
        given = self.env_vars(process_id) if callable(self.env_vars) else self.env_vars
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise TypeError(f"env_vars is a dict, or a function that returns one, not {given!r}")
        for key, value in given.items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise TypeError(f"env_vars[{key!r}] = {value!r}: names and values are str")
        return dict(given)

    def argv_of(self, process_id: int) -> list[str]:
        """Return the program and arguments of one process."""
        words = ["/bin/sh", "-c", self.command] if isinstance(self.command, str) else self.command
        argv = [os.fspath(word) for word in words]
        return [word.replace("{id}", str(process_id)) for word in argv] if self.template else argv

    def explain_start(self, argv: Sequence[str], error: OSError) -> str:
        """Return in words why a process could not be started."""
        if isinstance(error, FileNotFoundError) and shutil.which(argv[0]) is None:
            return f"command not found: {argv[0]!r}"
        if isinstance(error, PermissionError):
            return f"not allowed to run {argv[0]!r}"
        return f"cannot start {argv[0]!r}: {error}"


def make_plan(
    command: str | Sequence[str], count: int, inputs: Any, outputs: tuple[Any, Any], options: Mapping[str, Any]
) -> Plan:
    """Return the checked options of a swarm.

    Raises:
        TypeError, ValueError, OSError: naming the argument.
    """
    check_names("Swarm()", options, SwarmOptions.__annotations__)
    return Plan(
        command=command,
        count=count,
        channels=to_channels(inputs),
        stdout=to_destination("stdout", outputs[0]),
        stderr=to_destination("stderr", outputs[1]),
        **options,
    )


def _check_command(command: object, shell: object) -> None:
    if isinstance(command, str):
        if not shell:
            raise ValueError(
                f"the command {command!r} is one string: give a list of arguments, or shell=True to run it with /bin/sh"
            )
        return
    if isinstance(command, bytes) or not isinstance(command, Sequence):
        raise TypeError(f"the command is a list of arguments, not {command!r}")
    if shell:
        raise ValueError("shell=True takes the command as one string")
    if not command:
        raise ValueError("the command is empty")
    for word in command:
        if not isinstance(word, str | os.PathLike):
            raise TypeError(f"the command's arguments are str, not {word!r}")
        if "\0" in os.fspath(word):
            raise ValueError(f"the command's argument {word!r} has a NUL character")


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, not {value}")


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")


def _check_seconds(name: str, value: object, or_none: bool) -> None:
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is a number of seconds from 0 up, not {value!r}")
