"""`SqliteCallStore`: detached calls that outlive the host, in a SQLite file that several processes may use.

Owns one connection, its lock, and this host's mark. Laws: every change is one statement, so that it is made whole or
not at all, wherever a caller is interrupted or killed; a call is run by the host whose mark its row names, and by
whoever adopts it once that host is dead. `PRAGMA user_version` is the version of the schema.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Self

from .. import collector
from ..errors import CallStoreError
from .host_mark import HostMark, is_alive, remove_dead
from .store import TTL, DetachedCall, Pieces, check_ttl, unknown_call

_SCHEMA = 1
_APPLICATION = 0x76656E76  # "venv", which tells our files from others
_PATIENCE = 5.0  # seconds that another process may lock the file
_OPENINGS = 5  # attempts; processes that open a new file at once can refuse each other
_TABLES = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    target TEXT NOT NULL,
    started REAL NOT NULL,
    host TEXT,
    request BLOB,
    finished REAL,
    failed INTEGER NOT NULL DEFAULT 0,
    reply BLOB
);
CREATE INDEX unfinished ON calls (host) WHERE reply IS NULL;
CREATE INDEX finished ON calls (finished);
"""
_forked: list[sqlite3.Connection] = []  # of the process that this one was forked from: never to be touched


def check_options(ttl: float | None = TTL, resume: bool = False) -> None:
    """Raise TypeError or ValueError unless the options of a store are what they should be."""
    check_ttl(ttl)
    if not isinstance(resume, bool):
        raise TypeError(f"resume is True or False, not {resume!r}")


class _Refused(Exception):
    """A file that can be read, and is not for us."""


class SqliteCallStore:
    """Keeps detached calls in a file, so that they and their results outlive this process.

    The file is made with mode 0600, in WAL mode; use it for pools of one kind only. Commits survive the end of the
    process by whatever means; the last ones may not survive a loss of power.

    Args:
        path: of the file; it is made if it is not there.
        ttl: seconds after which a result that nobody has fetched is forgotten; None keeps it.
        resume: run calls again that a host left unfinished when it ended; else they fail with `WorkerCrashed`.

    Raises:
        TypeError, ValueError: an argument is not what is described here.
        CallStoreError: the file cannot be made or opened, is damaged, is none of ours, or of a newer venvoy.

    Examples:
        >>> with vv.Pool(call_store=vv.SqliteCallStore("calls.db", resume=True)) as pool:
        ...     id = pool.detached.start("math:sqrt", 9.0)
        >>> with vv.Pool(call_store=vv.SqliteCallStore("calls.db", resume=True)) as pool:  # in another process, say
        ...     pool.detached.result(id)
        3.0
    """

    def __init__(self, path: str | os.PathLike[str], ttl: float | None = TTL, resume: bool = False) -> None:
        check_options(ttl, resume)
        self.path = os.path.abspath(os.fspath(path))
        self._prefix = f"{self.path}-host-"  # of the marks of the processes that run calls
        self.ttl, self.resumes = ttl, resume
        self._lock = threading.Lock()  # one statement at a time; guards the two below
        self._mark: HostMark | None = None  # made for the first call that is run here
        try:
            self._db: sqlite3.Connection | None = _open(self.path)
            remove_dead(self._prefix)
        except (sqlite3.Error, OSError, _Refused) as error:
            raise self._error(error) from error
        self._finalizer = weakref.finalize(self, _close_quietly, self._db)
        collector.tell_after_fork(self)

    # --- the store --------------------------------------------------------------------------

    def add(self, id: str, target: str, request: Pieces) -> None:
        """See `CallStore`."""
        row = (id, target, time.time(), self._host(), b"".join(request))
        self._change("INSERT INTO calls (id, target, started, host, request) VALUES (?, ?, ?, ?, ?)", row)

    def finish(self, id: str, reply: Pieces, failed: bool) -> None:
        """See `CallStore`."""
        change = "UPDATE calls SET finished = ?, failed = ?, reply = ?, request = NULL, host = NULL"
        row = (time.time(), failed, b"".join(reply), id)
        self._change(f"{change} WHERE id = ? AND reply IS NULL", row)

    def find(self, id: str) -> Pieces | None:
        """See `CallStore`."""
        rows = self._read("SELECT reply FROM calls WHERE id = ? AND ifnull(finished > ?, 1)", (id, self._oldest()))
        if not rows:
            raise unknown_call(id)
        reply = rows[0][0]
        return None if reply is None else [reply]

    def take(self, id: str) -> bool:
        """See `CallStore`."""
        return self._change("DELETE FROM calls WHERE id = ?", (id,)) == 1

    def release(self, id: str) -> None:
        """See `CallStore`."""
        self._change("UPDATE calls SET host = NULL WHERE id = ? AND reply IS NULL", (id,))

    def adopt(self) -> list[tuple[str, bytes]]:
        """See `CallStore`."""
        mine = self._mark.token if self._mark is not None else ""
        hosts = [host for (host,) in self._read("SELECT DISTINCT host FROM calls WHERE reply IS NULL")]
        adopted = []
        for host in hosts:
            if host == mine or (host is not None and is_alive(self._prefix, host)):
                continue
            rows = self._read("SELECT id, request FROM calls WHERE host IS ? AND reply IS NULL", (host,))
            for id, request in rows:
                change = "UPDATE calls SET host = ? WHERE id = ? AND host IS ? AND reply IS NULL"
                if self._change(change, (self._host(), id, host)):  # else another process was quicker
                    adopted.append((id, request))
        return adopted

    def expire(self) -> float | None:
        """See `CallStore`."""
        if self.ttl is None:
            return None
        self._change("DELETE FROM calls WHERE finished <= ?", (self._oldest(),))
        first = self._read("SELECT min(finished) FROM calls")[0][0]
        return None if first is None else max(0.0, first + self.ttl - time.time())

    def entries(self) -> list[DetachedCall]:
        """See `CallStore`."""
        select = "SELECT id, target, reply IS NULL, failed, started, finished FROM calls"
        rows = self._read(f"{select} WHERE ifnull(finished > ?, 1) ORDER BY started, rowid", (self._oldest(),))
        return [
            DetachedCall(id, target, "pending" if pending else "failed" if failed else "done", started, finished)
            for id, target, pending, failed, started, finished in rows
        ]

    # --- its end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; calls that are unfinished stay so. A closed store can be made anew with the same path."""
        with self._lock:
            db, self._db = self._db, None
            mark, self._mark = self._mark, None
        self._finalizer.detach()
        _close_quietly(db)
        if mark is not None:
            mark.close()

    def after_fork_in_child(self) -> None:
        """In a process the host forked: the file is used by the parent alone, since SQLite does not survive a fork."""
        self._lock = threading.Lock()
        self._finalizer.detach()
        if self._db is not None:
            _forked.append(self._db)
            self._db = None
        if self._mark is not None:
            self._mark.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<venvoy.SqliteCallStore {self.path!r}>"

    # --- statements ---------------------------------------------------------------------------

    def _host(self) -> str:
        """Return what stands for this process in the rows of the calls it runs."""
        try:
            with self._lock:
                if self._mark is None and self._db is not None:  # else the statement to come says what is wrong
                    self._mark = HostMark(self._prefix)
                    weakref.finalize(self, self._mark.close)
                return self._mark.token if self._mark is not None else ""
        except OSError as error:
            raise self._error(error) from error

    def _oldest(self) -> float:
        """Return the moment before which results have expired."""
        return 0.0 if self.ttl is None else time.time() - self.ttl

    def _change(self, statement: str, values: tuple[Any, ...]) -> int:
        """Run a statement; return how many rows it changed."""
        return self._run(statement, values)[0]

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._run(statement, values)[1]

    def _run(self, statement: str, values: tuple[Any, ...]) -> tuple[int, list[Any]]:
        try:
            with self._lock:
                if self._db is None:
                    raise CallStoreError(f"call store {self.path}: it is closed, or is that of the process forked from")
                cursor = self._db.execute(statement, values)
                return cursor.rowcount, cursor.fetchall()
        except (sqlite3.Error, OverflowError) as error:  # which one depends on where a value is found too large
            raise self._error(error) from error

    def _error(self, error: BaseException) -> CallStoreError:
        return CallStoreError(f"call store {self.path}: {_why(error)}")


def _open(path: str) -> sqlite3.Connection:
    """Return a connection to a file of the right schema, which is made if it is not there."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:  # and is not opened by us: closing it would drop the locks of other connections to it
        pass
    for attempt in range(1, _OPENINGS + 1):
        db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db)
            return db
        except sqlite3.OperationalError as error:
            db.close()
            if attempt == _OPENINGS or not _is_busy(error):
                raise
        except BaseException:
            db.close()
            raise
    raise AssertionError


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables of a new file; refuse a file that is not ours, or newer than we are."""
    db.execute("BEGIN IMMEDIATE")
    version, application = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id"))
    is_new = version == application == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone()
    if is_new:
        for statement in filter(str.strip, _TABLES.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
    elif application != _APPLICATION:
        raise _Refused("it is a database, but no call store of venvoy")
    elif version > _SCHEMA:
        raise _Refused(f"its schema has version {version}, this venvoy knows version {_SCHEMA}: update venvoy")
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")


def _why(error: BaseException) -> str:
    if _is_busy(error):
        return f"another program has locked it for more than {_PATIENCE:g} s"
    return str(error)


def _is_busy(error: BaseException) -> bool:
    """Return True if the file was locked; the primary code is in the lowest byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _close_quietly(db: sqlite3.Connection | None) -> None:
    try:
        if db is not None:
            db.close()
    except sqlite3.Error:  # what was committed is there, and nothing else was promised
        pass
