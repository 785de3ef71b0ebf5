"""Ways in which a call can fail. Python 3.8."""

import subprocess
import sys
import threading


class TwoArguments(Exception):
    def __init__(self, code, what):
        super().__init__("%s (%d)" % (what, code))
        self.number = code


class KeywordOnly(ValueError):
    def __init__(self, *, reason):
        super().__init__(reason)
        self.reason = reason


class MyKeyError(KeyError):
    pass


class MyOSError(OSError):
    pass


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Base(BaseException):
    pass


class WithState(LookupError):
    def __init__(self, text, state):
        super().__init__(text)
        self.state = state
        self.lock = threading.Lock()


def fail(name):
    KINDS[name]()


def builtin():
    raise ValueError("plain", 5)


def two_arguments():
    raise TwoArguments(5, "bad")


def keyword_only():
    raise KeywordOnly(reason="because")


def foreign_key():
    raise MyKeyError("k")


def foreign_os():
    raise MyOSError(2, "nope", "a file")


def chained():
    try:
        {}["missing"]
    except KeyError as error:
        raise MyKeyError("later") from error


def context():
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        raise RuntimeError("while handling")  # noqa: B904


def notes():
    error = ValueError("noted")
    error.__notes__ = ["first note", "second note"]
    raise error


def group():
    if sys.version_info < (3, 11):
        raise ValueError("no groups here")
    raise ExceptionGroup("several", [ValueError("a"), TwoArguments(1, "x")])  # noqa: F821


def own_group():
    if sys.version_info < (3, 11):
        raise ValueError("no groups here")
    raise type("OwnGroup", (ExceptionGroup,), {})("own", [KeyError("k")])  # noqa: F821


def leave():
    sys.exit(3)


def interrupt():
    raise KeyboardInterrupt


def generator_exit():
    raise GeneratorExit


def base():
    raise Base("all the way")


def recursion():
    def again():
        return again()

    again()


def lock_in_args():
    raise ValueError("locked", threading.Lock())


def silent():
    raise Silent


def with_state():
    raise WithState("lost", {"plain": 1})


def syntax():
    compile("a b", "some_file.py", "exec")


def missing_module():
    import no_such_module_here  # noqa: F401


def stop_iteration():
    next(iter(()))


def process():
    subprocess.run([sys.executable, "-c", "import sys; sys.exit(3)"], check=True)


def decode():
    b"\xff".decode()


def local_class():
    class Local(ArithmeticError):
        pass

    raise Local("here")


def nested_cause():
    try:
        two_arguments()
    except TwoArguments as error:
        raise ValueError("outer") from error


KINDS = {
    name: value for name, value in list(globals().items()) if callable(value) and name != "fail" and name[0].islower()
}
