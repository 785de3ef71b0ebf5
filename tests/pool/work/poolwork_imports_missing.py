"""A module whose import fails because of another one."""

import a_module_nobody_has  # noqa: F401


def f():
    pass
