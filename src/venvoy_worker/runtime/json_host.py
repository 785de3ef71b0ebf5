"""The worker as hosts in other languages use it: JSON frames on its stdin and stdout, calls on threads.

Owns the descriptors of the frames, the calls that are in flight by their ids, and the threads. Laws: the reader's
thread never runs code of the user's; definitions run in the main thread, in order, and a call begins after the
definitions that came before it; a frame is packed whole before a byte of it is written; with stdin the process ends.
"""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from time import monotonic

import venvoy_worker as _face

from ..contract import messages
from ..contract.plain import plain
from . import coroutines, json_frames, sources, stdio
from .perform import report, resolve

_PAUSE = 0.05  # seconds between two frames of progress of a call


class Call:
    """A call in flight.

    Args:
        number: what user code knows it by.
        name: what the host knows it by.
        target, argument: what to run.
    """

    def __init__(self, number: int, name: str, target: str, argument: object) -> None:
        self.id = number
        self.name = name
        self.target = target
        self.argument = argument
        self.is_cancelled = False
        self.stop: Callable[[], object] = bool  # cancels the coroutine that it runs
        self.next_report = 0.0
        self.unsaid = b""  # the frame of the newest progress, kept back


_NOBODY = Call(0, "", "", None)


class Host:
    """Who the frames come from and go to.

    Args:
        source, sink: descriptors of the frames.
        most_threads: how many calls run at once.
        limit: bytes of a frame that comes, at most.
    """

    def __init__(self, source: int, sink: int, most_threads: int, limit: int) -> None:
        self._source = source
        self._sink = sink
        self._most_threads = most_threads
        self._limit = limit
        self._write_lock = threading.Lock()  # one frame at a time
        self._lock = threading.Lock()  # guards the three below; nothing else happens under it
        self._calls: dict[str, Call] = {}  # in flight, by the host's ids
        self._threads = 0
        self._idle = 0  # threads that wait, less the calls that wait for one
        self._numbers = 0
        self._running: dict[int, Call] = {}  # by thread
        self._ordered: SimpleQueue[Call | dict[str, Any]] = SimpleQueue()  # for the main thread
        self._waiting: SimpleQueue[Call] = SimpleQueue()  # for the threads

    def say(self, message: dict[str, object]) -> None:
        """Write a frame, from any thread; without the host there is nothing left to do."""
        self._write(json_frames.pack(message))

    def _write(self, frame: bytes) -> None:
        if stdio.is_fork():  # a process that user code forked has no host
            return
        view = memoryview(frame)
        with self._write_lock:
            try:
                while view:
                    view = view[os.write(self._sink, view) :]
            except OSError:
                os._exit(1)

    # --- the reader's thread ----------------------------------------------------------------

    def listen(self) -> None:
        """Read frames until there are no more, then end the process, whatever is running."""
        status = 1
        try:
            body = json_frames.read(self._source, self._limit)
            while body is not None:
                self._hear(body)
                body = json_frames.read(self._source, self._limit)
            status = 0
        except json_frames.TooLarge as error:
            self._complain(str(error), {})
        except (OSError, EOFError):
            pass
        finally:
            os._exit(status)

    def _hear(self, body: bytes) -> None:
        try:
            message = json_frames.parse(body)
        except json_frames.Malformed as error:
            self._complain(str(error), error.frame)
            return
        kind = message["type"]
        if kind == "ping":
            self.say({"type": "pong"})
        elif kind == "cancel":
            self._cancel(message["callID"])
        elif kind == "define":
            self._ordered.put(message)
        else:
            self._begin(message)

    def _complain(self, text: str, frame: dict[str, Any]) -> None:
        ids = {name: frame[name] for name in ("callID", "opID") if isinstance(frame.get(name), str)}
        self.say(dict(ids, type="error", errorType="ProtocolError", errorMessage=text))

    def _begin(self, message: dict[str, Any]) -> None:
        name = message["callID"]
        with self._lock:
            is_new = name not in self._calls
            if is_new:
                self._numbers += 1
                call = self._calls[name] = Call(self._numbers, name, message["func"], message["args"])
        if is_new:
            self._ordered.put(call)
        else:
            self._complain("call: the callID %r is that of a call in flight" % name, message)

    def _cancel(self, name: str) -> None:
        with self._lock:
            call = self._calls.get(name)
        if call is not None:  # else it has just ended
            call.is_cancelled = True
            call.stop()

    # --- the main thread --------------------------------------------------------------------

    def serve(self) -> None:
        """Run definitions, and hand on calls, in the order they came."""
        while True:
            item = self._ordered.get()
            if isinstance(item, Call):
                self._hand_on(item)
            else:
                self._define(item)

    def _define(self, message: dict[str, Any]) -> None:
        answer: dict[str, object] = {"type": "op_done", "opID": message["opID"]}
        filename = message.get("filename")
        try:
            place = filename if isinstance(filename, str) else "<define %s>" % message["opID"]
            sources.append(message["code"], (place, 1, ()))
        except BaseException as error:
            stdio.leave_if_forked()
            answer.update(ok=False, **failure_of(error))
        else:
            answer["ok"] = True
        stdio.leave_if_forked()
        stdio.flush()
        self.say(answer)

    def _hand_on(self, call: Call) -> None:
        with self._lock:
            self._idle -= 1
            is_short = self._idle < 0 and self._threads < self._most_threads
            if is_short:
                self._threads += 1
        self._waiting.put(call)
        if is_short:
            threading.Thread(target=self._work, name="venvoy-call", daemon=True).start()

    # --- the threads of calls ---------------------------------------------------------------

    def _work(self) -> None:
        ident = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
            call = self._waiting.get()
            self._running[ident] = call
            frame = self._perform(call)
            self._running.pop(ident)
            stdio.leave_if_forked()
            stdio.flush()
            with self._lock:
                del self._calls[call.name]
            self._write(call.unsaid + frame)
            del call, frame  # a thread that waits keeps nothing alive

    def _perform(self, call: Call) -> bytes:
        answer: dict[str, object] = {"type": "call_done", "callID": call.name}
        try:
            if call.is_cancelled:
                raise _face.Cancelled("call %s was cancelled before it began" % call.name)
            result = resolve(messages.KIND_NAME, call.target)(call.argument)
            if type(result) is coroutines.COROUTINE:
                result = coroutines.finish(result)
            return json_frames.pack(dict(answer, ok=True, result=plain(result, is_strict=True)))
        except BaseException as error:
            stdio.leave_if_forked()
            return json_frames.pack(dict(answer, ok=False, **failure_of(error)))

    def finish(self, coroutine: Any) -> object:
        """Run a coroutine on a loop of its own, in the thread of its call, where `cancel` reaches it."""
        import asyncio  # only calls of coroutine functions need it

        async def run() -> object:
            call, task = self.current(), asyncio.current_task()
            assert task is not None
            loop = asyncio.get_running_loop()
            call.stop = lambda: loop.call_soon_threadsafe(task.cancel)
            if call.is_cancelled:
                task.cancel()
            try:
                return await coroutine
            except asyncio.CancelledError:
                if call.is_cancelled:
                    raise _face.Cancelled("call %s was cancelled" % call.name) from None
                raise
            finally:
                call.stop = bool

        return asyncio.run(run())

    # --- what running code asks for ---------------------------------------------------------

    def current(self) -> Call:
        """Return the call of this thread."""
        return self._running.get(threading.get_ident(), _NOBODY)

    def progress(self, call_id: int, done: float, total: float | None, message: str) -> None:
        """Tell how far a call is; of what comes too often, the newest is said before the call's end."""
        call = self.current()
        if call is _NOBODY:
            return
        fields: dict[str, object] = {"done": done, "total": total, "message": message}
        frame = json_frames.pack({"type": "progress", "callID": call.name, **fields})
        now = monotonic()
        if now < call.next_report:
            call.unsaid = frame
        else:
            call.unsaid, call.next_report = b"", now + _PAUSE
            self._write(frame)

    def ask(self, name: object, call_id: int, args: object, kwargs: object) -> object:
        """Refuse what needs a host that can be asked."""
        raise RuntimeError("this host speaks JSON frames, by which its functions cannot be called: %r" % (name,))

    def log(self, fields: dict[str, object], call_id: int) -> None:
        """Tell of a record of `logging`."""
        call = self.current()
        ids: dict[str, object] = {} if call is _NOBODY else {"callID": call.name}
        self.say({"type": "log", **ids, **fields})


def failure_of(error: BaseException) -> dict[str, object]:
    """Return the fields of an error; those of our own kinds have the names that they have in Python hosts."""
    told = report(error)
    code = told.get("code")
    kind = type(error).__name__ if code is None else "".join([part.capitalize() for part in str(code).split("_")])
    return {"errorType": kind, "errorMessage": told["message"], "traceback": told["traceback"]}


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable
