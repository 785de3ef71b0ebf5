"""What user code does to the worker it runs in; runs on Python 3.8."""

import asyncio
import ctypes
import faulthandler
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time


def pid():
    return os.getpid()


def ask():
    return input("a question: ")


def exit_python(status):
    sys.exit(status)


def interrupt():
    raise KeyboardInterrupt("of the user")


def raise_base():
    class Odd(BaseException):
        pass

    raise Odd("odd")


def fork_and_return():
    """Fork, and return from the call on both sides."""
    return os.fork()


def fork_and_raise():
    """Fork, and let the child leave the call with an exception."""
    child = os.fork()
    if child == 0:
        raise ValueError("in the forked process")
    return child


def fork_and_wait():
    """Fork a child that leaves with status 5; return what it left with."""
    child = os.fork()
    if child == 0:
        os._exit(5)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])


def fork_and_hold(path):
    """Fork a process in a session of its own that keeps every descriptor open, then die."""
    for fd in range(3, 64):
        try:
            os.dup(fd)
        except OSError:
            pass
    if os.fork() == 0:
        os.setsid()
        with open(path + ".part", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".part", path)
        time.sleep(60)
        os._exit(0)
    while not os.path.exists(path):
        time.sleep(0.01)
    os._exit(9)


def leave_thread(seconds, daemon):
    """Start a thread that outlives the call."""
    threading.Thread(target=time.sleep, args=(seconds,), daemon=daemon).start()
    return threading.active_count()


def start_child(seconds=60):
    """Start a process that outlives the call; return its number."""
    return subprocess.Popen(["sleep", str(seconds)]).pid


STRAYS = {
    "own group": "os.setpgid(0, 0)",
    "own session": "os.setsid()",
    "daemon": "os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0)",
    "own session, clean environment": "os.setsid(); os.environ.clear(); os.execv(sys.executable, "
    "[sys.executable, '-S', '-c', 'import sys, os, time; open(sys.argv[1] + str(os.getpid()), \"w\"); time.sleep(60)',"
    " sys.argv[1]])",
    "with children": "os.setsid(); [os.fork() or os.setsid() for _ in range(2)]",
}


def start_strays(folder, kinds):
    """Start processes that leave the worker's group in one way or another; each says its number as a file's name."""
    for kind in kinds:
        text = f"import os, sys, time; {STRAYS[kind]}; open(sys.argv[1] + str(os.getpid()), 'w'); time.sleep(60)"
        subprocess.Popen([sys.executable, "-S", "-c", text, os.path.join(folder, "pid-")])


def start_what_multiplies(folder):
    """Start a process in a session of its own that goes on starting others."""
    text = (
        "import os, sys, time\n"
        "os.setsid()\n"
        "for _ in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        open(sys.argv[1] + str(os.getpid()), 'w')\n"
        "        time.sleep(60)\n"
        "    time.sleep(0.005)\n"
    )
    subprocess.Popen([sys.executable, "-S", "-c", text, os.path.join(folder, "pid-")])


def status_of(*command):
    return subprocess.run(command).returncode


def use_signals():
    """Install a handler, send the signal, return what the handler saw."""
    seen = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    while not seen:
        time.sleep(0.001)
    signal.signal(signal.SIGUSR1, previous)
    return seen == [signal.SIGUSR1]


def use_asyncio():
    async def double(value):
        await asyncio.sleep(0.001)
        return 2 * value

    async def main():
        return await asyncio.gather(*(double(value) for value in range(3)))

    return asyncio.run(main())


def change_folder(path):
    os.chdir(path)
    return os.getcwd()


def set_interrupt_handler(kind):
    """Change what SIGINT does, for good."""
    handlers = {"default": signal.SIG_DFL, "ignore": signal.SIG_IGN, "python": signal.default_int_handler}
    signal.signal(signal.SIGINT, handlers[kind])


def close_stream(how):
    """Take the process's stdout away, in one of several ways."""
    if how == "close":
        sys.stdout.close()
    elif how == "none":
        sys.stdout = None
    elif how == "object":
        sys.stdout = object()
    elif how == "descriptor 1":
        os.close(1)
    elif how == "descriptors 0 to 2":
        os.closerange(0, 3)
    elif how == "all streams":
        sys.stdin = sys.stdout = sys.stderr = None
    return how


def close_descriptors(seed):
    """Close some descriptors between 3 and 64, which are not the caller's to close."""
    for fd in random.Random(seed).sample(range(3, 64), 40):
        try:
            os.close(fd)
        except OSError:
            pass
    return seed


def die(how):
    """End this process."""
    print("last words", end="")
    sys.stdout.flush()
    if how == "exit":
        os._exit(9)
    elif how == "exit 0":
        os._exit(0)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    else:
        os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)


def crash():
    ctypes.string_at(0)


def wait_for_thread(thread):
    thread.start()
    thread.join()


def die_in_a_thread():
    """Crash in a thread while the main thread waits for it."""
    wait_for_thread(threading.Thread(target=crash))


def enable_faulthandler_and_die(path):
    """Crash after choosing where the report of the crash goes."""
    if path is None:
        faulthandler.enable()
    else:
        file = open(path, "w")  # noqa: SIM115 - for the rest of this life
        faulthandler.enable(file)
    ctypes.string_at(0)


def fork_and_crash(folder):
    """Fork a process that opens files under all free numbers and crashes; return the signal."""
    child = os.fork()
    if child == 0:
        for number in range(40):
            os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_WRONLY)
        ctypes.string_at(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def die_sometimes(number, deadly):
    """Return the number, unless it is among the deadly ones."""
    if number in deadly:
        os._exit(7)
    return number


def die_in_c(number):
    """End this process from a function that C code calls."""
    return sorted(range(number), key=lambda value: os._exit(6) if value == number - 1 else value)


def sleep(seconds, path=None):
    """Sleep, and say in a file that the sleep has begun."""
    touch(path)
    time.sleep(seconds)
    return seconds


def touch(path):
    if path is not None:
        open(path, "w").close()


def spin(path=None):
    """Be busy in Python code for ever."""
    touch(path)
    while True:
        pass


def hold_the_lock(path=None):
    """Be busy in C code that never lets go of the interpreter lock, for about for ever."""
    touch(path)
    return sum(range(10**12))


def square(number):
    return number * number


def use_processes(method):
    """Square numbers in processes of the worker's own."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, range(5))


def clean_up(path, seconds):
    """Sleep; leave a file behind when the sleep ends, however it ends."""
    try:
        time.sleep(seconds)
    finally:
        touch(path)


def swallow(seconds):
    """Sleep for some time, whatever comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except BaseException:
            pass
    return "survived"


def swallow_once(path):
    """Swallow the first request to stop, note it in a file, and go on."""
    try:
        time.sleep(60)
    except BaseException as error:
        with open(path, "w") as file:
            file.write(type(error).__name__)
    time.sleep(60)


def poll_until_cancelled():
    """Return once the call has been asked to stop, having swallowed the request."""
    import venvoy_worker

    call = venvoy_worker.call_id()
    before = venvoy_worker.is_cancelled()
    while not venvoy_worker.is_cancelled():
        try:
            time.sleep(0.01)
        except venvoy_worker.Cancelled:
            pass
    return call, before


def call_numbers():
    """Return this call's number, and whether it is cancelled, as the worker's own module knows them."""
    import venvoy_worker

    return venvoy_worker.call_id(), venvoy_worker.is_cancelled()


def echo(value):
    return value


def echo_after(value, seconds):
    """Return a value after a time, which is spent in Python code."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return value
