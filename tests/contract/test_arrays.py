"""Numpy arrays and scalars: what every numpy understands comes out of them, and the same array out of that."""

from __future__ import annotations

import copyreg
import pickle
import pickletools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from venvoy_worker.contract import arrays, codec

Array = Any


def travel(value: object, **options: Any) -> Any:
    """Encode a value, and decode it from fresh buffers as a receiver would."""
    pieces, buffers = codec.encode(value)
    return codec.decode(b"".join(pieces), [bytearray(buffer) for buffer in buffers], **options)


def only_ours(module: str, name: str) -> object:
    """Allow the functions of the contract and the standard library, nothing of numpy's."""
    if module not in ("venvoy_worker.contract.arrays", "builtins", "datetime"):
        raise codec.CodecError(f"a foreign name: {module}.{name}")
    return codec.import_global(module, name)


def assert_same(result: Array, array: Array) -> None:
    assert type(result) is np.ndarray
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    assert result.tobytes() == array.tobytes()


PLAIN = ["?", "i1", "u8", "<i4", ">i4", ">f8", "f2", "g", "c8", ">c16", "S5", "U3", ">U3", "V7", "M8[ns]", ">m8[25s]"]
RECORDS = [
    np.dtype([("a", "i1"), ("b", ">f8")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype([("a", [("x", ">i2"), ("y", "M8[us]")]), ("b", "S3")]),
    np.dtype([("matrix", "f4", (2, 3)), ("tail", "?")]),
    np.dtype([("rows", [("x", "i2", (2,))], (3,))]),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]}),
    np.dtype({"names": ["a", "b"], "formats": ["i4", "u1"], "offsets": [0, 1], "itemsize": 40}),
    np.dtype([(("a title", "a"), "i4"), ("b", "f8")]),
    np.dtype([("a", "i4")], metadata={"unit": "m"}),
    np.dtype([("ü name", "i4"), ("", "f4")]),
]
DTYPES = [np.dtype(name) for name in PLAIN] + RECORDS


def sample(dtype: Any, shape: tuple[int, ...]) -> Array:
    """Return an array of the dtype whose bytes differ, ASCII so that text stays text."""
    size = dtype.itemsize * int(np.prod(shape, dtype=int))
    numbers = np.arange(size, dtype="u1") % 2 if dtype.kind in "?U" else np.arange(size, dtype="u1") % 100 + 20
    if dtype.kind == "U":
        return np.full(shape, "aé", dtype)
    return numbers.view(dtype).reshape(shape) if size else np.empty(shape, dtype)


SHAPES = [(), (0,), (3,), (2, 0, 3), (4, 5), (40, 50)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_of_every_kind_survive(dtype: Any) -> None:
    """Dtype with byte order, fields and offsets, shape and contents; small inside the body, large beside it."""
    arrays = [sample(dtype, shape) for shape in SHAPES]
    for array, result in zip(arrays, travel(arrays, find_class=only_ours), strict=True):
        assert_same(result, array)
        assert result.dtype.names == dtype.names


@pytest.mark.parametrize("dtype", RECORDS, ids=str)
def test_fields_keep_their_places(dtype: Any) -> None:
    """Names, offsets, titles and size of a record are those it had."""
    result = travel(np.zeros(3, dtype)).dtype
    assert dict(result.fields) == dict(dtype.fields)
    assert result.itemsize == dtype.itemsize


LAYOUTS = {
    "fortran": np.asfortranarray,
    "transposed": lambda a: a.T,
    "reversed": lambda a: a[::-1],
    "both reversed": lambda a: a[::-1, ::-1],
    "strided": lambda a: a[::2, 1::3],
    "column": lambda a: a[:, 2],
    "broadcast": lambda a: np.broadcast_to(a[0], (7, a.shape[1])),
    "inner": lambda a: np.ascontiguousarray(a)[None, :, None, :],
    "unaligned": lambda a: np.frombuffer(b"x" + a.tobytes(), "u1")[1:].view(a.dtype).reshape(a.shape),
    "overlapping": lambda a: np.lib.stride_tricks.sliding_window_view(a, 3, axis=0),
}


@pytest.mark.parametrize("side", [6, 60])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_survive(layout: str, side: int) -> None:
    """Whatever way an array lies in memory, its elements arrive in their places, writable."""
    array = LAYOUTS[layout](np.arange(side * side, dtype=">i4").reshape(side, side))
    result = travel(array, find_class=only_ours)
    assert_same(result, array)
    assert result.flags.writeable
    result[...] = -1
    assert array.flat[0] != -1


@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("size", [1, 10, 100])
def test_the_order_is_kept(make: Any, size: int) -> None:
    """A Fortran array is one on the other side too, as linear algebra libraries expect."""
    result = travel(make(np.ones((size, 2 * size))))
    assert result.flags.f_contiguous == make(np.ones((size, 2 * size))).flags.f_contiguous


@pytest.mark.parametrize("make", [np.ascontiguousarray, np.asfortranarray])
def test_contiguous_arrays_are_not_copied(make: Any) -> None:
    """What is sent is the memory of the array, and what is received becomes the memory of the result."""
    array = make(np.arange(10_000.0).reshape(100, 100))
    pieces, (buffer,) = codec.encode(array)
    assert np.shares_memory(np.frombuffer(buffer, "u1"), array)
    received = bytearray(buffer)
    result = codec.decode(b"".join(pieces), [received])
    received[:8] = np.float64(-5).tobytes()
    assert result[0, 0] == -5  # type: ignore[index]


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(st.one_of(hnp.scalar_dtypes(), hnp.nested_dtypes()), hnp.array_shapes(min_dims=0, max_side=4)), st.data()
)
def test_any_array_survives(array: Array, data: st.DataObject) -> None:
    """Arrays of arbitrary dtypes and shapes, and arbitrary views of them."""
    if array.ndim:
        array = array[data.draw(hnp.basic_indices(array.shape, allow_ellipsis=False))]
    if isinstance(array, np.ndarray):
        assert_same(travel(array, find_class=only_ours), np.asarray(array))


def test_an_array_twice_in_a_value_is_one() -> None:
    """Identity inside a value is kept."""
    array = np.arange(3000)
    first, second = travel([array, array])
    assert first is second


def test_inline_encoding_carries_arrays() -> None:
    """Where there is no buffer table the array is in the body, and writable afterwards."""
    result: Any = codec.decode(codec.encode_inline(np.arange(5000)), [], only_ours)
    result += 1
    assert result[-1] == 5000


# --- objects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0, 2), (4,), (2, 2)], ids=str)
def test_arrays_of_objects_survive(shape: tuple[int, ...]) -> None:
    """Each element is the value it was, containers and arrays included."""
    items = [{"a": 1}, [1, 2], None, np.arange(3)]
    array = np.empty(int(np.prod(shape, dtype=int)), object)
    for index in range(array.size):
        array[index] = items[index]
    array = array.reshape(shape)
    result = travel(array, find_class=only_ours)
    assert (result.dtype, result.shape) == (np.dtype(object), shape)
    for item, expected in zip(result.ravel(), items, strict=False):
        assert type(item) is type(expected)
        assert repr(item) == repr(expected)


def test_records_of_objects_survive() -> None:
    """Records with object fields, nested and in sub-arrays, and one of them."""
    kind = np.dtype([("number", "i4"), ("what", object), ("more", [("deep", object, (2,))])])
    array = np.array([(1, {"a": 2}, ([3, "x"],)), (2, None, ([[], ()],))], kind)
    result = travel(array, find_class=only_ours)
    assert result.dtype == array.dtype
    assert repr(result.tolist()) == repr(array.tolist())
    assert repr(travel(array[0], find_class=only_ours)) == repr(array[0])


def test_an_array_that_holds_itself_is_refused() -> None:
    """A cycle through an array is an error of that value, not a crash."""
    array = np.empty(1, object)
    array[0] = array
    with pytest.raises(codec.CodecError, match="nested too deeply"):
        codec.encode(array)


# --- scalars ------------------------------------------------------------------------------------------------------

SCALARS = [
    np.bool_(True),
    np.int8(-3),
    np.uint64(2**64 - 1),
    np.longlong(5),
    np.float16(1.5),
    np.float64("inf"),
    np.longdouble(1) / 3,
    np.complex64(1j),
    np.clongdouble(1j) / 3,
    np.datetime64("2024-02-29T12:00", "25s"),
    np.datetime64("NaT", "us"),
    np.timedelta64(7, "D"),
    np.void(b"abc"),
    np.str_("é"),
    np.str_(""),
    np.str_("nul\0"),
    np.bytes_(b"x"),
    np.bytes_(b""),
    np.bytes_(b"nul\0"),
]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_scalars_survive(scalar: Any) -> None:
    """Numpy scalars keep their class, precision and every byte."""
    result = travel(scalar, find_class=only_ours)
    assert result.dtype == scalar.dtype
    assert result.tobytes() == scalar.tobytes()
    assert type(result) is type(scalar) or result.dtype.kind in "iu"  # long long is another name of int64


@pytest.mark.parametrize("scalar", [np.str_("text"), np.bytes_(b"bytes")], ids=repr)
def test_text_scalars_keep_their_value(scalar: Any) -> None:
    """They are equal to what they were, as str and bytes."""
    assert travel(scalar) == scalar


def test_record_scalars_survive() -> None:
    """One record of an array of records."""
    record = np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])[0]
    result = travel(record, find_class=only_ours)
    assert result == record
    assert result.dtype == record.dtype


@pytest.mark.parametrize("value", [np.dtype("f8"), np.float32, np.dtype([("a", "i4")])], ids=str)
def test_dtypes_themselves_survive(value: object) -> None:
    """A dtype or scalar class as a value is itself."""
    assert travel(value) == value


MASKED = {
    "masked": lambda: np.ma.array([[1, 2], [3, 4]], mask=[[0, 1], [0, 0]], fill_value=9),
    "no mask": lambda: np.ma.array([1, 2]),
    "hard mask": lambda: np.ma.array([1.5, 2], mask=True, hard_mask=True),
    "large": lambda: np.ma.masked_less(np.arange(5000), 50),
    "records": lambda: np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", "i4"), ("b", "f8")]),
    "big-endian": lambda: np.ma.array([1, 2], mask=[0, 1], dtype=">i4"),
    "shape ()": lambda: np.ma.array(5, mask=True),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked_arrays_survive(name: str) -> None:
    """Data below the mask, the mask or that there is none, the fill value and whether the mask is hard."""
    array = MASKED[name]()
    result = travel(array, find_class=only_ours)
    assert type(result) is np.ma.MaskedArray
    assert_same(result.data, array.data)
    assert (result.mask is np.ma.nomask) == (array.mask is np.ma.nomask)
    assert np.array_equal(result.mask, array.mask)
    assert result.fill_value == array.fill_value
    assert result.hardmask == array.hardmask


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.rec.array([(1, 2.0)], names="a,b"),
        lambda: np.asmatrix([[1, 2]]),
        lambda: np.char.array(["a", "bc"]),
    ],
    ids=["recarray", "matrix", "chararray"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_numpys_own_subclasses_survive(make: Any) -> None:
    """As what they are, without naming numpy's modules."""
    value = make()
    result = travel(value, find_class=only_ours)
    assert type(result) is type(value)
    assert result.dtype == value.dtype
    assert result.tolist() == value.tolist()


class Labelled(np.ndarray[Any, Any]):
    """A subclass of somebody's."""


def test_subclasses_of_others_use_their_own_form() -> None:
    """They carry state of their own, which only their own reduction knows."""
    value = np.arange(3).view(Labelled)
    assert type(travel(value)) is Labelled


def test_memory_maps_are_arrays(tmp_path: Any) -> None:
    """A file of the sender's is not the receiver's."""
    value = np.memmap(tmp_path / "map", dtype="i4", shape=(3,), mode="w+")
    value[:] = [1, 2, 3]
    assert_same(travel(value, find_class=only_ours), np.array([1, 2, 3], "i4"))


@pytest.mark.skipif(not hasattr(np, "dtypes"), reason="numpy 2 has variable-width strings")
def test_variable_width_strings_survive() -> None:
    """As that; in numpy 1 they would be objects."""
    array = np.array([["a"], ["bc"]], dtype=np.dtypes.StringDType())
    result = travel(array, find_class=only_ours)
    assert result.dtype == array.dtype
    assert result.tolist() == array.tolist()


def test_an_array_of_objects_cannot_be_made_of_bytes() -> None:
    """Bytes that would be taken for addresses are refused."""
    for dtype in ("O", {"names": ["a"], "formats": ["O"], "offsets": [0], "itemsize": 8}):
        with pytest.raises(ValueError, match="objects"):
            arrays.restore_array(dtype, (1,), "C", bytes(8))


def test_nothing_is_read_that_was_not_sent() -> None:
    """An array that claims more elements than it brings is zeros, not what lay in memory."""
    assert not np.asarray(arrays.restore_array("<i8", (100,), "C", b"")).any()
    with pytest.raises(ValueError, match="reshape"):
        arrays.restore_array("<i8", (100,), "C", bytes(8))


# --- what is on the wire ------------------------------------------------------------------------------------------


def test_the_body_of_an_array_names_one_function() -> None:
    """Nothing of numpy's modules, which differ between its versions, is in the body."""
    pieces, _ = codec.encode({"a": np.arange(3), "b": np.float32(1), "c": np.array(["x", None], object)})
    texts = {arg for _, arg, _ in pickletools.genops(b"".join(pieces)) if isinstance(arg, str)}
    assert not [text for text in texts if "numpy" in text]
    assert "venvoy_worker.contract.arrays" in texts


def test_ordinary_pickles_of_arrays_are_understood() -> None:
    """What a library pickled by itself inside a value decodes as numpy means it."""
    assert pickle.loads(travel(pickle.dumps(np.arange(3)))).tolist() == [0, 1, 2]


# --- copyreg ------------------------------------------------------------------------------------------------------


class Stubborn:
    """A class that only a registered reducer can pickle."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce_ex__(self, protocol: object) -> str | tuple[Any, ...]:
        raise TypeError("ask copyreg")


@pytest.fixture
def registered() -> Iterator[None]:
    """`Stubborn` has a reducer, registered after arrays were encoded."""
    travel(np.arange(3))
    copyreg.pickle(Stubborn, lambda value: (Stubborn, (value.number,)))
    yield
    copyreg.dispatch_table.pop(Stubborn)


@pytest.mark.usefixtures("registered")
def test_reducers_registered_at_any_time_count() -> None:
    """`copyreg.pickle` works as in any program, also beside numpy."""
    assert travel([Stubborn(7)])[0].number == 7
    assert codec.decode(codec.encode_inline(Stubborn(8)), []).number == 8  # type: ignore[attr-defined]


def test_a_file_of_the_users_named_numpy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of an attribute that it lacks."""
    mine = ModuleType("numpy")
    mine.__file__ = "/app/numpy.py"
    monkeypatch.setitem(sys.modules, "numpy", mine)
    with pytest.raises(ImportError, match=r"/app/numpy\.py here, which is not the library"):
        arrays.restore_array("<i8", (1,), "C", bytes(8))
