"""What runs at once in one worker; syntax of Python 3.8."""

import asyncio
import ctypes
import logging
import os
import sys
import threading
import time
from contextvars import ContextVar, copy_context

import venvoy_worker

SEEN = ContextVar("SEEN", default=None)
_most = 0
_now = 0
_lock = threading.Lock()


def _enter():
    global _now, _most
    with _lock:
        _now += 1
        _most = max(_most, _now)


def _leave():
    global _now
    with _lock:
        _now -= 1


def pid():
    return os.getpid()


def most():
    return _most


def nap(seconds, value=None):
    _enter()
    try:
        time.sleep(seconds)
        return value
    finally:
        _leave()


async def anap(seconds, value=None):
    _enter()
    try:
        await asyncio.sleep(seconds)
        return value
    finally:
        _leave()


def who(value):
    """Return the value, and what says which call this is, seen twice."""
    first = venvoy_worker.call_id()
    SEEN.set(value)
    time.sleep(0.005)
    return value, first, venvoy_worker.call_id(), SEEN.get()


async def awho(value):
    first = venvoy_worker.call_id()
    SEEN.set(value)
    await asyncio.sleep(0.005)
    return value, first, venvoy_worker.call_id(), SEEN.get()


def fail(text):
    time.sleep(0.005)
    raise ValueError(text)


async def afail(text):
    await asyncio.sleep(0.005)
    raise ValueError(text)


def thread():
    return threading.current_thread().name, threading.current_thread() is threading.main_thread()


async def athread():
    return thread()


def obey(path):
    """Work until it is asked to stop."""
    open(path, "w").close()
    while not venvoy_worker.is_cancelled():
        time.sleep(0.005)
    return "obeyed"


async def clean_up(began, path):
    open(began, "w").close()
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.05)
        open(path, "w").close()


def touch_and_nap(path, seconds, value=None):
    open(path, "w").close()
    time.sleep(seconds)
    return value


async def leave_task(path):
    async def later():
        try:
            await asyncio.sleep(60)
        finally:
            open(path, "w").close()

    leave_task.task = asyncio.ensure_future(later())
    await asyncio.sleep(0)


def crash():
    ctypes.string_at(0)


async def exit_task():
    sys.exit(3)


def exit_thread():
    sys.exit(3)


async def make_shared():
    make_shared.loop = asyncio.get_event_loop()
    make_shared.lock = asyncio.Lock()


async def is_shared():
    async with make_shared.lock:
        return make_shared.loop is asyncio.get_event_loop()


def start_slow_import():
    import together_slow

    return together_slow.LAST


def fork_and_return():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return os.getpid()


def say(text, times):
    for number in range(times):
        print(f"{text} {number}")
        time.sleep(0.002)


async def asay(text, times):
    for number in range(times):
        print(f"{text} {number}")
        await asyncio.sleep(0.002)


def ask(function, values):
    return [function(value) for value in values]


async def aask(function, values):
    return [function(value) for value in values]


async def ask_aside(function, values):
    """From threads of the loop's, which know their call where the context goes with them."""
    loop = asyncio.get_event_loop()
    calls = [loop.run_in_executor(None, copy_context().run, function, value) for value in values]
    return await asyncio.gather(*calls)


def ask_by_name(name, value):
    return venvoy_worker.host(name)(value)


def advance(value, count):
    for number in range(count):
        venvoy_worker.progress(number + 1, count, str(value))
        time.sleep(0.06)
    return value


def print_parts(size):
    print("begun", end="")
    print(", flushed", end="", flush=True)
    print("ä" * size, end="")
    print("end", end="")
    print("to stderr", end="", file=sys.stderr)


def log(text):
    logger = logging.getLogger("together")
    logger.warning(text)
    time.sleep(0.01)
    logger.warning(text)
    return venvoy_worker.call_id()


async def alog(text):
    logger = logging.getLogger("together")
    logger.warning(text)
    await asyncio.sleep(0.01)
    logger.warning(text)
    return venvoy_worker.call_id()


def count_up(name, count, path=None):
    try:
        for number in range(count):
            yield name, number
    finally:
        if path:
            open(path, "w").close()


async def acount_up(name, count, path=None):
    try:
        for number in range(count):
            if number % 100 == 0:
                await asyncio.sleep(0)
            yield name, number
    finally:
        if path:
            open(path, "w").close()
