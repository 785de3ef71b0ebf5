"""The two small languages a spec is written in: package requirements (PEP 508) and Python versions.

Pure functions on text, no state. Requirements are checked for their form and brought into one spelling; what they
mean is the installer's business. (The `packaging` library would do, and costs 40 ms of import on every start.)
"""

from __future__ import annotations

import re

from venvoy.envs.settings import redact
from venvoy.errors import EnvError

MINIMUM = (3, 8)  # the oldest CPython a worker runs on

Version = tuple[int, ...]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT = rf"(?P<name>{_NAME})\s*(?:\[(?P<extras>[^\]]*)\])?\s*(?P<rest>.*)"
_CLAUSE = r"(===|~=|==|!=|<=|>=|<|>)\s*(v?[0-9][A-Za-z0-9.*+!_-]*)"
_PYTHON_CLAUSE = r"(~=|==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+){0,2})(\.\*)?"


def normalise_requirement(field: str, text: str) -> str:
    """Return the one spelling of a requirement: `Foo_Bar [b,a] >= 2, < 3` becomes `foo-bar[a,b]<3,>=2`.

    Args:
        field: name of the spec's field, for the message.
        text: one requirement as PEP 508 defines it.

    Raises:
        EnvError: the text is not a requirement.
    """
    match = re.fullmatch(_REQUIREMENT, text.strip())
    if match is None:
        raise _unparsable(field, text)
    extras = sorted(plain_name(extra) for extra in (match["extras"] or "").split(",") if extra.strip())
    if any(not re.fullmatch(_NAME, extra) for extra in extras):
        raise _unparsable(field, text)
    name = plain_name(match["name"]) + (f"[{','.join(extras)}]" if extras else "")
    if match["rest"].startswith("@"):
        return f"{name} @ {_url_part(field, text, match['rest'][1:].strip())}"
    specifiers, separator, marker = match["rest"].partition(";")
    if separator and not marker.strip():
        raise _unparsable(field, text)
    tail = f" ; {' '.join(marker.split())}" if separator else ""
    return name + _specifiers_part(field, text, specifiers.strip()) + tail


def plain_name(name: str) -> str:
    """Return the one spelling of a project name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _specifiers_part(field: str, text: str, specifiers: str) -> str:
    if specifiers.startswith("(") and specifiers.endswith(")"):
        specifiers = specifiers[1:-1].strip()
    if not specifiers:
        return ""
    clauses = [re.fullmatch(_CLAUSE, clause.strip()) for clause in specifiers.split(",")]
    if not all(clauses):
        raise _unparsable(field, text)
    return ",".join(sorted(clause[1] + clause[2] for clause in clauses if clause))


def _url_part(field: str, text: str, url: str) -> str:
    address, *marker = re.split(r"\s+;\s*", url, maxsplit=1)
    if "://" not in address or any(character.isspace() for character in address):
        raise _unparsable(field, text)
    return f"{address} ; {' '.join(marker[0].split())}" if marker else address


def _unparsable(field: str, text: str) -> EnvError:
    hint = ""
    if "://" in text and "@ " not in text:
        hint = "; a URL is written as 'name @ https://…'"
    elif text.lstrip().startswith("-"):
        hint = "; options of an installer are fields of EnvSpec (index_url=, find_links=, constraints=, …)"
    elif re.search(r"[^<>=!~]=[^=]", text):
        hint = "; a version is pinned with '=='"
    return EnvError(f"{field}: {redact(text)!r} is not a requirement such as 'numpy>=1.26'{hint}")


class VersionRequest:
    """Which Python versions will do: a prefix ("3.11") or a specifier (">=3.9,<3.13")."""

    def __init__(self, text: str, clauses: tuple[tuple[str, Version, bool], ...]) -> None:
        self.text = text
        self.clauses = clauses

    @classmethod
    def parse(cls, text: str) -> VersionRequest:
        """Read a version request.

        Raises:
            EnvError: neither a version nor a specifier, or a version no worker runs on.
        """
        text = "".join(text.split())
        if re.fullmatch(r"\d+(\.\d+){0,2}", text):
            version = _numbers(text)
            if version < MINIMUM[: len(version)]:
                least = ".".join(map(str, MINIMUM))
                raise EnvError(f"python: {text} is too old; CPython {least} is the minimum")
            return cls(text, (("==", version, True),))
        matches = [re.fullmatch(_PYTHON_CLAUSE, clause) for clause in text.split(",")]
        clauses = tuple((m[1], _numbers(m[2]), bool(m[3])) for m in matches if m)
        if len(clauses) != len(matches) or any(_misused(*clause) for clause in clauses):
            raise EnvError(
                f"python: {text!r} is not a version such as '3.11', a specifier such as '>=3.9,<3.13', or a path"
            )
        return cls(",".join(sorted(text.split(","))), clauses)

    def matches(self, version: Version) -> bool:
        """Whether a full version (three numbers) will do."""
        return all(_holds(operator, version, wanted, wild) for operator, wanted, wild in self.clauses)

    def may_match(self, hint: Version) -> bool:
        """Whether some version that begins with these numbers could do; a micro number never reaches 100."""
        micros = hint[2:3] or tuple(range(100))
        return len(hint) < 2 or any(self.matches((*hint[:2], micro)) for micro in micros)


def _numbers(text: str) -> Version:
    return tuple(int(part) for part in text.split("."))


def _misused(operator: str, wanted: Version, wild: bool) -> bool:
    return (wild and operator not in ("==", "!=")) or (operator == "~=" and len(wanted) < 2)


def _holds(operator: str, version: Version, wanted: Version, wild: bool) -> bool:
    if operator == "~=":
        return version >= wanted and version[: len(wanted) - 1] == wanted[:-1]
    if operator in ("==", "!="):
        padded = wanted if wild else (*wanted, 0, 0)[:3]
        return (version[: len(padded)] == padded) is (operator == "==")
    padded = (*wanted, 0, 0)[:3]
    return {
        ">=": version >= padded,
        ">": version > padded,
        "<=": version <= padded,
        "<": version < padded,
    }[operator]
