"""What the workers of these tests run; importable by CPython 3.8 and later."""

import os
import threading
import time

STATE = {}


def pid():
    return os.getpid()


def pid_for(_):
    return os.getpid()


def leak(size):
    """Keep memory for good; return the resident bytes of this process."""
    STATE.setdefault("leak", []).append(b"x" * size)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def succeed_at(path, attempt):
    """Raise OSError until this is the attempt of that number."""
    touch(path)
    with open(path) as file:
        number = len(file.readlines())
    if number < attempt:
        raise OSError("attempt " + str(number))
    return number


def nap_and_touch(seconds, path):
    time.sleep(seconds)
    touch(path)


def raise_then_pid(is_to_raise):
    if is_to_raise:
        raise ValueError(os.getpid())
    return os.getpid()


def capture(*args, **kwargs):
    return args, kwargs


def double(x):
    return x * 2


def touch(path):
    with open(path, "a") as file:
        file.write(str(os.getpid()) + "\n")


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def spin(seconds):
    """Be busy in Python code."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def stubborn(seconds, path=None):
    """Ignore every wish to stop, as code that catches everything does."""
    if path:
        touch(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


def wait_for(path, seconds=20.0, then=None):
    """Wait until a file exists: the other half of a meeting."""
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.002)
    return then


def begin_and_wait_for(began, path, seconds=20.0, then=None):
    touch(began)
    return wait_for(path, seconds, then)


def meet(folder, name, count, seconds=20.0):
    """Wait until so many have come."""
    touch(os.path.join(folder, name))
    end = time.monotonic() + seconds
    while len(os.listdir(folder)) < count:
        if time.monotonic() > end:
            raise TimeoutError(folder)
        time.sleep(0.002)


def fail(message="as asked"):
    raise ValueError(message)


def fail_with_timeout():
    raise TimeoutError("the user's own")


def die(status=9):
    os._exit(status)


def signal_self(number):
    os.kill(os.getpid(), number)
    time.sleep(20)  # a signal of one's own may come a little later


def die_once(path):
    """End the worker the first time, succeed the second."""
    if os.path.exists(path):
        return os.getpid()
    touch(path)
    os._exit(7)


def fails_on(item, bad):
    if item == bad:
        raise KeyError(item)
    return item


def with_timeout_name(timeout):
    return timeout


def unpicklable():
    return threading.Lock()


def leave_a_fork_and_die():
    """Die, and leave a process that holds all descriptors, since Python was not asked before the fork."""
    import ctypes

    libc = ctypes.CDLL(None)
    if not libc.fork():
        libc.setsid()
        libc.alarm(30)
        libc.pause()
    os.kill(os.getpid(), 9)


def size_of(data, reply=0):
    return len(data), b"r" * reply


def remember(key, value):
    STATE[key] = value


def recall(key):
    return STATE.get(key)


def imports_what_is_missing():
    import a_module_nobody_has  # noqa: F401


def reads_what_is_missing():
    return os.an_attribute_nobody_has


def out(text):
    print(text, flush=True)


call = map = name = options = timeout = capture


class Counter:
    """An instance that travels by value."""

    def __init__(self, start):
        self.start = start

    def add(self, n):
        return self.start + n

    @classmethod
    def make(cls, start):
        return cls(start).start

    @staticmethod
    def plain(x):
        return x + 1

    @property
    def broken(self):
        return self.no_such_attribute


counter = Counter(5)
not_callable = 5
