"""User code that logs; runs on Python 3.8, and imports logging only when it is called."""

import os
import threading
import time


def write(name, level, text, *args, **kwargs):
    import logging

    logging.getLogger(name).log(level, text, *args, **kwargs)


def write_to_root(text):
    """Log with the function that configures logging when nobody has."""
    import logging

    logging.warning(text)


def configure(how):
    """Set up logging in one of the ways that programs use."""
    import logging
    import logging.config

    if how == "basicConfig":
        logging.basicConfig(format="own %(message)s", level=logging.DEBUG)
    elif how == "basicConfig by force":
        logging.basicConfig(format="own %(message)s", level=logging.DEBUG, force=True)
    elif how == "dictConfig":
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"plain": {"format": "own %(message)s"}},
                "handlers": {"plain": {"class": "logging.StreamHandler", "formatter": "plain"}},
                "root": {"handlers": ["plain"], "level": "DEBUG"},
            }
        )
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("own %(message)s"))
        logging.getLogger().handlers = [handler]
        logging.getLogger().setLevel(logging.DEBUG)


def fail():
    """Log an exception with its traceback, and the stack."""
    import logging

    try:
        raise ValueError("of the user")
    except ValueError:
        logging.getLogger("diary").exception("it failed", extra={"page": 12, "thing": object()}, stack_info=True)


def write_wrongly():
    """Log with arguments that do not fit, and one that cannot be shown."""
    import logging

    class Odd:
        def __str__(self):
            raise RuntimeError("no text")

    logging.getLogger("diary").warning("%d apples", "many")
    logging.getLogger("diary").warning("odd %s", Odd())


def keep_to_itself(text):
    """Log to a logger that does not propagate."""
    import logging

    logger = logging.getLogger("private")
    logger.propagate = False
    logger.handlers[:] = [logging.StreamHandler()]
    logger.error(text)


def in_a_fork(text):
    """Log in a forked process."""
    import logging

    child = os.fork()
    if child == 0:
        logging.getLogger("diary").warning(text)
        os._exit(0)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1])


def in_a_thread(text):
    """Log in a thread with a name."""
    import logging

    thread = threading.Thread(target=logging.getLogger("diary").warning, args=[text], name="scribe")
    thread.start()
    thread.join()


def write_much(count, size=100):
    """Log many records as fast as possible; return the longest time one took."""
    import logging

    longest, text = 0.0, "x" * size
    for number in range(count):
        begin = time.perf_counter()
        logging.getLogger("diary").warning("%d %s", number, text)
        longest = max(longest, time.perf_counter() - begin)
    return longest


def write_for_ever():
    """Log until the call is cancelled."""
    import logging

    while True:
        logging.getLogger("diary").warning("again")


def write_and_die(text):
    import logging

    logging.getLogger("diary").error(text)
    os._exit(3)


def handlers():
    """Return whether a program would think that logging is not set up yet, and how `logging` looks."""
    import logging

    loader = type(logging.__spec__.loader).__name__
    return loader, logging.__loader__ is logging.__spec__.loader, logging.getLogger().level
