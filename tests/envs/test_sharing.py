"""Environments that many use at once: leases, garbage collection, and failures that are told to all who wait."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import venvoy as vv
from venvoy.envs import Env, EnvSpec, build, collect_garbage, environments, hold, place, store
from venvoy.errors import EnvBuildError, EnvError

SRC = Path(__file__).parents[2] / "src"


def age(env: Env, seconds: float) -> None:
    """Have an environment been used last so many seconds ago."""
    lease = place.Place(str(env.home), env.key).lease_path
    when = time.time() - seconds
    os.utime(lease, (when, when))


def keys(home: Path) -> set[str]:
    """Return the folders of environments there are."""
    return set(os.listdir(home / "envs"))


@pytest.fixture
def made(wheels: Path, tmp_path: Path) -> list[Env]:
    """Four small environments in a home of their own, the first one used longest ago."""
    found = []
    for number in range(4):
        spec = EnvSpec(["tiny"], constraints=[f"unused=={number}"], find_links=[wheels], offline=True)
        found.append(build(spec, home=tmp_path / "home"))
        age(found[-1], 1000 - 100 * number)
    return found


@pytest.fixture
def one(tiny: EnvSpec, tmp_path: Path) -> Env:
    """One small environment in a home of its own."""
    return build(tiny, home=tmp_path / "home")


# --- what is known --------------------------------------------------------------------------------


def test_environments_are_listed_with_what_is_known_of_them(made: list[Env], tmp_path: Path) -> None:
    """The last used first; sizes, packages and times are there."""
    infos = environments(home=tmp_path / "home")
    assert [info.env for info in infos] == made[::-1]
    assert all(info.packages == ("tiny==2.0",) and info.size > 10_000 and not info.in_use for info in infos)
    assert all("EnvSpec(packages=['tiny']" in info.spec for info in infos)
    assert 890 < time.time() - infos[2].last_used < 1100
    assert time.time() - infos[0].created < 60
    with made[0].lease():
        assert environments(home=tmp_path / "home")[0].in_use
    assert environments(home=tmp_path / "nothing there") == []
    assert not (tmp_path / "nothing there").exists()


def test_hard_links_count_once(tmp_path: Path) -> None:
    """A second name of a file takes no space."""
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    before = sum(place.files_of(str(tmp_path)).values())
    os.link(tmp_path / "one", tmp_path / "two")
    assert sum(place.files_of(str(tmp_path)).values()) == before >= 100_000


# --- garbage --------------------------------------------------------------------------------------


def test_age_removes_what_was_not_used_for_so_long(made: list[Env], tmp_path: Path) -> None:
    """And keep_last holds some of that back."""
    done = collect_garbage(max_age=850, home=tmp_path / "home")
    assert [info.env for info in done.removed] == made[:2]
    assert done.freed > 10_000
    assert collect_garbage(max_age=0, keep_last=1, home=tmp_path / "home").removed[0].env == made[2]
    assert keys(tmp_path / "home") == {made[3].key}
    assert os.listdir(tmp_path / "home" / "trash") == []


def test_bytes_remove_the_least_recently_used_until_it_fits(made: list[Env], tmp_path: Path) -> None:
    """What environments share by hard links counts once."""
    files = [place.files_of(env.prefix) for env in made]
    two = sum({**files[2], **files[3]}.values())
    done = collect_garbage(max_bytes=two, home=tmp_path / "home")
    assert [info.env for info in done.removed] == made[:2]
    assert collect_garbage(max_bytes=10**12, home=tmp_path / "home").removed == ()


def test_keep_last_alone_removes_all_others(made: list[Env], tmp_path: Path) -> None:
    """And without any limit nothing complete is removed."""
    assert collect_garbage(home=tmp_path / "home").removed == ()
    collect_garbage(keep_last=1, home=tmp_path / "home")
    assert keys(tmp_path / "home") == {made[3].key}


def test_what_broken_builds_and_removals_left_is_removed(made: list[Env], tmp_path: Path) -> None:
    """Folders without a marker, and trash."""
    (tmp_path / "home" / "trash").mkdir()
    shutil.copytree(made[0].prefix, tmp_path / "home" / "trash" / "x", symlinks=True)
    (Path(made[0].prefix) / "ready.json").unlink()
    collect_garbage(home=tmp_path / "home")
    assert keys(tmp_path / "home") == {env.key for env in made[1:]}
    assert os.listdir(tmp_path / "home" / "trash") == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_age": -1}, ValueError),
        ({"max_age": float("nan")}, ValueError),
        ({"keep_last": 1.5}, TypeError),
        ({"max_bytes": "1G"}, TypeError),
        ({"max_bytes": True}, TypeError),
    ],
)
def test_limits_that_make_no_sense_are_refused(arguments: dict[str, object], error: type[Exception]) -> None:
    """By their name."""
    with pytest.raises(error, match=next(iter(arguments))):
        collect_garbage(**arguments)  # type: ignore[arg-type]


def test_the_home_says_that_it_is_a_cache(one: Env, tmp_path: Path) -> None:
    """Backups leave it out."""
    assert (tmp_path / "home" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


# --- leases ---------------------------------------------------------------------------------------


def test_a_leased_environment_is_not_removed(one: Env, tmp_path: Path) -> None:
    """Any number hold it together; the last one gone, it may go."""
    with one.lease(), one.lease():
        with pytest.raises(EnvError, match="in use by a live process"):
            one.remove()
        collect_garbage(max_age=0, home=tmp_path / "home")
        assert keys(tmp_path / "home") == {one.key}
    one.remove()
    with pytest.raises(EnvError, match="is gone; build it again"):
        one.lease()


def test_a_pool_holds_a_lease_for_as_long_as_it_lives(one: Env, tmp_path: Path) -> None:
    """From the moment it is open until `close` has returned."""
    with vv.Pool(one, workers=1, home=tmp_path / "home") as pool:
        assert pool.call("tiny:WORD.upper") == "HERE"
        with pytest.raises(EnvError, match="in use"):
            one.remove()
    one.remove()


class SlowEvent(threading.Event):
    """Whoever waits for it goes on before whoever sets it."""

    def set(self) -> None:
        super().set()
        time.sleep(0.3)


def test_close_returns_when_threads_and_lease_are_gone(one: Env, tmp_path: Path) -> None:
    """Also if the thread that sees the last worker end is the slower one."""
    threads = threading.active_count()
    pool = vv.Pool(one, workers=1, home=tmp_path / "home")
    pool._core.staff.gone = SlowEvent()
    pool.warm()
    pool.shutdown()
    assert threading.active_count() <= threads
    one.remove()


def test_a_pool_that_is_dropped_gives_its_lease_back(one: Env, tmp_path: Path) -> None:
    """Without `close` too."""
    pool = vv.Pool(one, workers=1, home=tmp_path / "home")
    pool.warm()
    del pool
    deadline = time.monotonic() + 5
    while environments(home=tmp_path / "home")[0].in_use:
        assert time.monotonic() < deadline
        time.sleep(0.02)


HOLDER = """
import os, sys, time
from venvoy.envs import Env
lease = Env(*sys.argv[1:5], home=sys.argv[5]).lease()
if os.fork() == 0:
    print(os.getpid(), flush=True)  # from here on it holds nothing
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_a_process_that_is_killed_gives_its_lease_back(one: Env) -> None:
    """The kernel does it, and a fork that lives on holds nothing."""
    command = [sys.executable, "-c", HOLDER, one.key, one.python, one.version, one.prefix, str(one.home)]
    environ = {**os.environ, "PYTHONPATH": str(SRC)}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        fork = int(process.stdout.readline())
        try:
            with pytest.raises(EnvError, match="in use"):
                one.remove()
            process.kill()
            process.wait()
            one.remove()
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_lease_is_inherited_by_nobody(one: Env) -> None:
    """Neither by a program that is started nor by a fork; and a fork that ends does not end it."""
    with one.lease() as lease:
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
        pid = os.fork()
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        other = os.fork()
        if other == 0:
            os._exit(0)
        os.waitpid(other, 0)
        with pytest.raises(EnvError, match="in use"):
            one.remove()
        lease.release()
    try:
        one.remove()
    finally:
        child.kill()
        child.wait()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_holding_survives_a_removal_in_between(tiny: EnvSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed after it was found and before it was leased: it is built again."""
    real = store._resolve
    calls: list[int] = []

    def resolve_and_lose(*arguments: object) -> Env:
        env = real(*arguments)  # type: ignore[arg-type]
        calls.append(1)
        if len(calls) == 1:
            env.remove()
        return env

    monkeypatch.setattr(store, "_resolve", resolve_and_lose)
    env, lease = hold(tiny, home=tmp_path)
    with lease:
        assert os.path.exists(env.python)
    assert len(calls) == 2


USER = """
import random, sys, time
import venvoy as vv
home, wheels, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
end = time.monotonic() + seconds
rounds = 0
while time.monotonic() < end:
    spec = vv.EnvSpec(["tiny"], constraints=[f"unused=={random.randrange(4)}"], find_links=[wheels], offline=True)
    with vv.Pool(spec, workers=1, home=home) as pool:
        assert pool.call("tiny:WORD.upper") == "HERE"
        time.sleep(random.random() / 20)
        assert pool.call("tiny:WORD.lower") == "here"
    rounds += 1
print(rounds)
"""


@pytest.mark.slow
def test_collecting_all_the_time_disturbs_nobody(wheels: Path, tmp_path: Path) -> None:
    """Eight processes use four of ten environments while everything unused is removed over and over."""
    home = tmp_path / "home"
    specs = [
        EnvSpec(["tiny"], constraints=[f"unused=={number}"], find_links=[wheels], offline=True) for number in range(10)
    ]
    for spec in specs:
        build(spec, home=home)
    environ = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", USER, str(home), str(wheels), "2.5"]
    pipe = subprocess.PIPE
    users = [subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) for _ in range(8)]
    rounds = 0
    while any(user.poll() is None for user in users):
        collect_garbage(keep_last=0, home=home)
        rounds += 1
        time.sleep(0.01)
    answers = [user.communicate() for user in users]
    assert [user.returncode for user in users] == [0] * 8, answers
    assert all(int(out) > 0 for out, _ in answers)
    assert rounds > 10
    collect_garbage(keep_last=0, home=home)
    assert keys(home) == set()


# --- failures -------------------------------------------------------------------------------------


@pytest.fixture
def hopeless(wheels: Path) -> EnvSpec:
    """The spec of an environment that cannot be."""
    return EnvSpec(["tiny==9.9"], find_links=[wheels], offline=True)


def test_all_who_wait_for_a_failing_build_fail_together(
    hopeless: EnvSpec, installer: Callable[[str], Path], use: Callable[[Path], None], tmp_path: Path
) -> None:
    """One run of the installer; everybody gets the resolver's words."""
    use(installer(""))

    def attempt(_: int) -> str:
        with pytest.raises(EnvBuildError) as caught:
            build(hopeless, home=tmp_path / "home")
        assert "unsatisfiable" in caught.value.output
        return str(caught.value)

    with ThreadPoolExecutor(10) as threads:
        messages = list(threads.map(attempt, range(10)))
    assert all("unsatisfiable" in message for message in messages)
    assert sum("again not before" in message for message in messages) == 9
    assert len((tmp_path / "runs").read_text().splitlines()) == 2
    assert keys(tmp_path / "home") == set()


def test_a_failure_is_forgotten_after_a_while(
    hopeless: EnvSpec,
    installer: Callable[[str], Path],
    use: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The world may have changed: the next one tries again."""
    use(installer(""))
    monkeypatch.setattr(store, "FAILURE_MEMORY", 0.2)
    for _ in range(2):
        with pytest.raises(EnvBuildError, match="unsatisfiable"):
            build(hopeless, home=tmp_path / "home")
        time.sleep(0.25)
    assert len((tmp_path / "runs").read_text().splitlines()) == 4


def test_a_deadline_is_no_failure_to_remember(
    tiny: EnvSpec, slow_installer: Path, use: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody with more time may succeed."""
    with monkeypatch.context() as patch:
        import uv

        patch.setattr(uv, "find_uv_bin", lambda: str(slow_installer))
        with pytest.raises(EnvBuildError, match="not finished within"):
            build(tiny, home=tmp_path / "home", timeout=0.7)
    build(tiny, home=tmp_path / "home")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that holds very little."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(folder)], capture_output=True)
    if mount.returncode != 0:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_build_error_and_leaves_nothing(small_disk: Path) -> None:
    """It names the cause; afterwards the space is free again."""
    spec = EnvSpec(["numpy"])
    build(EnvSpec([], python=sys.executable), home=small_disk).remove()
    with pytest.raises(EnvBuildError, match="No space left on device"):
        build(spec, home=small_disk)
    assert keys(small_disk) == set()
    used = sum(place.files_of(str(small_disk)).values())
    assert used < 100_000


def test_a_store_that_is_read_only_serves_what_it_holds(tiny: EnvSpec, small_disk: Path) -> None:
    """As in an image of a container; what is not there is an error that names the folder."""
    env = build(tiny, home=small_disk)
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    (small_disk / "locks" / f"{env.key}.lease").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert build(tiny, home=small_disk) == env
    assert env.run(["python", "-c", "import tiny"], env=environ).returncode == 0
    with pytest.raises(EnvBuildError, match=f"{small_disk}.*cannot be written"):
        build(dataclasses.replace(tiny, packages=["other"]), home=small_disk)


def test_without_a_network_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package index that cannot be reached is named."""
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    spec = EnvSpec(["not-in-any-cache"], index_url="http://127.0.0.1:9/simple")
    with pytest.raises(EnvBuildError, match=r"127\.0\.0\.1:9"):
        build(spec, home=tmp_path)
    offline = dataclasses.replace(spec, offline=True)
    with pytest.raises(EnvBuildError, match=r"network|offline|cache"):
        build(offline, home=tmp_path)
    assert keys(tmp_path) == set()
