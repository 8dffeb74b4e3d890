"""Plans on simulated TensorRT: signature, contexts, captures, and what forbids them. No GPU is involved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.simulated_tensorrt import module, network, plan, ranged, tensor

from fastserve import errors
from fastserve.gpu.source import DeviceTensor, LaneMemory

if TYPE_CHECKING:
    from tests.python.gpu.tensorrt.conftest import Bench

Called = Callable[[str], int]


def memory(lane: int = 0) -> LaneMemory:
    return LaneMemory(lane, stream=7 + lane, inputs=(256,), outputs=(512,), scratch=1024 * (lane + 1))


def test_the_signature_is_the_plans(bench: Bench) -> None:
    model = bench.open(plan(network()))
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, t.shape) for t in model.outputs] == [("y", "FP32", [-1, 4])]
    assert (model.max_batch_rows, model.buckets, model.platform) == (8, (1, 2, 8), "tensorrt_plan")
    assert (model.lane_scratch_bytes, model.weights_bytes) == (300, 1000)
    assert model.properties["runtime"] == "TensorRT 11.4.0.106"
    assert model.properties["plan"] == "built by TensorRT 11.4.0.106"


def test_one_context_for_each_lane_and_size_and_one_scratch_for_each_lane(
    bench: Bench, called: Called
) -> None:
    model = bench.open(plan(network()), lanes=2)
    before = called("create_execution_context")  # one that looked at shapes
    graphs = {model.capture(memory(lane), rows).graph for lane in (0, 1) for rows in (8, 2, 1)}
    assert len(graphs) == 6
    assert 0 not in graphs
    assert called("create_execution_context") - before == 6
    assert called("set_device_memory 300") == 6
    contexts = [context for lane in model._lanes.values() for context in lane.contexts]
    assert {context.memory[0] for context in contexts} == {1024, 2048}
    assert sorted(context.profile for context in contexts) == [0, 0, 1, 1, 2, 2]


def test_it_runs_once_before_the_capture_and_once_in_it(bench: Bench) -> None:
    model = bench.open(plan(network()))
    bench.trt.calls.clear()
    bench.driver.calls.clear()
    model.capture(memory(), 2)
    runs = [call for call in bench.trt.calls if "execute_async_v3" in call]
    assert runs == ["IExecutionContext.execute_async_v3 1", "IExecutionContext.execute_async_v3 2"]
    assert bench.driver.calls == ["synchronize", "synchronize", "begin_capture", "end_capture"]
    after = bench.trt.calls[bench.trt.calls.index(runs[0]) :]
    assert after == runs, "nothing of the context changes once it is warm"


def test_a_capture_that_fails_ends_and_leaves_the_other_way(bench: Bench) -> None:
    model = bench.open(plan(network()))
    bench.driver.captures = False
    captured = model.capture(memory(), 2)
    assert captured.graph == 0
    assert "capturing 2 rows" in captured.why_not
    assert bench.driver.calls[-1] == "end_capture"
    assert model.run(memory(), 2, [DeviceTensor(256, (2, 4), 32)]) == ()


def test_a_step_that_raises_within_the_capture_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bench.open(plan(network()))
    real = bench.trt.IExecutionContext.execute_async_v3

    def second_time(self: Any, stream: int) -> bool:
        if self.ran == 1:
            raise RuntimeError("no")
        return bool(real(self, stream))

    monkeypatch.setattr(bench.trt.IExecutionContext, "execute_async_v3", second_time)
    with pytest.raises(RuntimeError, match="no"):
        model.capture(memory(), 2)
    assert bench.driver.calls[-1] == "end_capture"


FORBIDDEN = {
    "a shape tensor": (
        network(
            inputs=[tensor("x", [2, 4]), tensor("size", [1], "INT64", of_shapes=True, on_host=True)],
            outputs=[tensor("y", [2, 4])],
            profiles=[],
        ),
        "'size' is a shape tensor",
    ),
    "streamed weights": (network(streamable=100, budget=99), "weight streaming"),
    "free dimensions": (
        network(
            inputs=[tensor("x", [-1, -1])], outputs=[tensor("y", [-1, -1])], profiles=[ranged([1, 1], [8, 9])]
        ),
        'inputs["x"] has free dimensions [-1, -1]',
    ),
    "a size that depends on the data": (
        network(inputs=[tensor("x", [2, 4])], outputs=[tensor("y", [-1, -1], unknown=True)], profiles=[]),
        "depends on the data",
    ),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_what_cannot_be_captured_says_why(bench: Bench, case: str) -> None:
    description, why = FORBIDDEN[case]
    model = bench.open(plan(description))
    captured = model.capture(memory(), 2)
    assert captured.graph == 0
    assert why in captured.why_not
    assert why in model.properties["not_captured"]
    assert "begin_capture" not in bench.driver.calls


def test_weights_that_all_stay_on_the_device_do_not_forbid_it(bench: Bench) -> None:
    model = bench.open(plan(network(streamable=100, budget=100)))
    assert model.capture(memory(), 2).graph


def test_streams_of_its_own_are_lent_and_go_at_the_end(bench: Bench, called: Called) -> None:
    model = bench.open(plan(network(aux=2)))
    bench.driver.calls.clear()
    model.capture(memory(), 2)
    assert called("set_aux_streams 2") == 1
    assert bench.driver.calls.count("new_stream") == 2
    model.close()
    assert bench.driver.calls.count("destroy_stream") == 2
    assert bench.driver.calls.count("destroy_graph") == 1
    model.close()
    assert bench.driver.calls.count("destroy_graph") == 1


@pytest.mark.parametrize(
    "call",
    [
        "create_execution_context",
        "set_optimization_profile_async",
        "set_input_shape",
        "set_tensor_address",
        "set_device_memory",
        "execute_async_v3",
    ],
)
def test_each_call_that_fails_is_an_error_in_tensorrts_words(bench: Bench, call: str) -> None:
    model = bench.open(plan(network()))
    bench.trt.failing = {f"IExecutionContext.{call}", f"ICudaEngine.{call}"}
    with pytest.raises(errors.FastserveError, match=rf"TensorRT 11.4.0.106: .*{call} failed$"):
        model.capture(memory(), 2)


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (tensor("x", [-1, 4], "FP8"), r'inputs\["x"\].datatype: the plan has FP8'),
        (tensor("x", [-1, 4], format="CHW32"), r'inputs\["x"\]: the plan wants the format CHW32'),
    ],
)
def test_tensors_that_no_request_can_carry_are_refused(bench: Bench, port: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.Unimplemented, match=text):
        bench.open(plan(network(inputs=[port])))


def test_an_output_in_an_inputs_memory_is_refused(bench: Bench) -> None:
    with pytest.raises(errors.Unimplemented, match=r'outputs\["y"\]: shares its memory with inputs\["x"\]'):
        bench.open(plan(network(outputs=[tensor("y", [-1, 4], alias="x")])))


def test_an_output_with_other_rows_than_the_inputs_is_refused(bench: Bench) -> None:
    """The engine calls them free; only the shapes for 8 rows say it."""
    text = r'max_batch_size: want 0: outputs\["y"\] has 16 rows when the inputs have 8'
    with pytest.raises(errors.InvalidArgument, match=text):
        bench.open(plan(network(outputs=[tensor("y", [-1, 4], twice=True)])))


def test_host_code_is_allowed_only_where_it_is_said(bench: Bench) -> None:
    bench.open(plan(network()))
    assert bench.trt.runtimes[-1].engine_host_code_allowed is False
    bench.open(plan(network()), parameters={"engine_host_code_allowed": "on"})
    assert bench.trt.runtimes[-1].engine_host_code_allowed is True


def test_rtx_is_asked_whether_it_can_be_captured(rtx: Bench) -> None:
    model = rtx.open(plan(network(), "1.7.1.116", b"vtrt"))
    assert model.capture(memory(), 8).graph
    rtx.trt.captures = False
    captured = model.capture(memory(), 2)
    assert captured.why_not == "TensorRT-RTX 1.7.1.116 says that 2 rows cannot be captured"


def test_rtx_keeps_what_it_compiled_for_the_next_start(rtx: Bench, called: Called) -> None:
    content = plan(network(), "1.7.1.116", b"vtrt")
    model = rtx.open(content, lanes=2)
    for lane in (0, 1):
        for rows in (8, 2, 1):
            assert called("IRuntimeCache.serialize") == 0
            model.capture(memory(lane), rows)
    assert called("IRuntimeCache.serialize") == 1
    assert called("IRuntimeCache.deserialize") == 0
    rtx.open(content)
    assert called("IRuntimeCache.deserialize 7") == 1


# --- plans that are refused


def test_garbage_is_refused_before_tensorrt_sees_it(bench: Bench) -> None:
    for content, text in [
        (b"not a plan at all, but long enough", "'model.plan' is no TensorRT plan: begins with 6e6f7420"),
        (plan(network())[:20], "'model.plan' is cut off: got 20 bytes"),
    ]:
        with pytest.raises(errors.InvalidArgument, match=text):
            bench.open(content)
    assert bench.trt.runtimes == []


def test_a_plan_that_is_cut_off_is_refused(bench: Bench, rtx: Bench) -> None:
    bench.use("tensorrt", module())
    with pytest.raises(
        errors.InvalidArgument, match=r"'model.plan' is refused by TensorRT 11.4.0.106: .*blobSize failed"
    ):
        bench.open(plan(network())[:-1])
    whole = plan(network(), "1.7.1.116", b"vtrt")
    with pytest.raises(
        errors.InvalidArgument, match=f"is cut off: got {len(whole) - 1} bytes, want {len(whole)}"
    ):
        rtx.open(whole[:-1])


def test_a_plan_of_another_version_says_which(bench: Bench) -> None:
    with pytest.raises(
        errors.FailedPrecondition,
        match=r"was built by TensorRT 10.3.0.26, want 11.4.0.106, which is here: .*Version tag",
    ):
        bench.open(plan(network(), "10.3.0.26"))


def test_a_plan_for_another_gpu_says_so(bench: Bench, rtx: Bench) -> None:
    bench.use("tensorrt", module())
    wrong = network(
        refused="The engine plan file is generated on an incompatible device, expecting compute 9.0 got 8.6"
    )
    with pytest.raises(
        errors.FailedPrecondition, match=r"for another GPU than this NVIDIA H200 \(9.0\): .*got 8.6"
    ):
        bench.open(plan(wrong))
    rtx.use("tensorrt_rtx", module("1.7.1.116", rtx=True))
    with pytest.raises(
        errors.FailedPrecondition, match=r"another GPU than this NVIDIA H200 \(9.0\) \(UNSUPPORTED_CC\)"
    ):
        rtx.open(plan(network(refused="no"), "1.7.1.116", b"vtrt"))


def test_a_plan_of_the_other_library_says_so(bench: Bench) -> None:
    with pytest.raises(
        errors.FailedPrecondition, match=r"was built by TensorRT-RTX 1\.7\.1\.116, and TensorRT 11\.4\.0\.106"
    ):
        bench.open(plan(network(), "1.7.1.116", b"vtrt"), parameters={"library": "tensorrt"})
