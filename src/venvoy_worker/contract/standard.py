"""Values of the standard library whose own pickles do not fit every Python, or that have none.

Paths name a private module since Python 3.13, time zones a module that 3.8 has not, exception groups a class that came
with 3.11; views of memory have no pickle. Stateless.
"""

from __future__ import annotations

import mmap
import sys
from _pickle import PickleBuffer

from .reducers import by_pickle

# As it comes; that of an array may be one of objects.
MEMORY: Any = (bytes, bytearray, memoryview, mmap.mmap, PickleBuffer)


def reducer_of(kind: type) -> Reducer | None:
    """Return how values of a class of the standard library travel; None where pickle's way is right."""
    found = _REDUCERS.get((kind.__module__.partition(".")[0], kind.__name__))
    # A subclass in the standard library may have the same name (`datetime` in a test of CPython's own): be exact.
    return found if found is None or kind.__name__ == kind.__qualname__ else None


# --- paths --------------------------------------------------------------------------------------------------------


_PATHS = ("PurePath", "PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")


def _reduce_path(path: Any) -> tuple[object, ...]:
    return restore_path, (type(path).__name__, str(path))


def restore_path(kind: str, text: str) -> object:
    """Return a path; one of another system is a pure path of that system."""
    import pathlib

    if kind not in _PATHS:
        raise ValueError("no kind of path: %r" % (kind,))
    try:
        return getattr(pathlib, kind)(text)
    except NotImplementedError:
        return getattr(pathlib, "Pure" + kind)(text)


def _reduce_uuid(value: Any) -> tuple[object, ...]:
    return restore_uuid, (value.int,)


def restore_uuid(number: int) -> object:
    """Return a UUID by its number; whether it was made in a multiprocessing-safe way is not kept."""
    from uuid import UUID

    return UUID(int=number)


# --- time zones ---------------------------------------------------------------------------------------------------


def _reduce_moment(moment: Any) -> tuple[object, ...]:
    zone = moment.tzinfo
    key = None if zone is None else _key(zone)
    if key is None:
        return by_pickle(moment)  # type: ignore[no-any-return]
    offset = moment.utcoffset()
    seconds = None if offset is None else offset.total_seconds()
    return restore_moment, (moment.replace(tzinfo=None), key, seconds)


def _reduce_zone(zone: Any) -> tuple[object, ...]:
    key = _key(zone)
    return (restore_zone, (key,)) if key is not None else by_pickle(zone)  # made from a file: its own error says so


def _key(zone: object) -> str | None:
    zoneinfo = sys.modules.get("zoneinfo")
    return zone.key if zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo else None  # type: ignore[attr-defined]


def restore_zone(key: str) -> object:
    """Return a time zone; its key where this Python has no such zone."""
    try:
        from zoneinfo import ZoneInfo

        return ZoneInfo(key)
    except (ImportError, LookupError, ValueError):
        return key


def restore_moment(moment: Any, key: str, seconds: float | None) -> object:
    """Return a datetime or time in a zone; with the offset it had there where this Python has no such zone."""
    zone: Any = restore_zone(key)
    if zone is key:
        import datetime

        if seconds is None:
            return moment
        zone = datetime.timezone(datetime.timedelta(seconds=seconds), key)
    return moment.replace(tzinfo=zone)


def in_zone(moment: Any, zone: str | None) -> Any:
    """Return a moment that was said in UTC in a time zone, or in UTC where this Python has no such zone."""
    if moment is None or zone is None:
        return moment
    import datetime

    moment = moment.replace(tzinfo=datetime.timezone.utc)
    found = restore_zone(zone)
    return moment if isinstance(found, str) else moment.astimezone(found)


# --- views of memory ----------------------------------------------------------------------------------------------


def _reduce_view(view: memoryview) -> tuple[object, ...]:
    if len(view.format) > 1 and view.format[0] != "@":
        raise TypeError("cannot pickle a memoryview of format %r: send an array or bytes" % view.format)
    data = view if view.c_contiguous else view.tobytes()
    flat = memoryview(data).cast("B") if view.nbytes else b""
    return restore_view, (PickleBuffer(flat) if len(flat) else b"", view.format, view.shape, view.readonly)


def restore_view(data: Any, form: str, shape: tuple[int, ...], is_readonly: bool) -> memoryview:
    """Return a view of received memory, of the form and shape of the one that was sent."""
    if not isinstance(data, MEMORY):
        raise TypeError("a view of something that is no memory")
    view: Any = memoryview(data)
    if isinstance(data, bytes) and not is_readonly:  # else it is read-only because the receiver wants that
        view = memoryview(bytearray(view))
    flat: Any = view.cast("B")
    if view.nbytes == 0 or len(shape) == 1:
        flat = flat.cast(form)
    else:
        flat = flat.cast(form, shape)
    return flat.toreadonly() if is_readonly else flat  # type: ignore[no-any-return]


def _reduce_proxy(proxy: Any) -> tuple[object, ...]:
    return restore_proxy, (dict(proxy),)


def restore_proxy(items: dict[Any, Any]) -> object:
    """Return a read-only view of a dict."""
    return type(type.__dict__)(items)  # types.MappingProxyType, without importing types


# --- groups of exceptions -----------------------------------------------------------------------------------------


def _reduce_group(group: Any) -> tuple[object, ...]:
    state = vars(group) or None
    return restore_group, (type(group).__name__, group.message, list(group.exceptions)), state


class GroupRecord(Exception):
    """A group of exceptions on a Python before 3.11: `message` and `exceptions`."""

    def __init__(self, message: str, exceptions: Any) -> None:
        super().__init__(message, tuple(exceptions))
        self.message = message
        self.exceptions = tuple(exceptions)

    def __str__(self) -> str:
        return "%s (%d sub-exceptions)" % (self.message, len(self.exceptions))


def restore_group(kind: str, message: str, exceptions: list[Any]) -> BaseException:
    """Return a group of exceptions; a `GroupRecord` where Python has no such groups."""
    import builtins

    if kind not in ("ExceptionGroup", "BaseExceptionGroup"):
        raise ValueError("no kind of exception group: %r" % (kind,))
    made: BaseException = getattr(builtins, kind, GroupRecord)(message, exceptions)
    return made


_REDUCERS: dict[tuple[str, str], Reducer] = {
    **{("pathlib", name): _reduce_path for name in _PATHS},
    ("uuid", "UUID"): _reduce_uuid,
    ("datetime", "datetime"): _reduce_moment,
    ("datetime", "time"): _reduce_moment,
    ("zoneinfo", "ZoneInfo"): _reduce_zone,
    ("builtins", "memoryview"): _reduce_view,
    ("builtins", "mappingproxy"): _reduce_proxy,
    ("builtins", "ExceptionGroup"): _reduce_group,
    ("builtins", "BaseExceptionGroup"): _reduce_group,
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Reducer = Callable[[Any], Any]
