"""Classes as a worker has them: version 1. Python 3.8."""

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import threading
import typing
import uuid


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


def register_money():
    import venvoy_worker

    venvoy_worker.register(
        Money, lambda money: {"amount": money.amount}, lambda form: Money(form["amount"]), name="Money"
    )


def money(amount):
    return Money(amount)


def amount_of(value):
    return type(value).__name__, getattr(value, "amount", None)


def every():
    """One of each that has a plain form."""
    return {
        "enum": Color.RED,
        "tuple enum": Color.DEEP,
        "odd enum": Color.ODD,
        "flag": Access.READ | Access.WRITE,
        "int enum": Level.LOW,
        "named": Point(1, 2),
        "pair": Pair("l", "r"),
        "dataclass": Item("a", Item("b")),
        "slots": Frozen(1, "x"),
        "mapping": Mapping(a=1),
        "text": Text("t"),
        "whole": Whole(5),
        "items": Items([1, Item("c")]),
        "dumped": Dumped(Item("d")),
        "json": AsJson(),
    }


def cycle():
    first, second = Item("first"), Item("second")
    first.parent, second.parent = second, first
    return [first, second, first]


def make(name, *args):
    return globals()[name](*args)


def kind_of(value):
    return "%s.%s" % (type(value).__module__, type(value).__name__)


def fields_of(value):
    return dict(value) if isinstance(value, dict) else dict(vars(value))


def echo(value):
    return value


def as_keys():
    """Objects where only hashable ones can be."""
    return {Frozen(1, "a"): 1}, {Frozen(2, "b"), Frozen(2, "b"), Color.RED}, frozenset([Pair(1, 2)])


def opaque_inside():
    return {"rows": [1, 2, 3, {"x": Opaque()}]}


def lock_inside():
    return [{"name": "a"}, {"lock": (threading.Lock(),)}]


def class_inside():
    return [Opaque]


def mixed():
    """What JSON cannot say by itself."""
    return {
        "item": Item("a"),
        "color": Color.RED,
        "when": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.timezone.utc),
        "day": datetime.date(2024, 2, 29),
        "price": decimal.Decimal("1.10"),
        "id": uuid.UUID(int=5),
        "path": pathlib.Path("a/b"),
        "data": b"\x00\xff",
        "set": {1},
        "tuple": (1, (2,)),
        "span": datetime.timedelta(days=1, seconds=2, microseconds=500000),
        Color.RED: 1,
        5: "five",
    }


def rows(kind="int"):
    return [{"x": 1, "y": "a"}, {"x": 2 if kind == "int" else "two", "y": "b"}]


def blob(size):
    return b"x" * size


def remember(value):
    """Return how many bytes there are, and the first and the last."""
    return len(value), bytes(value[:1]), bytes(value[-1:])
