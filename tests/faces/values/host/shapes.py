"""Classes as the host has them: version 2."""

import collections
import dataclasses
import enum
import typing


class Color(enum.Enum):
    RED = 1
    DEEP = (1, "b")
    ODD = object()


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


class Point(typing.NamedTuple):
    x: int
    y: int


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Item:
    name: str
    parent: typing.Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    __slots__ = ("a", "b")
    a: int
    b: str


@dataclasses.dataclass
class Changed:
    """Has another field in version 2."""

    name: str
    added: int = 0


class Mapping(dict):
    pass


class Text(str):
    pass


class Whole(int):
    pass


class Items(list):
    pass


class Opaque:
    def __init__(self, number=1):
        self.number = number


class Dumped:
    """Says what it is."""

    def __init__(self, inner):
        self.inner = inner

    def dict(self):
        return {"inner": self.inner, "kind": "dumped"}


class AsJson:
    def __json__(self):
        return [1, 2]


class Money:
    """Travels only where it is registered."""

    def __init__(self, amount):
        self.amount = amount


class Guarded:
    """Pickles in a way of its own."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return Guarded, (self.number,)
