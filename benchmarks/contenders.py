"""What is measured: venvoy, a raw pipe, and the peers, each used in the way its own documentation shows.

Each contender runs `math.sqrt` in child processes of this interpreter. Making one starts its processes and has them
answer once; `close` ends them all.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import measure
from venvoy import Pool

CHUNKS = (100, 1000, 5000, 25_000)  # sizes tried for contenders whose `map` leaves the choice to its user

RAW, VENVOY, SUBMIT = "raw pipe", "venvoy", "venvoy submit"
FUTURES = "ProcessPoolExecutor"

_ECHO = """
import os
read, write = os.read, os.write
data = read(0, 4096)
while data:
    write(1, data)
    data = read(0, 4096)
"""


class Contender:
    """What all have in common.

    Args:
        workers: how many processes.
    """

    needs = ""  # the package it is in, if that may be missing

    def __init__(self, workers: int) -> None:
        raise NotImplementedError

    def call(self, value: float) -> object:
        """Run one call and wait for its result."""
        raise NotImplementedError

    def burst(self, count: int) -> object:
        """Hand over many calls, then collect all results."""
        raise NotImplementedError

    def maps(self, count: int) -> dict[str, Callable[[], object]]:
        """Return the ways to map over many values, by a name for each; none by default."""
        return {}

    def run(self, function: Callable[..., object], argument: Any, patience: float) -> object:
        """Run a function and wait for its result.

        Raises:
            TimeoutError: there was none within so many seconds.
            NotImplementedError: it cannot run any function with any argument.
        """
        raise NotImplementedError

    def crash(self, patience: float) -> None:
        """Have a call end its process, and wait for what becomes of it; raises whatever its caller gets."""
        self.run(os._exit, 3, patience)

    def close(self) -> None:
        """End its processes."""
        raise NotImplementedError


class RawPipe(Contender):
    """What cannot be undercut by any design with two Python processes: bytes to a bare child and back."""

    def __init__(self, workers: int) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._write, self._read = self._child.stdin.fileno(), self._child.stdout.fileno()
        self._message = bytes(64)
        self.call(0.0)

    def call(self, value: float) -> object:
        os.write(self._write, self._message)
        return os.read(self._read, 4096)

    def burst(self, count: int) -> object:
        for _ in range(count):
            self.call(0.0)

    def close(self) -> None:
        with self._child:
            assert self._child.stdin is not None
            self._child.stdin.close()


class Venvoy(Contender):
    """The pool of this package."""

    def __init__(self, workers: int) -> None:
        self.pool = Pool(workers=workers)
        self.pool.warm()
        self.call(0.0)

    def call(self, value: float) -> object:
        return self.pool.call(math.sqrt, value)

    def submit(self, value: float) -> object:
        """Run one call by way of a future."""
        return self.pool.submit(math.sqrt, value).result()

    def burst(self, count: int) -> object:
        return _collect([self.pool.submit(math.sqrt, 4.0) for _ in range(count)])

    def maps(self, count: int) -> dict[str, Callable[[], object]]:
        return {"default": lambda: sum(self.pool.map(math.sqrt, range(count)))}

    def run(self, function: Callable[..., object], argument: Any, patience: float) -> object:
        return self.pool.call(function, argument)

    def close(self) -> None:
        self.pool.close()


class Futures(Contender):
    """`concurrent.futures.ProcessPoolExecutor`, and what has its interface."""

    def __init__(self, workers: int) -> None:
        self._executor: Any = self._make(workers)
        _collect([self._executor.submit(math.sqrt, 4.0) for _ in range(workers * 4)])

    def _make(self, workers: int) -> Any:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))

    def call(self, value: float) -> object:
        return self._executor.submit(math.sqrt, value).result()

    def burst(self, count: int) -> object:
        return _collect([self._executor.submit(math.sqrt, 4.0) for _ in range(count)])

    def maps(self, count: int) -> dict[str, Callable[[], object]]:
        def run(chunksize: int) -> float:
            return sum(self._executor.map(math.sqrt, range(count), chunksize=chunksize))

        return {f"chunks of {size}": lambda size=size: run(size) for size in CHUNKS}

    def run(self, function: Callable[..., object], argument: Any, patience: float) -> object:
        return self._executor.submit(function, argument).result(patience)

    def close(self) -> None:
        self._executor.shutdown()


class Loky(Futures):
    """loky's reusable executor."""

    needs = "loky"

    def _make(self, workers: int) -> Any:
        import loky

        return loky.get_reusable_executor(max_workers=workers, timeout=600)

    def close(self) -> None:
        self._executor.shutdown(wait=True, kill_workers=True)


class Multiprocessing(Contender):
    """`multiprocessing.Pool`."""

    def __init__(self, workers: int) -> None:
        self._pool = multiprocessing.get_context("spawn").Pool(workers)
        self._pool.map(math.sqrt, range(workers * 4), 1)

    def call(self, value: float) -> object:
        return self._pool.apply(math.sqrt, (value,))

    def burst(self, count: int) -> object:
        return [result.get() for result in [self._pool.apply_async(math.sqrt, (4.0,)) for _ in range(count)]]

    def maps(self, count: int) -> dict[str, Callable[[], object]]:
        return {"default": lambda: sum(self._pool.map(math.sqrt, range(count)))}

    def run(self, function: Callable[..., object], argument: Any, patience: float) -> object:
        try:
            return self._pool.apply_async(function, (argument,)).get(patience)
        except multiprocessing.TimeoutError as error:
            raise TimeoutError from error

    def close(self) -> None:
        self._pool.terminate()  # after a crash, `join` would wait for ever
        self._pool.join()


class Pebble(Contender):
    """pebble's process pool."""

    needs = "pebble"

    def __init__(self, workers: int) -> None:
        import pebble

        self._pool = pebble.ProcessPool(max_workers=workers, context=multiprocessing.get_context("spawn"))
        self.burst(workers * 4)

    def call(self, value: float) -> object:
        return self._pool.schedule(math.sqrt, args=(value,)).result()

    def burst(self, count: int) -> object:
        return _collect([self._pool.schedule(math.sqrt, args=(4.0,)) for _ in range(count)])

    def run(self, function: Callable[..., object], argument: Any, patience: float) -> object:
        return self._pool.schedule(function, args=(argument,)).result(patience)

    def close(self) -> None:
        self._pool.close()
        self._pool.join()


class Execnet(Contender):
    """A loop at the far end of each execnet channel."""

    needs = "execnet"

    def __init__(self, workers: int) -> None:
        import execnet

        self._group = execnet.Group([f"popen//python={sys.executable}"] * workers)
        source = (
            "import math, os\nfor value in channel:\n    channel.send(math.sqrt(value) if value >= 0 else os._exit(3))"
        )
        self._channels = [gateway.remote_exec(source) for gateway in self._group]
        self.burst(workers)

    def call(self, value: float) -> object:
        self._channels[0].send(value)
        return self._channels[0].receive()

    def burst(self, count: int) -> object:
        turns = [self._channels[index % len(self._channels)] for index in range(count)]
        for channel in turns:
            channel.send(4.0)
        return [channel.receive() for channel in turns]

    def crash(self, patience: float) -> None:
        self._channels[0].send(-1.0)
        self._channels[0].receive(patience)

    def close(self) -> None:
        self._group.terminate(timeout=2.0)


class Venvmux(Contender):
    """venvmux on this interpreter; its workers import the package themselves, and run a module's functions."""

    needs = "venvmux"

    def __init__(self, workers: int) -> None:
        import venvmux

        logging.getLogger("venvmux").setLevel(logging.WARNING)
        self._folder = tempfile.TemporaryDirectory()
        Path(self._folder.name, "peer_of_venvoy.py").write_text("from math import sqrt\nfrom os import _exit as die\n")
        package = Path(venvmux.__file__).parent.parent  # it follows the link of a venv's python out of the venv
        spec = venvmux.EnvSpec(python=sys.executable, workers=workers, worker_paths=[self._folder.name, package])
        self._pool = venvmux.Pool.from_envs({"own": (spec, "peer_of_venvoy")}, home=self._folder.name)
        self.burst(workers)

    def call(self, value: float) -> object:
        return self._pool.call("sqrt", {"__args__": [value]}, env="own")

    def burst(self, count: int) -> object:
        payload = {"__args__": [4.0]}
        return _collect([self._pool.call_async("sqrt", payload, env="own") for _ in range(count)])

    def crash(self, patience: float) -> None:
        self._pool.call_async("die", {"__args__": [3]}, env="own").result(patience)

    def close(self) -> None:
        self._pool.close()
        self._folder.cleanup()


class Rpyc(Contender):
    """A function of a module in rpyc's process, by its proxy."""

    needs = "rpyc"

    def __init__(self, workers: int) -> None:
        import rpyc

        self._connections = [rpyc.classic.connect_multiprocess() for _ in range(workers)]
        self._functions = [one.modules.math.sqrt for one in self._connections]
        self._later = [rpyc.async_(function) for function in self._functions]
        self.burst(workers)

    def call(self, value: float) -> object:
        return self._functions[0](value)

    def burst(self, count: int) -> object:
        results = [self._later[index % len(self._later)](4.0) for index in range(count)]
        return [result.value for result in results]

    def crash(self, patience: float) -> None:
        self._connections[0].modules.os._exit(3)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


PEERS: dict[str, type[Contender]] = {
    FUTURES: Futures,
    "multiprocessing": Multiprocessing,
    "loky": Loky,
    "pebble": Pebble,
    "execnet": Execnet,
    "venvmux": Venvmux,
    "rpyc": Rpyc,
}
ALL: dict[str, type[Contender]] = {RAW: RawPipe, VENVOY: Venvoy, **PEERS}


def chosen(only: frozenset[str]) -> tuple[dict[str, type[Contender]], dict[str, str]]:
    """Return the contenders to be measured, and why each of the others is skipped; say so.

    Args:
        only: their names; all for none.

    Raises:
        SystemExit: there is no contender of that name.
    """
    names, skipped = measure.chosen(only, {name: kind.needs for name, kind in ALL.items()})
    return {name: ALL[name] for name in names}, skipped


@contextmanager
def started(kinds: dict[str, type[Contender]], workers: int) -> Iterator[dict[str, Any]]:
    """Start contenders, one after the other, and end them."""
    with ExitStack() as stack:
        running = {}
        for name, kind in kinds.items():
            running[name] = kind(workers)
            stack.callback(running[name].close)
        yield running


def _collect(futures: Sequence[Any]) -> list[object]:
    return [future.result() for future in futures]
