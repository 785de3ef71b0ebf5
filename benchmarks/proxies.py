"""An object in another process: how long reading an attribute and calling a method take, beside a call and the peers.

    python benchmarks/proxies.py [--json FILE] [--quick] [--only NAME,...]

Each contender has one process with one object. rpyc and the managers of `multiprocessing` are used as their own
documentation shows, over the connection that their helpers make.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.managers import BaseManager, NamespaceProxy
from typing import Any

import measure
import venvoy as vv
from measure import Block, Row, Target

CALL, VENVOY, RPYC, MANAGER = "pool.call", "venvoy", "rpyc", "multiprocessing"
READ, METHOD = "attribute read", "method call"
SCRIPT = """
class Thing:
    def __init__(self):
        self.number = 1.0

    def same(self, value):
        return value

thing = Thing()
"""

Use = Callable[[float], object]
Uses = dict[str, Use]  # by what is measured


class Thing:
    """The same object, for a manager."""

    def __init__(self) -> None:
        self.number = 1.0

    def same(self, value: float) -> float:
        """Return the value."""
        return value


class ThingProxy(NamespaceProxy):
    """As the documentation of `multiprocessing` says: attributes through the exposed `__getattribute__`."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__", "same")

    def same(self, value: float) -> Any:
        """Return the value."""
        return self._callmethod("same", (value,))  # type: ignore[no-untyped-call]


class Manager(BaseManager):
    """Has one kind of object."""


Manager.register("Thing", Thing, ThingProxy)


def uses_of(thing: Any) -> Uses:
    """Return what is measured of an object."""

    def call(value: float) -> object:
        return thing.same(value)  # the attribute is looked up each time, as users do

    return {READ: lambda value: thing.number, METHOD: call}


@contextmanager
def pool_call() -> Iterator[Uses]:
    """A plain call, to compare with."""
    with vv.Pool(workers=1) as pool:
        call = partial(pool.call, "math:sqrt")
        yield {READ: call, METHOD: call}


@contextmanager
def venvoy_proxy() -> Iterator[Uses]:
    """A proxy of venvoy."""
    script = vv.run_script(SCRIPT)
    try:
        yield uses_of(script.thing)
    finally:
        vv.close(script)


@contextmanager
def rpyc_netref() -> Iterator[Uses]:
    """A netref of rpyc's classic service, in a process of its own."""
    import rpyc

    connection = rpyc.classic.connect_multiprocess()
    try:
        connection.execute(SCRIPT)
        yield uses_of(connection.namespace["thing"])
    finally:
        connection.close()
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()


@contextmanager
def managed() -> Iterator[Uses]:
    """A proxy of a manager."""
    with Manager() as manager:
        yield uses_of(manager.Thing())  # type: ignore[attr-defined]


CONTENDERS = {CALL: pool_call, VENVOY: venvoy_proxy, RPYC: rpyc_netref, MANAGER: managed}


def targets(what: str, table: Sequence[Row], where: str) -> list[Target]:
    """Return what is aimed at, as far as it was measured."""
    ratios = next((row.ratios for row in table if row.name == VENVOY), {})
    limits = {CALL: 1.3, RPYC: 1 / 3}
    return [
        measure.at_most(f"{what}: x {name}", where, ratios[name], limit)
        for name, limit in limits.items()
        if name in ratios
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    options = measure.arguments(__doc__.splitlines()[0], argv)
    data = measure.report("proxies", options)
    needs = {name: "rpyc" if name == RPYC else "" for name in CONTENDERS}
    names, data["skipped"] = measure.chosen(options.only, needs)
    count, rounds = (20, 2) if options.quick else (300, 20)
    for cpu in measure.passes():
        where = "not pinned" if cpu is None else f"pinned to CPU {cpu}"
        with measure.pinned(cpu), ExitStack() as stack:
            uses = {name: stack.enter_context(CONTENDERS[name]()) for name in names}
            cpus = measure.cpus_of_children()
            for what in (READ, METHOD):
                blocks: dict[str, Block] = {name: partial(measure.each, uses[name][what], count) for name in names}
                figures = measure.take_turns(blocks, rounds)
                table = measure.rows(figures, "us", lambda seconds: seconds * 1e6)
                measure.show(f"{what}, {where}", table, (CALL, RPYC))
                data["passes"].append({"name": what, "cpu": cpu, "cpus_of_children": cpus, "rows": table})
                data["targets"] += targets(what, table, where)
    measure.show_targets(data["targets"])
    measure.write(data, options.json)


if __name__ == "__main__":
    main()
