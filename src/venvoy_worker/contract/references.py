"""How a proxy among arguments finds its object: what bodies name for it.

A host sends a proxy as `restore_object(handle)`; handles are never the same in two workers. Owns the function that
knows the objects of this process, set by `runtime.objects` once there are any.
"""

from __future__ import annotations

from .codec import CodecError

SPECIALS = frozenset(
    [
        *(
            "__abs__",
            "__add__",
            "__aenter__",
            "__aexit__",
            "__aiter__",
            "__and__",
            "__anext__",
            "__await__",
            "__bool__",
        ),
        *("__bytes__", "__call__", "__ceil__", "__complex__", "__contains__", "__delitem__", "__divmod__", "__enter__"),
        *("__exit__", "__float__", "__floor__", "__floordiv__", "__fspath__", "__getitem__", "__hash__", "__iadd__"),
        *("__iand__", "__ifloordiv__", "__ilshift__", "__imatmul__", "__imod__", "__imul__", "__index__"),
        *("__instancecheck__", "__int__", "__invert__", "__ior__", "__ipow__", "__irshift__", "__isub__", "__iter__"),
        *("__itruediv__", "__ixor__", "__len__", "__length_hint__", "__lshift__", "__matmul__", "__mod__", "__mul__"),
        *("__neg__", "__next__", "__or__", "__pos__", "__pow__", "__radd__", "__rand__", "__rdivmod__", "__reversed__"),
        *("__rfloordiv__", "__rlshift__", "__rmatmul__", "__rmod__", "__rmul__", "__ror__", "__round__", "__rpow__"),
        *("__rrshift__", "__rshift__", "__rsub__", "__rtruediv__", "__rxor__", "__setitem__", "__sub__"),
        *("__subclasscheck__", "__truediv__", "__trunc__", "__xor__"),
    ]
)  # what a proxy's class has if the object's has it; comparison, text and attributes each proxy has
OF_CALLABLES = frozenset(
    ["__call__", "__hash__", "__instancecheck__", "__or__", "__ror__", "__subclasscheck__"]
)  # what functions and classes have at most: such an attribute need not be fetched before it is called

_find: Find | None = None


def serve(find: Find) -> None:
    """Have `find` look up the objects of this process.

    Args:
        find: takes a handle and returns the pair (object, anything); raises KeyError.
    """
    global _find
    _find = find


def restore_object(handle: int) -> object:
    """Return the object that a proxy among the arguments stands for.

    Raises:
        CodecError: it does not live in this process.
    """
    try:
        if _find is not None:
            return _find(handle)[0]
    except KeyError:
        pass
    raise CodecError(
        "the arguments hold a proxy of an object that does not live in this worker; "
        "pass it to calls on its own worker only, or a copy of the object: venvoy.value(proxy)"
    )


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Tuple

    Find = Callable[[int], Tuple[Any, Any]]
