"""`start="zygote"`: workers forked from a template are like any other, and the template is no weak point."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import venvoy as vv
from venvoy.pool.watch import code_places
from venvoy.workers import template

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has templates")

WARM = """
    import os, random, sys
    token = object()
    with open({log!r}, "a") as file:
        print(os.getpid(), file=file)

    def facts():
        return os.getpid(), os.getppid(), id(token), random.random()

    def environ(name):
        return os.environ.get(name)

    def printing(text):
        print(text)
        print(text, file=sys.stderr)

    def reading():
        return input()

    def false():
        import subprocess
        return subprocess.run(["false"]).returncode

    def daemon():
        "Fork a process that leaves the group, and start one that does."
        import subprocess
        found = [subprocess.Popen(["sleep", "60"], start_new_session=True).pid]
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                import time
                time.sleep(60)
            os._exit(0)
        found.append(int(os.read(read, 20)))
        return found
"""


class Folder:
    """A folder of modules that workers preload."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "imports.txt"
        self.write("warm", WARM.format(log=str(self.log)))

    def write(self, name: str, text: str) -> None:
        """Write a module."""
        (self.path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")

    def imports(self) -> list[str]:
        """Return the process ids that have imported `warm`."""
        return self.log.read_text().split()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with the module `warm`."""
    return Folder(tmp_path)


@pytest.fixture
def zygote(open_pool: Callable[..., vv.Pool], folder: Folder) -> Callable[..., vv.Pool]:
    """Make pools whose workers are forked from a template that has imported `warm`."""

    def make(env: Any = None, **options: Any) -> vv.Pool:
        return open_pool(env, **{"start": "zygote", "preload": ["warm"], "paths": [folder.path], **options})

    return make


def template_of(pool: vv.Pool) -> int:
    """Return the process id of a pool's template."""
    return int(pool.call("os:getppid"))


def test_workers_share_what_was_imported_once(interpreter: str, zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """On every Python: one import, several workers with pids and random numbers of their own, one parent."""
    with zygote(interpreter, workers=3) as pool, pool.leases(3) as workers:
        facts = [worker.call("warm:facts") for worker in workers]
        pids, parents, tokens, numbers = (set(column) for column in zip(*facts, strict=True))
        assert len(pids) == len(numbers) == 3
        assert len(parents) == len(tokens) == 1
        assert folder.imports() == [str(parent) for parent in parents]
        assert pids == {worker.pid for worker in workers}


def test_ends_of_workers_are_known(interpreter: str, zygote: Callable[..., vv.Pool]) -> None:
    """Exit status, signal and the Python stack of a crash are the worker's own; it is replaced from the template."""
    with zygote(interpreter) as pool:
        parent = template_of(pool)
        with pytest.raises(vv.WorkerCrashed) as left:
            pool.call("os:_exit", 7)
        assert (left.value.exit_status, left.value.signal) == (7, None)
        with pytest.raises(vv.WorkerCrashed) as crashed:
            pool.eval("__import__('ctypes').string_at(0)")
        assert crashed.value.signal is signal.SIGSEGV
        assert "string_at" in crashed.value.python_stack
        assert template_of(pool) == parent


def test_standard_streams_are_the_workers_own(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """What preload printed comes once, and from nobody's worker; stdin is empty; each worker has pipes of its own."""
    chunks: list[vv.OutputChunk] = []
    folder.write("noisy", "import sys; print('hello', end=''); print('world', end='', file=sys.stderr)")
    with zygote(preload=["warm", "noisy"], workers=2, output=chunks.append) as pool, pool.leases(2) as workers:
        for number, worker in enumerate(sorted(workers, key=lambda lease: lease.pid)):
            worker.call("warm:printing", f"of {number}")
            assert pool.output(number + 1) == f"of {number}\n" * 2
            with pytest.raises(EOFError):
                worker.call("warm:reading")
    texts = {(chunk.worker, chunk.stream): chunk.text for chunk in chunks if chunk.text}
    assert texts[0, "stdout"], texts[0, "stderr"] == ("hello", "world")
    assert sorted(number for number, _ in texts) == [0, 0, 1, 1, 2, 2]


def test_logging_of_preload_and_of_workers_comes_out_here(
    zygote: Callable[..., vv.Pool], folder: Folder, caplog: pytest.LogCaptureFixture, until: Callable[..., None]
) -> None:
    """Records of either are logged in this process, once; levels that preload sets stay."""
    folder.write(
        "logs",
        """
        import logging
        logging.getLogger("quiet").setLevel(logging.ERROR)
        logging.getLogger("loud").warning("preloaded")
        def work():
            logging.getLogger("loud").warning("worked")
            logging.getLogger("quiet").warning("not said")
        """,
    )
    with caplog.at_level(logging.WARNING), zygote(preload=["logs"]) as pool:
        pool.call("logs:work")
        until(lambda: "worked" in caplog.text)
        records = [(r.getMessage(), r.venvoy_worker) for r in caplog.records if r.name in ("loud", "quiet")]  # type: ignore[attr-defined]
    assert records == [("preloaded", 0), ("worked", 1)]


def test_what_each_worker_does_for_itself(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """The initializer runs in every worker; without `preload`, the pool's module is what is preloaded."""
    with zygote(
        initializer="builtins:exec", initializer_args=["import sys; sys.mine = __import__('os').getpid()"]
    ) as p:
        assert p.eval("__import__('sys').mine") == p.call("os:getpid")
    folder.log.unlink()
    options = vv.WorkerOptions(start="zygote", paths=[folder.path], output="discard")
    with vv.Pool(None, "warm", workers=2, worker=options) as pool:
        pool.call("facts")
        assert folder.imports() == [str(template_of(pool))]


def test_preload_without_a_template_is_done_by_each_worker(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """With `start="spawn"`, `preload` is imported before a worker is ready."""
    with zygote(start="spawn", workers=2) as pool:
        assert sorted(folder.imports()) == sorted(str(info.pid) for info in pool.workers())


# --- what cannot be preloaded -----------------------------------------------------------------------


def start_error(pool: vv.Pool) -> vv.WorkerStartError:
    """Return why a pool cannot start."""
    with pytest.raises(vv.WorkerStartError) as caught:
        pool.warm()
    return caught.value


def test_a_preload_that_fails_says_so(extreme: str, zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """Its error, traceback and output are in the error of who wants a worker; so is a module that is not there."""
    folder.write("broken", "print('before')\n1 / 0")
    error = start_error(zygote(extreme, preload=["broken"]))
    assert "the template" in str(error)
    assert "ZeroDivisionError" in str(error)
    assert "broken.py" in error.remote_traceback
    assert "before" in error.output
    assert "no module named 'nowhere'" in str(start_error(zygote(extreme, preload=["nowhere"])))
    folder.write("leaving", "import os; os._exit(4)")
    assert start_error(zygote(extreme, preload=["leaving"])).exit_status == 4


def test_a_preload_that_hangs_is_ended(extreme: str, zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """After `start_timeout`, with the place where it hangs; a close before that does not wait for it."""
    folder.write("hanging", "import time\ntime.sleep(60)")
    error = start_error(zygote(extreme, preload=["hanging"], start_timeout=1.5))
    assert "not ready within start_timeout=1.5 s" in str(error)
    assert "hanging.py" in error.remote_traceback
    pool = zygote(extreme, preload=["hanging"])
    future = pool.submit("os:getpid")
    pool.close(0)
    with pytest.raises(vv.PoolClosed):
        future.result(5)


def test_a_thread_that_preload_leaves_is_refused(extreme: str, zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """The error names thread and module; threads that end in time do no harm; nor do those that survive a fork."""
    folder.write(
        "threads",
        """
        import threading, time
        def flush():
            time.sleep(60)
        threading.Thread(target=flush, name="flusher", daemon=True).start()
        """,
    )
    error = str(start_error(zygote(extreme, preload=["threads"])))
    assert "'threads' has left the thread 'flusher' running (flush of module threads, line 4)" in error
    folder.write("short", "import threading, time\nthreading.Thread(target=time.sleep, args=[0.05]).start()")
    with zygote(extreme, preload=["short"]) as pool:
        assert pool.call("os:getpid") > 0


NATIVE = """
    import ctypes, os
    libc = ctypes.CDLL(None)
    libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, libc.pause, None)
    (number,) = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
    with open("/proc/self/task/%s/comm" % number, "w") as file:
        file.write("NAME")
"""


def test_native_threads_that_are_not_known_to_survive_are_refused(
    extreme: str, zygote: Callable[..., vv.Pool], folder: Folder
) -> None:
    """By the name that the system has for them; jemalloc's may stay, and no Python warns of it."""
    folder.write("native", NATIVE.replace("NAME", "grpc_timer"))
    assert "threads of native code running: 'grpc_timer'" in str(start_error(zygote(extreme, preload=["native"])))
    folder.write("native", NATIVE.replace("NAME", "jemalloc_bg_thd"))
    with zygote(extreme, preload=["native"], env_vars={"PYTHONWARNINGS": "error"}) as pool:
        assert pool.output() == ""
        assert pool.eval("__import__('sys').warnoptions") == ["error"]


LATE = """
    import os
    def read(fd, size, read=os.read):
        if os.readlink("/proc/self/fd/%d" % fd).endswith("/comm"):
            raise ProcessLookupError(3, "No such process")
        return read(fd, size)
    os.read = read
    def open_names():
        paths = [os.path.realpath("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")]
        return [path for path in paths if path.endswith("/comm")]
"""


def test_a_native_thread_that_ends_while_it_is_looked_at_does_no_harm(
    extreme: str, zygote: Callable[..., vv.Pool], folder: Folder
) -> None:
    """Its name can be opened, and not read any more."""
    folder.write("late", NATIVE.replace("NAME", "grpc_timer") + LATE)
    with zygote(extreme, preload=["late"]) as pool:
        assert pool.call("late:open_names") == []


def test_variables_of_a_slot_reach_it_unless_preload_has_read_them(
    extreme: str, zygote: Callable[..., vv.Pool], folder: Folder
) -> None:
    """Each slot has its own; one that was read while preloading is an error that names it and who has read it."""

    def of_slot(slot: int) -> dict[str, str]:
        return {"WARM_SLOT": f"slot {slot}"}

    with zygote(extreme, workers=2, env_vars=of_slot) as pool, pool.leases(2) as workers:
        assert sorted(worker.call("warm:environ", "WARM_SLOT") for worker in workers) == ["slot 0", "slot 1"]
        assert workers[0].eval("__import__('subprocess').getoutput('echo $WARM_SLOT')").startswith("slot ")
    folder.write("reader", "import os\nwhere = os.getenv('WARM_SLOT', 'nowhere')")
    error = str(start_error(zygote(extreme, preload=["reader"], env_vars=of_slot)))
    assert "WARM_SLOT" in error
    assert "reader.py, line 2" in error
    folder.write("copier", "import os\neverything = dict(os.environ)")
    assert "copier.py, line 2" in str(start_error(zygote(extreme, preload=["copier"], env_vars=of_slot)))
    error = str(start_error(zygote(extreme, env_vars=lambda slot: {"PYTHONHASHSEED": str(slot)})))
    assert "PYTHONHASHSEED" in error
    with zygote(extreme, preload=["reader"], env_vars={"WARM_SLOT": "all"}) as pool:
        assert pool.eval("__import__('reader').where") == "all"


def test_what_the_host_changes_of_its_own_environment_is_no_conflict(
    zygote: Callable[..., vv.Pool], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even after preload has read all of it: workers forked later have the new value, as spawned ones do."""
    folder.write("copier", "import os\neverything = dict(os.environ)")
    with zygote(preload=["copier", "warm"], workers=(1, 2)) as pool, pool.lease() as first:
        assert first.call("warm:environ", "WARM_LATER") is None
        monkeypatch.setenv("WARM_LATER", "now")
        assert pool.call("warm:environ", "WARM_LATER") == "now"


def test_signal_handlers_of_preload_do_not_cost_the_exit_status(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """SIGCHLD is ignored in workers where preload wants it so, and nowhere else."""
    with zygote() as pool:
        assert pool.call("warm:false") == 1
    folder.write("ignoring", "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)")
    with zygote(preload=["ignoring", "warm"]) as pool:
        assert pool.call("warm:false") == 0  # as in a worker that was spawned
        with pytest.raises(vv.WorkerCrashed) as caught:
            pool.call("os:_exit", 7)
        assert caught.value.exit_status == 7


def test_numpy_is_seeded_anew_and_its_threads_are_no_hindrance(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """Its own random numbers differ between workers, and it computes."""
    pytest.importorskip("numpy")
    folder.write("maths", "import numpy, numpy.random\nnumpy.random.seed(1)")
    with zygote(preload=["maths"], workers=2) as pool, pool.leases(2) as workers:
        assert len({worker.call("numpy.random:rand") for worker in workers}) == 2
        workers[0].exec("import maths")
        assert workers[0].eval("float((maths.numpy.ones((300, 300)) @ maths.numpy.ones((300, 300))).sum())") == 300.0**3


# --- the template's life ----------------------------------------------------------------------------


def test_workers_outlive_their_template(
    zygote: Callable[..., vv.Pool], until: Callable[..., None], gone: Callable[..., None]
) -> None:
    """A worker goes on with its state when the template is killed; its end is unknown then; the next has a new one."""
    with zygote(workers=(1, 2)) as pool:
        parent = template_of(pool)
        with pool.lease() as worker:
            worker.exec("x = 5")
            os.kill(parent, signal.SIGKILL)
            gone(parent)
            assert worker.eval("x") == 5
            assert pool.call("os:getpid") != worker.pid  # a second one, from another template
            assert worker.eval("x") == 5
            with pytest.raises(vv.WorkerCrashed) as caught:
                worker.call("os:_exit", 7)
            assert caught.value.exit_status is None
            assert caught.value.signal is None
        assert template_of(pool) != parent


def test_a_template_that_cannot_fork_is_replaced(
    zygote: Callable[..., vv.Pool], monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """It has no descriptors left: an error that says so. It does not answer: another template."""
    with zygote(workers=(1, 3)) as pool:
        parent = template_of(pool)
        before = resource.prlimit(parent, resource.RLIMIT_NOFILE)
        resource.prlimit(parent, resource.RLIMIT_NOFILE, (5, before[1]))
        with pytest.raises(vv.WorkerStartError, match="cannot fork: Too many open files"):
            pool.warm(2)
        resource.prlimit(parent, resource.RLIMIT_NOFILE, before)
        assert pool.warm(2) == 2
        monkeypatch.setattr(template, "_FORK_SECONDS", 0.3)
        os.kill(parent, signal.SIGSTOP)
        assert pool.warm(3) == 3
        with pool.leases(3) as workers:
            assert len({worker.call("os:getppid") for worker in workers}) == 2


def test_a_fork_that_cannot_be_watched_is_ended(
    zygote: Callable[..., vv.Pool], monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """The host has no descriptor for it: an error, and a pool that can be closed."""

    def refuse(pid: int) -> int:
        raise OSError(errno.EMFILE, "of the test")

    with zygote(workers=(1, 2)) as pool:
        parent = template_of(pool)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pidfd_open", refuse)
            with pytest.raises(vv.WorkerStartError, match="too many open files"):
                pool.warm(2)
        until(lambda: len(psutil.Process(parent).children()) == 1)  # the template reaps when it is told to
        assert pool.warm(2) == 2


def test_a_template_that_does_not_reap_holds_nobody_up(
    zygote: Callable[..., vv.Pool], until: Callable[..., None]
) -> None:
    """A call on a worker that died is answered, without its exit status, though the template is stopped."""
    with zygote() as pool:
        parent = template_of(pool)
        os.kill(parent, signal.SIGSTOP)
        try:
            with pytest.raises(vv.WorkerCrashed) as caught:
                pool.call("os:_exit", 7)
            assert caught.value.exit_status is None
            until(lambda: pool.stats().workers_crashed == 1)
        finally:
            os.kill(parent, signal.SIGCONT)


def test_a_reload_makes_a_new_template(
    zygote: Callable[..., vv.Pool], folder: Folder, gone: Callable[..., None]
) -> None:
    """It preloads the new code, and the old one ends with its last worker; broken code changes nothing."""
    folder.write("code", "answer = 1")
    with zygote(preload=["code"], workers=2) as pool:
        old = template_of(pool)
        with pool.lease() as kept:
            folder.write("code", "answer = 2")
            assert pool.reload() == 2
            assert pool.eval("__import__('code').answer") == 2
            assert kept.eval("__import__('code').answer") == 1
            assert psutil.pid_exists(old)
        gone(old)
        folder.write("code", "1 / 0")
        with pytest.raises(vv.WorkerStartError, match="ZeroDivisionError"):
            pool.reload()
        assert pool.eval("__import__('code').answer") == 2


def test_code_that_is_preloaded_is_watched(folder: Folder, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Where it is found without `paths`, too; not what is installed, or comes with Python."""
    monkeypatch.setattr(sys, "path", [str(folder.path), *sys.path])
    options = vv.WorkerOptions(start="zygote", preload=["warm", "json", "psutil"])
    places = code_places(options, "", vv.build(vv.EnvSpec.current(), home=home))
    assert places == [str(folder.path / "warm.py")]


def test_named_workers_are_forked_from_their_pools_template(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """Unless they are told to preload something else; other variables of the environment are no hindrance."""
    with zygote() as pool:
        parent = template_of(pool)
        assert pool.named("one").call("os:getppid") == parent
        assert pool.named("two", env_vars={"WARM_NAME": "two"}).call("warm:environ", "WARM_NAME") == "two"
        assert pool.named("two").call("os:getppid") == parent
        assert pool.named("three", preload=["json"]).call("os:getppid") != parent
        assert pool.named("four", start="spawn").call("os:getppid") == os.getpid()


def test_a_forked_worker_may_run_several_calls_at_once(extreme: str, zygote: Callable[..., vv.Pool]) -> None:
    """`concurrency=3`: three calls meet at a barrier in one worker, whose parent is the template."""
    with zygote(extreme, concurrency=3, initializer="builtins:exec", initializer_args=[BARRIER]) as pool:
        arrived = [pool.submit("builtins:eval", "__import__('sys').barrier.wait() >= 0") for _ in range(3)]
        assert [future.result(20) for future in arrived] == [True] * 3
        assert template_of(pool) != os.getpid()


BARRIER = "import sys, threading; sys.barrier = threading.Barrier(3)"


def test_limits_and_events_are_those_of_any_worker(zygote: Callable[..., vv.Pool], folder: Folder) -> None:
    """`max_calls` replaces forked workers; every step of workers and of the template is told."""
    events: list[vv.Event] = []
    options = vv.WorkerOptions(start="zygote", preload=["warm"], paths=[folder.path], output="discard", max_calls=2)
    with vv.Pool(workers=1, worker=options, on_event=events.append) as pool:
        pids = [pool.call("os:getpid") for _ in range(6)]
        parent = template_of(pool)
    assert len(set(pids)) >= 3
    assert [(event.kind, event.reason) for event in events if event.pid == parent] == [
        ("spawned", None),
        ("ready", None),
        ("retired", "closed"),
    ]
    assert [(e.kind, e.reason) for e in events if e.pid == pids[0]] == [
        ("forked", None),
        ("ready", None),
        ("retired", "max_calls"),
    ]
    assert events[-1].kind == "closed"


def test_nothing_lives_longer_than_its_host(
    start_host: Callable[..., Any], folder: Folder, gone: Callable[..., None]
) -> None:
    """A host killed with SIGKILL takes template and workers along, even if a worker holds the interpreter lock."""
    host = start_host(
        f"""
        import venvoy as vv, time
        options = vv.WorkerOptions(start="zygote", preload=["warm"], paths=[{str(folder.path)!r}])
        pool = vv.Pool(workers=2, worker=options)
        pool.warm()
        parent = pool.call("os:getppid")
        print(parent, *[info.pid for info in pool.workers()], flush=True)
        pool.eval("__import__('ctypes').PyDLL(None).sleep(60)")
        """
    )
    pids = host.pids()
    assert len(pids) == 3
    host.process.kill()
    gone(*pids)


def test_strays_of_a_forked_worker_are_found(
    extreme: str, zygote: Callable[..., vv.Pool], gone: Callable[..., None]
) -> None:
    """What it has started or forked, and what has left its group, ends with it; the other workers stay."""
    with zygote(extreme, workers=2) as pool, pool.leases(2) as (one, other):
        started = one.call("warm:daemon")
        kept = other.call("warm:daemon")
        with pytest.raises(vv.WorkerCrashed):
            one.call("os:_exit", 1)
        gone(*started)
        assert all(map(psutil.pid_exists, kept))
        assert other.call("os:getpid") == other.pid
    gone(*kept)


# --- where it cannot be -------------------------------------------------------------------------------


def test_a_system_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the pool raises; nothing is started."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(vv.PoolError, match="start='zygote' needs Linux"):
        vv.Pool(worker=vv.WorkerOptions(start="zygote"))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"start": "fork"}, ValueError, "start is 'spawn' or 'zygote', not 'fork'"),
        ({"preload": "json"}, TypeError, "preload is a list of names of modules, not 'json'"),
        ({"preload": [5]}, TypeError, "preload lists names of modules, not 5"),
        ({"preload": ["json:loads"]}, ValueError, "preload lists names of modules, as in an import"),
    ],
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception], text: str) -> None:
    """With what is expected."""
    with pytest.raises(error, match=text):
        vv.WorkerOptions(**options)
