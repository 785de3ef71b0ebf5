"""What is said about a worker that is gone: why it did not start, or how it ended while it ran a call."""

from __future__ import annotations

import os
import re
from typing import Any

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.frames import Frame

from ..errors import WorkerCrashed, WorkerStartError
from .lane import WorkerLost
from .state import Reason
from .template import Template
from .worker import Worker

_SHOWN = 4000  # characters of output in a message; the error's attribute has all that was kept
_FATAL = "Fatal Python error: "  # how reports of faulthandler, and of the interpreter itself, begin
_BY_WHOM = {
    Reason.KILLED: "was ended by kill() or terminate()",
    Reason.CLOSED: "was ended with its pool",
    Reason.DRAINED: "was to be replaced",
}
_OTHERS = "another call on it did not stop in time"


def launch_error(error: Exception, what: str) -> WorkerStartError:
    """Return the error of a worker, or of the template of all, whose process could not be made."""
    if isinstance(error, WorkerStartError):
        return error
    if not isinstance(error, OSError):
        return WorkerStartError(f"cannot start {what}: {error!r}")
    reason = f"cannot start {what}: {error.strerror or error}"
    return WorkerStartError(reason + (f": {error.filename}" if error.filename else ""))


def start_error(worker: Worker | Template) -> WorkerStartError:
    """Return the error of a worker, or of the template of all, that exited before it was ready."""
    who = "the template" if isinstance(worker, Template) else "a worker"
    exit = worker.process.exit
    output = worker.process.tail_text()
    stack = crash_stack(worker)
    frame = worker.birth.frame
    snapshot = _read(frame) if frame is not None and frame.opcode == messages.ERROR else None
    if frame is not None and snapshot is None:
        text, trace = f"it answered {frame.target.decode('utf-8', 'replace')!r}, and {exit}", ""
    elif snapshot is not None:
        text = f"{snapshot.get('type', snapshot.get('code'))}: {snapshot['message']}"
        trace = str(snapshot["traceback"])
    elif worker.birth.is_late:
        text = f"not ready within start_timeout={worker.recipe.start_timeout:g} s"
        trace, stack = str(_read(worker.birth.stack) or "") or worker.page.stack.decode("utf-8", "replace"), ""
    else:
        text, trace = f"it {exit}{_because(worker.oom_hint)}", ""
    return WorkerStartError(
        f"{who} of {worker.recipe.python} did not start: {text}"
        + _section("where it was", trace)
        + _section("where it crashed", stack, slice(_SHOWN))
        + _section("the end of its output", output),
        output=output,
        remote_traceback=trace,
        exit_status=exit.status if exit else None,
        signal=exit.signal if exit else None,
        python_stack=stack,
        oom_hint=worker.oom_hint,
    )


def crash_error(lost: WorkerLost) -> WorkerCrashed:
    """Return the error of a call whose worker is gone."""
    worker = lost.worker
    exit = worker.process.exit
    output = worker.process.tail_text()
    stack = crash_stack(worker)
    reason = worker.reason or Reason.CRASHED
    how = str(exit) if exit else "broke its channel"
    when = "while it ran" if lost.started else "before it began"
    is_collateral = worker.was_condemned and not lost.lane.is_lost
    why = _OTHERS if is_collateral else _BY_WHOM.get(reason, "") or worker.oom_hint
    return WorkerCrashed(
        f"worker {worker.id} (pid {worker.process.pid}) {how} {when} {lost.call.name}{_because(why)}"
        + _section("where it crashed", stack, slice(_SHOWN))
        + _section("the end of its output", output),
        pid=worker.process.pid,
        exit_status=exit.status if exit else None,
        signal=exit.signal if exit else None,
        started=lost.started,
        target=lost.call.name,
        output_tail=output,
        python_stack=stack,
        oom_hint=worker.oom_hint,
        environment=worker.recipe.environment,
        reason=reason.name,
        collateral=is_collateral,
    )


def crash_stack(worker: Worker | Template) -> str:
    """Return the Python stack that a crash has left, without venvoy's own frames; "" if there is none.

    It is on the status page. The interpreter's own fatal errors, and those of code that has called
    `faulthandler.enable()` itself, are in stderr.
    """
    exit = worker.process.exit
    if exit is None or exit.signal is None:
        return ""
    text = worker.page.stack.decode("utf-8", "replace")
    if _FATAL not in text:
        printed = worker.process.tail_text("stderr")
        text = printed[printed.rfind(_FATAL) :] if _FATAL in printed else ""
    return _users_part(text, os.path.dirname(worker.recipe.main_file) + os.sep)


def _users_part(report: str, own_folder: str) -> str:
    """Return a report of faulthandler without the frames of files below a folder, and threads that have no others."""
    paragraphs = []
    for paragraph in re.split(r"\n\n+", report.strip()):
        lines = paragraph.splitlines()
        kept = [line for line in lines if not line.startswith(f'  File "{own_folder}')]
        is_ours = len(kept) < len(lines) and not any(line.startswith("  ") for line in kept)
        if not is_ours or "urrent thread" in paragraph:
            paragraphs.append("\n".join(kept))
    return "\n\n".join(paragraphs)


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _section(title: str, text: str, shown: slice = slice(-_SHOWN, None)) -> str:
    return f"\n--- {title} ---\n{text[shown].rstrip()}" if text.strip() else ""


def _read(frame: Frame | None) -> Any:
    if frame is None:
        return None
    from ..values import guarded  # start-up time: it imports pickle

    return codec.decode_frame(frame, _refuse, guarded.load)


def _refuse(module: str, name: str) -> object:
    raise codec.CodecError(f"names {module}.{name} where nothing is to be named")
