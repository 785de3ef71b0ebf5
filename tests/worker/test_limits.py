"""Limits of the system that are met when a worker is started: a clear error, no hang, and the pool goes on."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import venvoy as vv

NO_PROCESS = """
import os, resource, tempfile
import venvoy as vv

if os.getuid() == 0:  # whom the limit does not hold for
    os.chdir("/")
    os.setgroups([])
    os.setgid(61_234)
    os.setuid(61_234)
os.environ["VENVOY_HOME"] = tempfile.mkdtemp()
with vv.Pool(workers=(1, 3)) as pool:
    pool.warm(1)
    mine = [name for name in os.listdir("/proc") if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid()]
    threads = sum(len(os.listdir(f"/proc/{name}/task")) for name in mine)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, hard))
    try:
        pool.warm(3)
    except vv.WorkerStartError as error:
        print("RLIMIT_NPROC" in str(error), flush=True)
    print(pool.call("math:sqrt", 16), flush=True)
    resource.setrlimit(resource.RLIMIT_NPROC, (threads + 50, hard))
    print(pool.warm(2) >= 2, flush=True)
"""


def test_without_a_further_process_the_workers_there_are_serve_on(start_host: Callable[..., Any]) -> None:
    """RLIMIT_NPROC is named in the error; when it is lifted, the pool grows."""
    host = start_host(NO_PROCESS)
    status, out, err = host.rest(40)
    if "Permission" in err or "No module named" in err:
        pytest.skip("the interpreter cannot be used by another user")
    assert (status, out.split()) == (0, ["True", "4.0", "True"]), err


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOMEM, "not enough memory"), (errno.EAGAIN, "RLIMIT_NPROC"), (errno.EMFILE, "RLIMIT_NOFILE")],
)
def test_a_spawn_that_fails_names_the_limit(
    number: int, words: str, open_pool: Callable[..., vv.Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits gets the error at once; the next call starts a worker; no descriptor is left open."""
    pool = open_pool()

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", fail)
        with pytest.raises(vv.WorkerStartError, match=words):
            pool.call("math:sqrt", 16)
        assert isinstance(pool.submit("math:sqrt", 16).exception(5), vv.WorkerStartError)
    assert pool.call("math:sqrt", 16) == 4
