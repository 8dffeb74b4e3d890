"""Batch by batch, on simulated TensorRT: outputs of unknown size, shape tensors, free dimensions. No GPU is involved."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import pytest
from tests.support.simulated_tensorrt import network, plan, ranged, tensor

from fastserve import errors
from fastserve.gpu.source import DeviceTensor, LaneMemory

if TYPE_CHECKING:
    from tests.python.gpu.tensorrt.conftest import Bench


def memory(*outputs: int) -> LaneMemory:
    return LaneMemory(0, stream=7, inputs=(256,), outputs=outputs or (512,), scratch=1024)


def test_a_prepared_size_goes_into_the_lanes_buffers(bench: Bench) -> None:
    model = bench.open(plan(network()))
    for _ in range(2):
        assert model.run(memory(), 2, [DeviceTensor(256, (2, 4), 32)]) == ()
    assert sum("create_execution_context" in call for call in bench.trt.calls) == 2, "one is kept, one looked"
    assert bench.driver.blocks == {}


def free_dims() -> bytes:
    profiles = [ranged([1, 1], [8, 16]), ranged([1, 17], [8, 64])]
    return plan(network(inputs=[tensor("x", [-1, -1])], outputs=[tensor("y", [-1, -1])], profiles=profiles))


def test_free_dimensions_choose_their_profile_and_get_memory_that_grows(bench: Bench) -> None:
    model = bench.open(free_dims())
    assert (model.buckets, model.max_batch_rows) == ((), 8)
    assert model.lane_scratch_bytes == 200
    (first,) = model.run(memory(0), 3, [DeviceTensor(256, (3, 5), 60)])
    assert (first.shape, first.bytes) == ((3, 5), 60)
    (again,) = model.run(memory(0), 1, [DeviceTensor(256, (1, 5), 20)])
    assert (again.address, again.shape) == (first.address, (1, 5))
    (larger,) = model.run(memory(0), 3, [DeviceTensor(256, (3, 60), 720)])
    assert (larger.shape, len(bench.driver.blocks)) == ((3, 60), 1)
    assert {context.profile for context in model._lanes[0].runner._contexts.values()} == {0, 1}
    model.close()
    assert bench.driver.blocks == {}


def test_a_shape_that_no_profile_takes_is_the_clients_fault(bench: Bench) -> None:
    model = bench.open(free_dims())
    with pytest.raises(
        errors.InvalidArgument,
        match=r'inputs\["x"\].shape: got \[3, 65\], want what .* \[1, 1\] to \[8, 16\]',
    ):
        model.run(memory(0), 3, [DeviceTensor(256, (3, 65), 780)])


def unknown_size() -> bytes:
    return plan(
        network(inputs=[tensor("x", [2, 4])], outputs=[tensor("y", [-1, -1], unknown=True)], profiles=[])
    )


def test_an_output_of_unknown_size_comes_from_an_allocator(bench: Bench) -> None:
    model = bench.open(unknown_size())
    assert [t.shape for t in model.outputs] == [[2, -1]]
    (given,) = model.run(memory(0), 2, [DeviceTensor(256, (2, 4), 32)])
    assert (given.shape, given.bytes) == ((2, 3), 24)
    assert given.address in bench.driver.blocks


def test_no_memory_for_it_is_said_as_such(bench: Bench) -> None:
    model = bench.open(unknown_size())
    bench.driver.full = True
    with pytest.raises(errors.ResourceExhausted, match="cuMemAlloc"):
        model.run(memory(0), 2, [DeviceTensor(256, (2, 4), 32)])
    bench.driver.full = False
    assert model.run(memory(0), 2, [DeviceTensor(256, (2, 4), 32)])


def test_a_shape_tensor_is_read_on_the_host(bench: Bench) -> None:
    ports = [tensor("x", [2, 4]), tensor("size", [2], "INT64", of_shapes=True, on_host=True)]
    model = bench.open(plan(network(inputs=ports, outputs=[tensor("y", [2, 4])], profiles=[])))
    assert model.max_batch_rows == 0
    on_device = (ctypes.c_int64 * 2)(5, 6)
    given = [DeviceTensor(256, (2, 4), 32), DeviceTensor(ctypes.addressof(on_device), (2,), 16)]
    assert model.run(memory(), 1, given) == ()
    (context,) = model._lanes[0].runner._contexts.values()
    assert context.addresses["size"] != ctypes.addressof(on_device)
    assert list((ctypes.c_int64 * 2).from_address(context.addresses["size"])) == [5, 6]


def test_a_batch_that_fails_is_an_error_of_the_batch_alone(bench: Bench) -> None:
    model = bench.open(plan(network()))
    bench.trt.failing = {"IExecutionContext.execute_async_v3"}
    with pytest.raises(errors.Internal, match=r"running 2 rows: IExecutionContext.execute_async_v3 failed"):
        model.run(memory(), 2, [DeviceTensor(256, (2, 4), 32)])
    bench.trt.failing = set()
    assert model.run(memory(), 2, [DeviceTensor(256, (2, 4), 32)]) == ()
