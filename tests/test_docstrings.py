"""What the public names say of themselves is whole: a sentence, each argument with its unit, the errors, an example."""

from __future__ import annotations

import builtins
import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import venvoy as vv
import venvoy.feed
import venvoy_worker
from venvoy.aio.detached import AsyncDetachedCalls
from venvoy.aio.streams import AsyncStream
from venvoy.detached.calls import DetachedCalls
from venvoy.options import CallOptions
from venvoy.streams.stream import Stream

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
OURS = ("venvoy", "venvoy_worker")
MODULES: list[ModuleType] = [vv, venvoy.feed, venvoy_worker]
WITHOUT_A_NAME = [
    CallOptions,
    DetachedCalls,
    AsyncDetachedCalls,
    Stream,
    AsyncStream,
]  # what public methods take and return


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the public methods and properties that a class has of us, inherited ones too."""
    for name in dir(owner):
        value = next(vars(base)[name] for base in owner.__mro__ if name in vars(base))
        value = getattr(value, "__func__", value)  # of a class method
        value = value.fget if isinstance(value, property) else value
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__.partition(".")[0] in OURS:
            yield name, value


def public() -> dict[str, Any]:
    """Return every public object by the name under which a reader meets it; those that are inherited once."""
    named = [
        (f"{module.__name__}.{name}".removeprefix("venvoy."), getattr(module, name))
        for module in MODULES
        for name in module.__all__
    ]
    named += [(kind.__name__, kind) for kind in WITHOUT_A_NAME]
    named += [
        (f"{owner}.{name}", value)
        for owner, kind in sorted(named, key=lambda pair: "Async" in pair[0])
        if inspect.isclass(kind)
        for name, value in members(kind)
    ]
    once = {id(value): (name, value) for name, value in reversed(named)}  # under the first of several names
    return dict(reversed(once.values()))


PUBLIC = public()


def text_of(name: str) -> str:
    """Return the docstring, without its indentation."""
    return inspect.cleandoc(PUBLIC[name].__doc__ or "")


def section(text: str, title: str) -> dict[str, str]:
    """Return the entries of a section of a docstring, such as `Args:`, by what stands before their colon."""
    block = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", text + "\n", re.M)
    lines = block[1].replace("\n        ", " ").splitlines() if block else []
    return {key: rest for key, _, rest in (line.strip().partition(": ") for line in lines) if key}


def parameters(name: str) -> list[str]:
    """Return the names of what a caller gives; arguments that are a target's own, and an error's message, are not."""
    try:
        found = list(inspect.signature(PUBLIC[name]).parameters.values())
    except ValueError:  # an exception that takes what `Exception` takes
        return []
    if inspect.isfunction(PUBLIC[name]) and "." in PUBLIC[name].__qualname__:
        del found[0]
    is_error = inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], Exception)
    passed_on = {"args", "kwargs", *(["message"] if is_error else [])}
    return [each.name for each in found if each.name not in passed_on and not each.name.startswith("_")]


def others(text: str, name: str) -> Iterator[str]:
    """Yield the public names to which a docstring hands on, as in "as `Pool.call`"; and of a class its bases."""
    owner, _, method = name.rpartition(".")
    for other in re.findall(r"(?:\b[Aa]s|[Ss]ee|of|in) `([\w.]+)`", text):
        meant = (other, f"{other}.{method}", f"{owner}.{other}", f"feed.{other}")
        yield from (found for found in meant if found in PUBLIC and found != name)
    bases = PUBLIC[name].__mro__[1:] if inspect.isclass(PUBLIC[name]) else ()
    yield from (base.__name__ for base in bases if PUBLIC.get(base.__name__) is base)


def said_of(parameter: str, name: str) -> str | None:
    """Return what a docstring, or that to which it hands on, says of a parameter; None where it says nothing."""
    text = text_of(name)
    for key, entry in section(text, "Args").items():
        if parameter in key.split(", "):
            return " ".join([entry, *(said_of(parameter, other) or "" for other in others(entry, name))])
    if re.search(rf"`{parameter}\b", text) or re.search(rf"\b{parameter}\b", text.partition("\n")[0]):
        return text
    return next(filter(None, (said_of(parameter, other) for other in others(text, name))), None)


def test_there_are_names_to_look_at() -> None:
    """An empty list would pass everything below."""
    assert len(PUBLIC) > 200


def test_the_first_line_is_a_sentence() -> None:
    """With a full stop; what follows is a paragraph of its own."""
    assert [name for name in PUBLIC if not re.match(r"[A-Z`].*\.(\n\n|$)", text_of(name))] == []


def test_every_parameter_is_named() -> None:
    """Under `Args:`, in backticks, by its word in the first sentence, or where the text says "as `Pool.call`"."""
    theirs = [name for name in PUBLIC if not re.search(r"(^|; )[Mm]ade by `", text_of(name), re.M)]  # else it is ours
    assert [(name, word) for name in theirs for word in parameters(name) if said_of(word, name) is None] == []


def test_nothing_is_named_that_is_no_parameter() -> None:
    """A name that was changed in the signature is changed in its docstring."""
    passed_on = {"args", "kwargs"}
    named = [(name, word) for name in PUBLIC for key in section(text_of(name), "Args") for word in key.split(", ")]
    assert [(name, word) for name, word in named if word not in {*parameters(name), *passed_on}] == []


UNITS = {
    "second": re.compile(r"(?!on_)(.*_)?(timeout|ttl|age|period|backoff|within|cooldown)"),
    "byte": re.compile(r".*_bytes|limit|max_rss"),
}


def test_durations_and_sizes_have_units() -> None:
    """Seconds and bytes."""
    bare = [
        (name, word)
        for name in PUBLIC
        for word in parameters(name)
        for unit, pattern in UNITS.items()
        if pattern.fullmatch(word) and unit not in (said_of(word, name) or "")
    ]
    assert bare == []


def test_errors_have_the_names_by_which_they_are_caught() -> None:
    """Those of venvoy or of Python, separated by commas; or "As `call`", for what another raises."""
    errors = [(name, key) for name in PUBLIC for key in section(text_of(name), "Raises") if not key.startswith("As ")]
    known = {**vars(builtins), **{word: getattr(module, word) for module in MODULES for word in module.__all__}}
    assert [
        (name, word)
        for name, key in errors
        for word in key.split(", ")
        if not (inspect.isclass(known.get(word)) and issubclass(known[word], BaseException))
    ] == []


def test_the_reference_has_every_public_name() -> None:
    """By itself, with its module, or among the members of its package that are listed."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    shown = re.findall(r"^::: (\S+)", text, re.M)
    shown += re.findall(r"\w+", " ".join(re.findall(r"members: \[(.*)\]", text)))
    meant = {name: getattr(vv, name) for name in vv.__all__}
    missing = [
        name
        for name, value in meant.items()
        if not {name, value.__module__, f"{value.__module__}.{value.__qualname__}"} & set(shown)
    ]
    assert missing == []
    assert {module.__name__ for module in MODULES[1:]} <= set(shown)


WITH_EXAMPLES = re.compile(r"(Pool|DetachedCalls|EnvSpec)\.\w+")
PLAIN = ["aio", "close", "detached", "kill", "reap", "shutdown", "terminate", "workers", "key", "key_of", "read"]
OTHERS = ["Pool", "AsyncPool", "EnvSpec", "WorkerOptions", "Lease", "NamedWorker", "CallFuture", "Record", "Env.run"]
OTHERS += ["Fleet", "Fleet.from_config", "PoolSpec", "MemoryCallStore", "SqliteCallStore", "AsyncPool.stream"]
OTHERS += ["WorkerStartError", "WorkerCrashed", "RemoteError", "MessageTooLarge", "SwarmError", "FeedStalled"]
OTHERS += ["feed.Swarm", "feed.Swarm.lines", "feed.AsyncSwarm"]


def test_examples_show_how_things_are_used() -> None:
    """Of all functions, of the methods that do work, and of the classes that a newcomer reaches for."""
    methods = [name for name in PUBLIC if WITH_EXAMPLES.fullmatch(name) and name.rpartition(".")[2] not in PLAIN]
    functions = [name for name, kind in PUBLIC.items() if inspect.isfunction(kind) and "." not in kind.__qualname__]
    shown = [*functions, *methods, *OTHERS]
    assert [name for name in shown if "\nExamples:\n    >>> " not in text_of(name)] == []


FILES = {
    "pyproject.toml": '[project]\nname = "app"\nversion = "1"\noptional-dependencies = {plots = ["matplotlib"]}\n',
    "requirements.txt": "six\n",
    "script.py": "# /// script\n# dependencies = ['six']\n# ///\n",
    "venvoy.toml": '[pools.numbers]\nmodule = "math"\n',
}


@pytest.mark.parametrize("name", [name for name in sorted(PUBLIC) if ">>> " in text_of(name)])
def test_examples_run_and_show_what_comes_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself, after `import venvoy as vv`, in a folder with a few files; under the reference's heading."""
    monkeypatch.chdir(tmp_path)
    for file, text in FILES.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    assert "\nExamples:\n" in text_of(name)
    test = doctest.DocTestParser().get_doctest(text_of(name), {"vv": vv}, name, None, 0)
    printed: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=printed.append)
    assert not printed, "".join(printed)
