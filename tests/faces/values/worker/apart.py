"""A module that no host can import."""

import dataclasses
import enum


class Kind(enum.Enum):
    ONE = 1


@dataclasses.dataclass
class Thing:
    name: str
    kind: Kind


def thing():
    return Thing("a", Kind.ONE)


def kind_of(value):
    return type(value).__name__, type(value.kind).__name__
