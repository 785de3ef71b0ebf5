"""Large values, made and taken in workers of any version, without numpy."""

import os
import signal
import time

kept = []


def make(size, fill=1):
    """Return memory of a size, filled with a byte, that travels out of band, as arrays do."""
    return memoryview(bytearray(bytes([fill]) * size))


def echo(value):
    """Return a value."""
    return value


def echo_all(items):
    """Return what an iterator gives."""
    return list(items)


def look(value):
    """Return length, first and last byte."""
    return len(value), value[0], value[-1]


def keep(value):
    """Keep a value for good."""
    kept.append(value)


def look_at_kept():
    """Return the first byte of each value that was kept."""
    return [value[0] for value in kept]


def scribble(value):
    """Write into what was received."""
    value[0] = 255
    return value[0]


def fork_with(value, path, seconds):
    """Fork a process that looks at the value later, writes into it, and leaves what it saw in a file."""
    if os.fork() == 0:
        time.sleep(seconds)
        seen = bytes(value[:1]) + bytes(value[-1:])
        value[0] = 9
        with open(path + ".part", "wb") as file:
            file.write(seen)
        os.rename(path + ".part", path)
        os._exit(0)
    return value[0]


def die_then_echo(value, marker):
    """Die the first time, return the value the second time."""
    if not os.path.exists(marker):
        with open(marker, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def limit_files(size):
    """Have the system refuse files, and so segments, beyond a size."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def set_item(array, place, value):
    """Write into an array."""
    array[place] = value
    return array


def set_item_of_answer(callback, place, value):
    """Write into an array that a function of the host's returns."""
    set_item(callback(), place, value)


def set_item_and_die(array, place, value):
    """Write into an array, and end this worker."""
    array[place] = value
    os._exit(1)


def segments():
    """Return how many mappings and descriptors of segments this worker has."""
    with open("/proc/self/maps") as maps:
        mapped = sum("/memfd:venvoy (" in line for line in maps)
    opened = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            opened += "/memfd:venvoy (" in os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass
    return mapped, opened


def lent():
    """Return how many segments this worker has lent to the host."""
    from venvoy_worker.runtime import lent

    return sum(segment.tag is not None for segment in lent._loans.lender._segments)


def stream(count, size):
    """Yield memory, again and again."""
    for index in range(count):
        yield make(size, index)


def ask(callback, size):
    """Hand memory to a function of the host."""
    return callback(make(size, 5))


def look_at_answers(callback, count):
    """Ask a function of the host's again and again, and return the first byte of each answer."""
    return [callback(index)[0] for index in range(count)]


def yield_in_turn(array, count):
    """Yield parts of a shared array, each written to before."""
    for index in range(count):
        array[index] = index
        yield array[index:]
