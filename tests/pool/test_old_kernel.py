"""On a kernel, or a Python, that has no pidfd and no memfd: everything works, with other means."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

WITHOUT = """
    import os, sys
    for name in sys.argv[1].split():
        delattr(os, name)
    import venvoy as vv

    env = vv.build(vv.EnvSpec())
    print(env.run(["python", "-c", "print('built')"], capture_output=True, text=True).stdout.strip())
    with vv.Pool(env, workers=1, worker=vv.WorkerOptions(output="discard", grace_period=0.6)) as pool:
        print(pool.call("builtins:len", bytes(3_000_000)))
        try:
            pool.exec("import os; os.abort()")
        except vv.WorkerCrashed as error:
            print(error.signal.name, bool(error.python_stack))
        print(pool.call("math:sqrt", 9.0))
        pool.kill(pool.workers()[0].id)
        print(pool.call("math:sqrt", 16.0))
    try:
        vv.build(vv.EnvSpec(["tiny==9"], offline=True), home=sys.argv[2])
    except vv.EnvBuildError:
        print("not built")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="says what Linux does without")
@pytest.mark.parametrize("missing", ["pidfd_open", "memfd_create", "pidfd_open memfd_create"])
def test_everything_works_without(missing: str, run_script: Callable[..., Any], tmp_path: Any) -> None:
    """Exits are noticed by a thread for each, values go through sockets, crashes are told; builds end."""
    done = run_script(WITHOUT, missing, str(tmp_path / "other home"))
    assert done.stderr == ""
    assert done.stdout.split("\n")[:6] == ["built", "3000000", "SIGABRT True", "3.0", "4.0", "not built"]
