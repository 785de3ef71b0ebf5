"""How values travel, as far as users have a say in it: `register`, `Record`, and `callback` for functions that stay."""

from collections.abc import Callable
from typing import Any

from venvoy_worker.contract.host_functions import Callback
from venvoy_worker.contract.records import Record
from venvoy_worker.contract.reducers import register

__all__ = ["Record", "callback", "register"]


def callback(function: Callable[..., Any]) -> Callback:
    """Return an argument for a call that the called code can call: the function runs here, while the call runs.

    It runs in the thread that waits for the call, and for `submit` and `map` on a thread of the pool's. Its arguments,
    result and exceptions travel as those of calls do. It may call the pool.

    Raises:
        TypeError: it is no function.

    Examples:
        >>> with vv.Pool() as pool:
        ...     pool.call("builtins:sorted", ["ccc", "a", "bb"], key=vv.callback(len))
        ['a', 'bb', 'ccc']
    """
    return Callback(function)
