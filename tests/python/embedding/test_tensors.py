"""What goes in and comes out: numpy and DLPack, copies or none, arrays of the caller."""

from __future__ import annotations

import gc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from fastserve import Engine, InvalidArgument, Tensor

WIDE = 4096  # floats in a row: large enough for a view


def load(
    engine: Engine, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 4), rows: int = 8, name: str = "m"
) -> None:
    engine.load(
        name,
        backend="identity",
        max_batch_rows=rows,
        inputs=[Tensor("x", datatype, shape)],
        outputs=[Tensor("y", datatype, shape)],
    )


def copied(engine: Engine) -> int:
    return int(engine.core.statistics("m", 1).copied_bytes)


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("BOOL", np.bool_),
        ("UINT8", np.uint8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("UINT64", np.uint64),
        ("FP16", np.float16),
        ("FP32", np.float32),
        ("FP64", np.float64),
    ],
)
def test_every_dtype_by_numpy_and_by_torch(datatype: str, dtype: Any) -> None:
    with Engine() as engine:
        load(engine, datatype)
        x = np.array([[0, 1, 0, 1], [1, 1, 0, 0]], dtype)
        for given in (x, torch.from_numpy(x.copy())):
            y = engine.infer("m", {"x": given})["y"]
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, x)


def test_bf16_comes_from_torch_and_ml_dtypes_and_goes_as_float32() -> None:
    with Engine() as engine:
        load(engine, "BF16")
        values = np.array([[1.5, -2, 0, 256]], np.float32)
        for given in (torch.from_numpy(values).bfloat16(), values.astype(ml_dtypes.bfloat16)):
            y = engine.infer("m", {"x": given})["y"]
            assert y.dtype == np.float32
            np.testing.assert_array_equal(y, values)
        out = torch.zeros((1, 4), dtype=torch.bfloat16)
        assert engine.infer("m", {"x": given}, outputs={"y": out})["y"] is out
        assert out.tolist() == values.tolist()


def test_strings() -> None:
    with Engine() as engine:
        load(engine, "BYTES", (-1, 2))
        y = engine.infer("m", {"x": np.array([["a", b"\xff"], ["", "ü"]], object)})["y"]
        assert y.tolist() == [[b"a", b"\xff"], [b"", "ü".encode()]]
        with pytest.raises(InvalidArgument, match=r'inputs\["x"\]: got an element of type int'):
            engine.infer("m", {"x": np.array([["a", 1]], object)})


@pytest.mark.parametrize("contiguous", [True, False])
def test_torch_is_read_in_place_or_copied_once(contiguous: bool) -> None:
    with Engine() as engine:
        load(engine)
        x = torch.arange(8, dtype=torch.float32).reshape(4, 2).t()
        given = x.contiguous() if contiguous else x
        assert given.is_contiguous() == contiguous
        np.testing.assert_array_equal(engine.infer("m", {"x": given})["y"], x.numpy())


def test_views_of_numpy_with_gaps_and_other_byte_orders_are_copied() -> None:
    with Engine() as engine:
        load(engine)
        x = np.arange(32, dtype=np.float32).reshape(4, 8)
        for given in (x[:, ::2], x[:, ::2].astype(">f4"), np.asfortranarray(x[:, :4])):
            np.testing.assert_array_equal(engine.infer("m", {"x": given})["y"], np.asarray(given, np.float32))


@pytest.mark.parametrize("given", [[[1.0, 2, 3, 4]], 3.0, np.float32(3), "text", b"abcd", None, {"a": 1}])
def test_what_is_no_array_is_refused(engine: Engine, given: Any) -> None:
    with pytest.raises(InvalidArgument, match=r'inputs\["x"\]: got \S+, want a numpy array or a tensor'):
        engine.infer("echo", {"x": given})


class OnDevice:
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __dlpack__(self) -> object:
        raise AssertionError("must not be asked")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((1, 4), np.complex64), r'inputs\["x"\].dtype: got complex64, which no OIP datatype'),
        (torch.zeros((1, 4), dtype=torch.complex64), r'inputs\["x"\].dtype: got DLPack code 5 with 64 bits'),
        (torch.zeros((1, 4), requires_grad=True), r'inputs\["x"\]: BufferError: .*grad'),
        (OnDevice(), r'inputs\["x"\]: got a tensor on a device of DLPack type 2, want one in CPU memory'),
        (np.zeros((1,) * 17, np.float32), r'inputs\["x"\].shape: got rank 17, want 16 or fewer'),
        (torch.zeros((1,) * 17), r'inputs\["x"\].shape: got rank 17, want 16 or fewer'),
    ],
)
def test_arrays_that_cannot_be_read_are_refused(engine: Engine, given: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        engine.infer("echo", {"x": given})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timeout": -1}, "timeout: got -1"),
        ({"timeout": "soon"}, "timeout: got str"),
        ({"version": "one"}, "model_version: want a whole number or a label of model 'echo'"),
        ({"version": 1.5}, "version: got float"),
        ({"priority": -1}, "priority: got int"),
        ({"outputs": "y"}, "outputs: got str, want a sequence"),
        ({"outputs": ["z"]}, "unexpected inference output 'z'"),
        ({"outputs": [3]}, "outputs: got int, want a str"),
        ({"request_id": 5}, "request_id: got int, want a str"),
    ],
)
def test_other_arguments_are_checked(engine: Engine, arguments: dict[str, Any], words: str) -> None:
    x = {"x": np.zeros((1, 4), np.float32)}
    with pytest.raises(InvalidArgument, match=words):
        engine.infer("echo", x, **arguments)


def test_large_answers_are_views_that_keep_their_batch(engine: Engine) -> None:
    load(engine, shape=(-1, WIDE))
    x = np.random.default_rng(0).random((2, WIDE), np.float32)
    y = engine.infer("m", {"x": x})["y"]
    assert not y.flags.owndata
    assert y.flags.writeable
    assert y.flags.c_contiguous
    assert y.flags.aligned
    part = y[1]
    again = [engine.infer("m", {"x": x + i})["y"] for i in range(4)]  # other batches
    del y
    engine.close()
    gc.collect()
    np.testing.assert_array_equal(part, x[1])
    np.testing.assert_array_equal(again[3], x + 3)


def test_a_view_keeps_no_more_than_eight_times_its_size(engine: Engine) -> None:
    """A row of a batch of many is copied: it would keep all the others."""
    engine.load(
        "m",
        backend="identity",
        max_batch_rows=32,
        inputs=[Tensor("x", "FP32", (-1, WIDE))],
        outputs=[Tensor("y", "FP32", (-1, WIDE))],
        max_queue_delay_us=200_000,
        preferred_batch_sizes=[32],
    )
    x = np.ones((1, WIDE), np.float32)
    futures = [engine.submit("m", {"x": x * i}) for i in range(32)]
    answers = [future.result(10)["y"] for future in futures]
    assert engine.core.statistics("m", 1).execution_count == 1
    assert all(answer.flags.owndata for answer in answers)
    assert [answer[0, 0] for answer in answers] == list(range(32))


def test_torch_takes_answers_without_a_copy(engine: Engine) -> None:
    load(engine, shape=(-1, WIDE))
    y = engine.infer("m", {"x": np.zeros((1, WIDE), np.float32)})["y"]
    tensor = torch.from_dlpack(y)
    assert tensor.data_ptr() == y.ctypes.data
    tensor[0, 0] = 5
    assert y[0, 0] == 5
    del y
    assert tensor[0, 0] == 5


def test_cached_answers_are_the_callers_own() -> None:
    with Engine(response_cache_bytes=1 << 20) as engine:
        engine.load(
            "m",
            backend="identity",
            max_batch_rows=8,
            inputs=[Tensor("x", "FP32", (-1, WIDE))],
            outputs=[Tensor("y", "FP32", (-1, WIDE))],
            response_cache=True,
        )
        x = {"x": np.zeros((1, WIDE), np.float32)}
        for _ in range(3):
            y = engine.infer("m", x)["y"]
            assert y[0, 0] == 0
            y[0, 0] = 9


def test_answers_go_into_arrays_of_the_caller(engine: Engine) -> None:
    load(engine, shape=(-1, WIDE))
    x = np.random.default_rng(0).random((2, WIDE), np.float32)
    for out in (np.zeros_like(x), torch.zeros(x.shape)):
        assert engine.infer("m", {"x": x}, outputs={"y": out})["y"] is out
        np.testing.assert_array_equal(np.asarray(out), x)
    assert copied(engine) == 0, "a request that fills its batch is bound, and the backend writes to the array"


def test_a_request_that_shares_its_batch_is_copied_once(engine: Engine) -> None:
    engine.load(
        "m",
        backend="identity",
        max_batch_rows=2,
        inputs=[Tensor("x", "FP32", (-1, 4))],
        outputs=[Tensor("y", "FP32", (-1, 4))],
        max_queue_delay_us=500_000,
        preferred_batch_sizes=[2],
    )
    outs = [np.zeros((1, 4), np.float32) for _ in range(2)]
    futures = [
        engine.submit("m", {"x": np.full((1, 4), i, np.float32)}, outputs={"y": outs[i]}) for i in range(2)
    ]
    assert [future.result(10)["y"] is out for future, out in zip(futures, outs, strict=True)] == [True, True]
    assert [out[0, 0] for out in outs] == [0, 1]


def read_only() -> np.ndarray:
    array = np.zeros((1, 4), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "words"),
    [
        (read_only(), r'outputs\["y"\]: got a read-only array'),
        (np.zeros((1, 8), np.float32)[:, ::2], r'outputs\["y"\]: got an array that is not C-contiguous'),
        (torch.zeros((4, 1)).t()[:, ::2], r'outputs\["y"\]: got a tensor that is not contiguous'),
        (np.zeros((1, 4), ">f4"), r'outputs\["y"\]: got a big-endian array'),
        (np.zeros((1, 4), np.float64), r'outputs\["y"\].dtype: got float64, want float32'),
        (np.zeros((1, 4), object), r'outputs\["y"\].dtype: got object, which cannot be written to in place'),
        (np.zeros((1, 5), np.float32), r'outputs\["y"\].shape\[1\]: got 5, want 4'),
        (np.zeros((2, 4), np.float32), r'outputs\["y"\].shape\[0\]: got 2, want 1'),
        (np.zeros(4, np.float32), r'outputs\["y"\].shape: got \[4\], want \[-1,4\]'),
        ([0.0] * 4, r'outputs\["y"\]: got list, want a numpy array'),
    ],
)
def test_arrays_that_cannot_take_the_answer_are_refused(engine: Engine, out: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        engine.infer("echo", {"x": np.ones((1, 4), np.float32)}, outputs={"y": out})


def test_an_unknown_output_is_named(engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match="unexpected inference output 'z'"):
        engine.infer("echo", {"x": np.ones((1, 4), np.float32)}, outputs={"z": np.zeros((1, 4), np.float32)})


def test_an_array_of_another_size_than_a_free_dimension_turns_out(engine: Engine) -> None:
    load(engine, shape=(-1, -1))
    x = np.ones((1, 6), np.float32)
    small, large = np.zeros((1, 4), np.float32), np.zeros((1, 9), np.float32)
    with pytest.raises(
        InvalidArgument, match=r'outputs\["y"\]: got an array of 16 bytes, and the answer is larger'
    ):
        engine.infer("m", {"x": x}, outputs={"y": small})
    with pytest.raises(
        InvalidArgument, match=r'outputs\["y"\].shape: got \[1,9\], and the answer is \[1,6\]'
    ):
        engine.infer("m", {"x": x}, outputs={"y": large})


def test_arrays_are_let_go(engine: Engine) -> None:
    import sys

    x, out = np.ones((1, 4), np.float32), np.zeros((1, 4), np.float32)
    before = sys.getrefcount(x), sys.getrefcount(out)
    for _ in range(10):
        engine.infer("echo", {"x": x}, outputs={"y": out})
        engine.submit("echo", {"x": x}, outputs={"y": out}).result(5)
        with pytest.raises(InvalidArgument):
            engine.infer("echo", {"x": x, "z": x})
    gc.collect()
    assert (sys.getrefcount(x), sys.getrefcount(out)) == before
