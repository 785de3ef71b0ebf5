"""Ways to write where a worker's output goes, each with a mark by which it is found again; runs on Python 3.8."""

import faulthandler
import json
import logging
import os
import subprocess
import sys
import threading
import time
import warnings


def line(mark):
    print(mark)


def part(mark):
    print(mark, end="")


def as_json(mark):
    print(json.dumps({"id": 1, "result": mark}))


def megabyte(mark):
    print("x" * (1 << 20) + mark)


def descriptor(mark):
    os.write(1, mark.encode())


def child(mark):
    subprocess.run(["echo", mark], check=True)


def c_level(mark):
    import ctypes

    ctypes.CDLL(None).puts(mark.encode())


def warning(mark):
    warnings.warn(mark, stacklevel=1)


def log(mark):
    logger = logging.getLogger("noises")
    logger.propagate = False
    logger.handlers[:] = [logging.StreamHandler()]
    logger.warning(mark)


def stack(mark):
    scope = {"faulthandler": faulthandler}
    exec("def NAME(): faulthandler.dump_traceback()".replace("NAME", mark), scope)
    scope[mark]()


ALL = (line, part, as_json, megabyte, descriptor, child, c_level, warning, log, stack)
KINDS = [noise.__name__ for noise in ALL]

_go = threading.Event()


def make(kind, mark):
    """Make one noise and return something exact."""
    globals()[kind](mark)
    return [kind, mark, len(mark)]


def make_all(prefix):
    """Make every noise, each marked with the prefix and its name."""
    for noise in ALL:
        noise(prefix + noise.__name__)


def start_thread(prefix):
    """Make every noise in a thread, once `go` has been called."""

    def run():
        _go.wait()
        make_all(prefix)
        _go.clear()

    threading.Thread(target=run).start()


def go():
    """Let the thread make its noises; they come after this call's end, or during it."""
    _go.set()


def is_done():
    """Whether the thread has made its noises."""
    return not _go.is_set()


def flood(lines):
    """Print many lines and return their number."""
    for number in range(lines):
        print("line", number)
    return lines


def bytes_of_output(count):
    """Write so many bytes in one go."""
    sys.stdout.write("y" * count)
    return count


def write_slowly(pieces, seconds):
    """Write pieces to stdout with pauses between them."""
    for piece in pieces:
        os.write(1, piece.encode())
        time.sleep(seconds)


def write_of_all_kinds(mark):
    """Write a mark in Python, by descriptor, and from a child process."""
    print(mark, end=" ", flush=True)
    os.write(1, mark.encode() + b" ")
    subprocess.run(["echo", mark], check=True)
    return mark


def write_later(mark, seconds):
    """Let a thread print when the call is over."""
    threading.Timer(seconds, print, [mark]).start()


def megabytes_of_lines(count):
    """Print so many megabytes as lines of 1000 characters."""
    text = ("z" * 999 + "\n") * 1000
    for _ in range(count):
        sys.stdout.write(text)
    return count
