from __future__ import annotations

import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.client import Input
from fastserve.client import tensors as t
from fastserve.errors import InvalidArgument


def one(value: Any) -> t.WireTensor:
    return t.wire_tensors({"x": value})[0]


@pytest.mark.parametrize("datatype", t.DTYPES)
def test_fixed_sizes_there_and_back(datatype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(t.DTYPES[datatype])
    tensor = one(array)
    assert (tensor.datatype, tensor.shape) == (datatype, [2, 3])
    raw = tensor.raw()
    assert bytes(raw) == array.tobytes()
    back = t.from_bytes(datatype, [2, 3], raw)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    assert not t.from_bytes(datatype, [2, 3], bytes(raw)).flags.writeable


def test_contiguous_arrays_are_not_copied() -> None:
    array = np.zeros((2, 3), np.float32)
    array_bytes = np.frombuffer(one(array).raw(), np.float32)
    assert np.shares_memory(array_bytes, array)


@pytest.mark.parametrize("array", [np.arange(6, dtype=">i4"), np.arange(12, dtype=np.int32)[::2]])
def test_other_layouts_are_made_right(array: Any) -> None:
    tensor = one(array)
    assert (tensor.datatype, bytes(tensor.raw())) == ("INT32", array.astype("<i4").tobytes())


def test_empty_and_scalar() -> None:
    assert bytes(one(np.zeros((0, 4), np.float32)).raw()) == b""
    assert one(np.float32(2)).shape == []
    assert t.from_bytes("FP32", [0, 4], b"").shape == (0, 4)


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "é"]], object),
        np.array([[b"a", "é".encode()]], object),
        np.array([["a", "é"]]),
        np.array([[b"a", "é".encode()]]),
    ],
)
def test_strings(array: Any) -> None:
    tensor = one(array)
    assert (tensor.datatype, tensor.shape) == ("BYTES", [1, 2])
    assert tensor.raw() == b"\x01\x00\x00\x00a\x02\x00\x00\x00\xc3\xa9"
    assert t.from_bytes("BYTES", [1, 2], tensor.raw()).tolist() == [[b"a", "é".encode()]]


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_any_strings(elements: list[bytes]) -> None:
    array = np.empty(len(elements), object)
    array[:] = elements
    assert t.from_bytes("BYTES", [len(elements)], t.to_bytes("BYTES", array)).tolist() == elements


@pytest.mark.parametrize("data", [b"\x05", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00a\x00\x00"])
def test_broken_strings(data: bytes) -> None:
    with pytest.raises(ValueError, match="ends inside"):
        t.from_bytes("BYTES", [1], data)


BF16_BITS = {
    1.0: 0x3F80,
    -2.0: 0xC000,
    1.00390625: 0x3F80,
    1.01171875: 0x3F82,
    float("inf"): 0x7F80,
    3.4e38: 0x7F80,
}


@pytest.mark.parametrize(("value", "bits"), BF16_BITS.items())
def test_bf16_rounds_to_nearest_even_as_ml_dtypes_does(value: float, bits: int) -> None:
    array = np.array([value], np.float32)
    tensor = one(Input(array, "BF16"))
    assert int.from_bytes(bytes(tensor.raw()), "little") == bits
    with np.errstate(over="ignore"):
        assert array.astype(ml_dtypes.bfloat16).view(np.uint16)[0] == bits


def test_bf16_nan_stays_one() -> None:
    raw = one(Input(np.array([np.nan, -np.nan], np.float32), "BF16")).raw()
    assert np.isnan(np.frombuffer(raw, ml_dtypes.bfloat16).astype(np.float32)).all()


def test_bf16_dtype_and_bits() -> None:
    array = np.array([1.5, -3], ml_dtypes.bfloat16)
    assert one(array).datatype == "BF16"
    assert bytes(one(array).raw()) == bytes(one(Input(array.view(np.uint16), "BF16")).raw())
    back = t.from_bytes("BF16", [2], one(array).raw())
    assert back.dtype == ml_dtypes.bfloat16
    assert back.tolist() == [1.5, -3]


def test_bf16_without_ml_dtypes_is_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    t.bfloat16.cache_clear()
    try:
        assert t.from_bytes("BF16", [1], b"\x80\x3f").tolist() == [0x3F80]
        assert t.from_values("BF16", [1], [1.0]).tolist() == [0x3F80]
        assert one(np.zeros(1, np.float32)).datatype == "FP32"
    finally:
        t.bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros(2, np.complex64), 'inputs["x"]: got dtype complex64'),
        (np.array(["2020-01-01"], "datetime64[D]"), 'inputs["x"]: got dtype datetime64'),
        (Input(np.zeros(2, np.float32), "FP64"), 'inputs["x"]: got dtype float32, expected that of FP64'),
        (Input(np.zeros(2, np.float32), "FP31"), 'inputs["x"].datatype: got "FP31"'),
    ],
)
def test_what_has_no_datatype(value: Any, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        one(value)
    assert words in caught.value.message
    assert caught.value.field.startswith('inputs["x"]')


@pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL", "UINT8"])
def test_json_flat_and_nested(datatype: str) -> None:
    array = np.arange(4).reshape(2, 2).astype(t.DTYPES[datatype])
    assert np.array_equal(t.from_values(datatype, [2, 2], t.to_values(one(array))), array)
    assert np.array_equal(t.from_values(datatype, [2, 2], array.tolist()), array)


def test_json_strings() -> None:
    tensor = one(np.array([["a"], ["é"]], object))
    assert t.to_values(tensor) == ["a", "é"]
    assert t.from_values("BYTES", [2, 1], [["a"], ["é"]]).tolist() == [[b"a"], ["é".encode()]]


@pytest.mark.parametrize(
    "array", [np.zeros(1, np.float16), np.zeros(1, ml_dtypes.bfloat16), np.array([b"\xff"], object)]
)
def test_what_json_cannot_carry(array: Any) -> None:
    with pytest.raises(InvalidArgument, match="binary_tensor_data"):
        t.to_values(one(array))


@pytest.mark.parametrize(("datatype", "data"), [("FP32", b"abc"), ("FP32", b"12345678"), ("FP31", b"")])
def test_an_answer_that_does_not_fit(datatype: str, data: bytes) -> None:
    with pytest.raises(ValueError):
        t.from_bytes(datatype, [1], data)
