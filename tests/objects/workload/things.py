"""What lives in workers in these tests; of every version since 3.8."""

import asyncio
import enum
import math
import os
import sys
import time
from collections import OrderedDict, namedtuple

odct = OrderedDict()
odct["a"] = 1
foo = "hello world"
numbers = [3, 1, 2]
nested = {"rows": [[1], [2]]}
pair = (1, (2, b"3"))
mixed = (1, [2])
names = "remote names"
daemon = True
close = "remote close"
value = "remote value"
keep = lambda: "remote keep"  # noqa: E731
Pair = namedtuple("Pair", "left right")


def say_hello(who):
    return "hello %s" % who


def same(thing):
    return thing


def is_same(left, right):
    return left is right


def slow_thing(seconds):
    time.sleep(seconds)
    return Thing()


def table():
    """Return how many objects the host has proxies of."""
    from venvoy_worker.runtime import objects

    return objects.size()


def version():
    return list(sys.version_info[:2])


class Color(enum.Enum):
    RED = 1


class Thing:
    """A thing."""

    made = 0
    _names = ("name", "daemon", "options")

    def __init__(self, number=0, label=""):
        Thing.made += 1
        self.number = number
        self.label = label
        self.rows = []
        self.reads = 0
        self.deleted = []

    @property
    def read_once(self):
        self.reads += 1
        return self.reads

    @classmethod
    def build(cls, number):
        return cls(number)

    @staticmethod
    def double(number):
        return 2 * number

    def add(self, number):
        self.number += number
        return self

    def fresh(self):
        return [self.number, {"a": {1, 2}}]

    def child(self):
        return Thing(self.number + 1)

    def both(self):
        return Thing(1), 1

    def fail(self):
        raise LookupError("no such thing: %d" % self.number)

    def count(self, most):
        for number in range(most):
            yield number

    def sleep(self, seconds):
        time.sleep(seconds)

    def pid(self):
        return os.getpid()

    async def later(self, number):
        await asyncio.sleep(0)
        return number * 2

    async def never(self):
        await asyncio.sleep(60)

    def __add__(self, other):
        return self.number + (other.number if isinstance(other, Thing) else other)

    def __rsub__(self, other):
        return other - self.number

    def __iadd__(self, other):
        self.number += other
        return self

    def __eq__(self, other):
        return isinstance(other, Thing) and other.number == self.number

    def __lt__(self, other):
        return self.number < (other.number if isinstance(other, Thing) else other)

    def __hash__(self):
        return 4000 + self.number

    def __bool__(self):
        return self.number > 0

    def __index__(self):
        return self.number

    def __int__(self):
        return self.number

    def __float__(self):
        return self.number + 0.5

    def __format__(self, spec):
        return "thing %s" % format(self.number, spec)

    def __str__(self):
        return "a thing"

    def __repr__(self):
        return "Thing(%d)" % self.number

    def __call__(self, *args, **kwargs):
        return [args, kwargs]

    def __delattr__(self, name):
        self.deleted.append(name)

    def __neg__(self):
        return -self.number

    def __round__(self, digits=None):
        return ("round", digits)

    def __trunc__(self):
        return 7

    def __floor__(self):
        return math.floor(self.number)

    def __fspath__(self):
        return "/thing"


class Shelf:
    """A container of things."""

    def __init__(self, *items):
        self.items = list(items)

    def __getitem__(self, key):
        return self.items[key]

    def __setitem__(self, key, value):
        self.items[key] = value

    def __delitem__(self, key):
        del self.items[key]

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return iter(self.items)

    def __reversed__(self):
        return reversed(self.items)

    def __contains__(self, item):
        return item in self.items


class Door:
    """A context manager, both ways."""

    def __init__(self, forgives=False):
        self.log = []
        self.forgives = forgives

    def __enter__(self):
        self.log.append("in")
        return self

    def __exit__(self, kind, error, trace):
        self.log.append(kind and (kind.__name__, str(error)))
        return self.forgives

    async def __aenter__(self):
        await asyncio.sleep(0)
        return self.__enter__()

    async def __aexit__(self, kind, error, trace):
        await asyncio.sleep(0)
        return self.__exit__(kind, error, trace)

    def __aiter__(self):
        self.left = 3
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


class Raises:
    def __init__(self):
        raise ValueError("not today")


class Matrix:
    def __matmul__(self, other):
        return ("matmul", other)

    def __pow__(self, other, modulo=None):
        return ("pow", other, modulo)

    def __divmod__(self, other):
        return ("divmod", other)

    def __and__(self, other):
        return ("and", other)

    def __invert__(self):
        return "invert"

    def __abs__(self):
        return "abs"


class Watched:
    """Writes a file when it is let go."""

    def __init__(self, path):
        self.path = path

    def __del__(self):
        open(self.path, "w").close()
