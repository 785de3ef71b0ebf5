"""What is said about a worker that is gone: why it did not start, or how it ended while it ran a call."""

from __future__ import annotations

from typing import Any

from venvoy_worker.contract import codec, messages
from venvoy_worker.contract.frames import Frame

from .errors import WorkerCrashed, WorkerStartError
from .worker import Worker, WorkerLost
from .worker_state import Reason

_SHOWN = 4000  # characters of output in a message; the error's attribute has all that was kept


def start_error(worker: Worker) -> WorkerStartError:
    """Return the error of a worker that exited before it was ready."""
    exit = worker.process.exit
    output = worker.process.tail_text()
    frame = worker.birth.frame
    snapshot = _read(frame) if frame is not None and frame.opcode == messages.ERROR else None
    if frame is not None and snapshot is None:
        text, trace = f"it answered {frame.target.decode('utf-8', 'replace')!r}, and {exit}", ""
    elif snapshot is not None:
        text = f"{snapshot.get('type', snapshot.get('code'))}: {snapshot['message']}"
        trace = str(snapshot["traceback"])
    elif worker.birth.is_late:
        text = f"not ready within start_timeout={worker.recipe.start_timeout:g} s"
        trace = str(_read(worker.birth.stack) or "")
    else:
        text, trace = f"it {exit}", ""
    parts = [f"a worker of {worker.recipe.python} did not start: {text}"]
    parts += [f"--- where it was ---\n{trace.rstrip()}"] if trace else []
    return WorkerStartError(
        "\n".join(parts) + _shown(output),
        output=output,
        remote_traceback=trace,
        exit_status=exit.status if exit else None,
        signal=exit.signal if exit else None,
    )


def crash_error(lost: WorkerLost) -> WorkerCrashed:
    """Return the error of a call whose worker is gone."""
    worker = lost.worker
    exit = worker.process.exit
    output = worker.process.tail_text()
    reason = worker.reason or Reason.CRASHED
    how = str(exit) if exit else "broke its channel"
    when = "while it ran" if lost.started else "before it began"
    return WorkerCrashed(
        f"worker {worker.id} (pid {worker.process.pid}) {how} {when} {lost.call.name}" + _shown(output),
        pid=worker.process.pid,
        exit_status=exit.status if exit else None,
        signal=exit.signal if exit else None,
        started=lost.started,
        target=lost.call.name,
        output_tail=output,
        reason=reason.name,
    )


def _shown(output: str) -> str:
    return f"\n--- the end of its output ---\n{output[-_SHOWN:].rstrip()}" if output.strip() else ""


def _read(frame: Frame | None) -> Any:
    return codec.decode_frame(frame, _refuse, trusts=False) if frame is not None else None


def _refuse(module: str, name: str) -> object:
    raise codec.CodecError(f"names {module}.{name} where nothing is to be named")
