"""`import venvoy`: clean, lean, and possible where no pool can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

RunScript = Callable[..., Any]

LEAN = """
    import sys
    before = set(sys.modules)
    import venvoy
    heavy = {"numpy", "asyncio", "typer", "rich", "uv", "msgspec", "psutil", "pandas", "watchfiles",
             "multiprocessing", "http", "ssl", "email", "json", "tomllib", "unittest"}
    print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} & heavy))
    print(sorted(name for name in sys.modules if name.startswith("venvoy_worker.runtime")))
    import threading
    print(threading.active_count())
"""
WINDOWS = """
    import sys
    POSIX_ONLY = {"fcntl", "resource", "grp", "pwd", "termios", "pty", "syslog", "_posixsubprocess", "readline"}

    class NotOnWindows:
        def find_spec(self, name, path=None, target=None):
            if name in POSIX_ONLY:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    # What the standard library itself needs of POSIX here is loaded first; venvoy must not ask for it.
    import concurrent.futures, ctypes, logging, selectors, signal, socket, subprocess, tempfile, threading, uuid
    import platformdirs, pathlib, hashlib, shutil, functools, difflib, random
    import os
    for name in list(sys.modules):
        if name in POSIX_ONLY:
            del sys.modules[name]
    sys.meta_path.insert(0, NotOnWindows())
    for name in ("fork", "register_at_fork", "pidfd_open", "memfd_create", "getpgrp", "killpg", "setsid", "waitid",
                 "set_blocking", "getuid", "geteuid", "WNOHANG", "P_PID", "getpgid", "posix_spawn"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGKILL", "SIGURG", "SIGHUP", "pthread_kill", "SIGALRM", "setitimer"):
        if hasattr(signal, name):
            delattr(signal, name)
    for name in ("AF_UNIX", "MSG_DONTWAIT", "SCM_RIGHTS", "CMSG_SPACE", "send_fds", "recv_fds"):
        if hasattr(socket, name):
            delattr(socket, name)
    for module in filter(None, (pathlib, sys.modules.get("pathlib._local"))):
        module.WindowsPath = pathlib.PosixPath  # a path of Windows cannot be made here
    os.name, sys.platform = "nt", "win32"

    import venvoy as vv
    assert vv.EnvSpec(packages=["numpy"]).key
    for make in (lambda: vv.Pool(), lambda: vv.Pool(vv.EnvSpec(packages=["numpy"]), workers=2)):
        try:
            pool = make()
            pool.call("math:sqrt", 4)
        except vv.PoolError as error:
            print("clear:", error)
    print("by_source", vv.by_source.__name__, vv.__version__)
"""


def test_import_is_clean_with_warnings_as_errors(run_script: RunScript) -> None:
    """No deprecated name, no unclosed file, nothing printed."""
    done = run_script("import venvoy", "-W", "error", "-X", "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_whole_session_is_clean_with_warnings_as_errors(run_script: RunScript) -> None:
    """No ResourceWarning of a socket, file or process that was left."""
    text = """
        import venvoy as vv
        with vv.Pool(workers=2) as pool:
            print(pool.call("math:sqrt", 4), pool.submit(pow, 2, 3).result(), list(pool.map(abs, [-1, 2])))
    """
    done = run_script(text, "-W", "error", "-X", "dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.0 8 [1, 2]\n", "")


def test_import_loads_nothing_heavy_and_starts_nothing(run_script: RunScript) -> None:
    """Neither optional packages nor those of the command line, nor the child's half, nor a thread."""
    done = run_script(LEAN)
    assert done.stdout.splitlines() == ["[]", "[]", "1"], done.stdout + done.stderr


def test_on_windows_it_can_be_imported_and_says_what_is_missing(run_script: RunScript) -> None:
    """As well as that can be simulated: no POSIX module, function, signal or socket family is there."""
    done = run_script(WINDOWS)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stdout
    assert all(line.startswith("clear: ") and "Linux" in line and "Windows" in line for line in lines[:2])


@pytest.mark.parametrize("name", ["Pool", "EnvSpec", "WorkerOptions", "by_source", "build", "CallFuture", "Lease"])
def test_everything_public_says_what_it_is(name: str) -> None:
    """Each name of `__all__` has a docstring."""
    import venvoy as vv

    assert name in vv.__all__
    assert all(getattr(vv, public).__doc__ for public in vv.__all__)
