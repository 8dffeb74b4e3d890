"""fastserve.gpu.torch on a simulated torch.cuda: the order of calls, whose memory is used, what is refused. No GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated_torch import UUID, SimulatedTorch

from fastserve import _core, errors
from fastserve.gpu.source import DeviceTensor, GraphLoad, LaneMemory
from fastserve.gpu.torch.device import TorchDevice
from fastserve.gpu.torch.graph_model import TorchGraphModel
from fastserve.gpu.torch.module_model import ModuleProgram
from fastserve.gpu.torch.open_model import open_model, open_with
from fastserve.worker.model import TensorSpec

torch = pytest.importorskip("torch")


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x):  # type: ignore[no-untyped-def]
        return {"y": x * self.weight, "turned": (x + 1).to(torch.bfloat16)}


class Drops(torch.nn.Module):
    def forward(self, x):  # type: ignore[no-untyped-def]
        return torch.nn.functional.dropout(x, 0.5, True)


def exported(folder: Path, module: Any) -> Path:
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(module, (torch.ones(2, 3),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, folder / "model.pt2")
    return folder


def load_of(path: Path | str, *, graphs: bool = True, uuid: str = UUID, **given: Any) -> GraphLoad:
    spec = _core.LoadSpec("m", 1, backend="pytorch_gpu", path=str(path), **given)
    return GraphLoad(spec, 0, uuid, "a GPU", 2, graphs, lambda _fraction, _text: None)


def memory(lane: int, *inputs: np.ndarray) -> LaneMemory:
    return LaneMemory(lane, 7 + lane, tuple(array.ctypes.data for array in inputs), (0, 0), 0)


def doubles(simulated: SimulatedTorch, module: Any, rows: int = 4) -> TorchGraphModel:
    """y = module(x), both FP32 [3] a row."""
    device = TorchDevice(simulated, 0, UUID)
    x, y = TensorSpec("x", "FP32", [-1, 3]), TensorSpec("y", "FP32", [-1, 3])
    return TorchGraphModel(device, ModuleProgram(simulated, module, device.device, [x], [y], rows), (1, rows))


def test_a_program_says_what_it_is_and_is_captured_on_the_lanes_stream(tmp_path: Path) -> None:
    simulated = SimulatedTorch(torch)
    model = open_with(simulated, load_of(exported(tmp_path, Scaled()), max_batch_rows=8))
    assert (model.max_batch_rows, model.buckets) == (8, (1, 2, 3, 4, 6, 8))
    assert [(t.name, t.datatype, t.shape) for t in (*model.inputs, *model.outputs)] == [
        ("x", "FP32", [-1, 3]),
        ("y", "FP32", [-1, 3]),
        ("turned", "BF16", [-1, 3]),
    ]
    assert model.properties["precision"] == "FP32"
    assert model.properties["format"] == "torch.export"
    assert (model.owns_inputs, model.owns_outputs, model.lane_scratch_bytes) == (False, True, 0)
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    lanes = [memory(0, x), memory(1, x.copy())]
    captured = [model.capture(lane, rows) for lane in lanes for rows in (8, 2)]
    # Warmed (and waited for) on the stream on which it is captured; one pool for each lane, shared by its sizes.
    assert simulated.calls == [
        *("synchronize stream7", "begin stream7 pool1 thread_local", "end stream7") * 2,
        *("synchronize stream8", "begin stream8 pool2 thread_local", "end stream8") * 2,
    ]
    assert len({one.graph for one in captured}) == 4
    assert len({one.outputs[0] for one in captured}) == 4, "outputs are kept: no two graphs share them"
    y = np.ctypeslib.as_array((ctypes.c_float * 24).from_address(captured[0].outputs[0]))
    assert y.tolist() == (x * [1, 2, 3]).ravel().tolist(), "the step read the lane's buffer"
    model.close()
    assert simulated.calls[-1] == "empty_cache"


def test_a_batch_without_a_graph(tmp_path: Path) -> None:
    simulated = SimulatedTorch(torch)
    model = open_with(simulated, load_of(exported(tmp_path, Scaled())))
    x = np.ones((5, 3), np.float32)
    given = DeviceTensor(x.ctypes.data, (5, 3), x.nbytes)
    y, turned = model.run(memory(0, x), 5, [given])
    assert (y.shape, y.bytes, turned.shape, turned.bytes) == ((5, 3), 60, (5, 3), 30)
    assert simulated.calls == [], "waits for nothing, captures nothing"


def test_what_cannot_be_captured_says_why_and_still_runs() -> None:
    simulated = SimulatedTorch(torch)

    class Looks(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            if simulated.cuda.capturing:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nAdvice.")
            return x * 2

    model = doubles(simulated, Looks())
    x = np.ones((4, 3), np.float32)
    simulated.cuda.captures_fail = True
    first, second = model.capture(memory(0, x), 4), model.capture(memory(0, x), 1)
    assert first.graph == 0
    assert first.why_not == (
        "PyTorch cannot capture 4 rows: CUDA error: operation not permitted when stream is capturing"
    )
    assert second.why_not == first.why_not, "the lane's other sizes are not tried"
    assert simulated.calls.count("end stream7") == 1, "the broken capture was ended"
    (y,) = model.run(memory(0, x), 4, [DeviceTensor(x.ctypes.data, (4, 3), 48)])
    assert y.shape == (4, 3)


def test_a_capture_that_breaks_at_its_end() -> None:
    simulated = SimulatedTorch(torch)
    simulated.cuda.captures_fail = True
    captured = doubles(simulated, torch.nn.Identity()).capture(memory(0, np.ones((4, 3), np.float32)), 4)
    assert (captured.graph, captured.outputs) == (0, ())
    assert "operation failed due to a previous error during capture" in captured.why_not


def test_random_numbers_are_refused_by_the_operation(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"draws random numbers \(aten\.dropout\.default\)"):
        open_with(SimulatedTorch(torch), load_of(exported(tmp_path, Drops())))
    model = open_with(SimulatedTorch(torch), load_of(tmp_path, graphs=False))
    assert model.max_batch_rows == 64, "without graphs torch draws as it should"


def test_random_numbers_that_no_walk_sees_show_in_the_warm_up() -> None:
    class Noise(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x + torch.rand_like(x)

    with pytest.raises(errors.InvalidArgument, match="it moved the GPU's generator"):
        doubles(SimulatedTorch(torch), Noise()).capture(memory(0, np.ones((4, 3), np.float32)), 4)


def test_dropout_in_training_mode_is_named() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.1))
    spec = [TensorSpec("x", "FP32", [-1, 3])]
    made = ModuleProgram(torch, module.train(), torch.device("cpu"), spec, spec, 4)
    assert made.draws_random_numbers() == "Dropout '1' in training mode"
    module.eval()
    assert made.draws_random_numbers() == ""


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (lambda x: x.double(), r'outputs\["y"\]\.datatype: got torch.float64, want FP32'),
        (lambda x: x[:1], r'outputs\["y"\]\.shape: got \[1, 3\], want \[4, 3\]'),
        (lambda x: (), "outputs: the module returned 0, want 1"),
    ],
)
def test_outputs_other_than_described(module: Any, text: str) -> None:
    class Wrong(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return module(x)

    with pytest.raises(errors.Internal, match=text):
        doubles(SimulatedTorch(torch), Wrong()).capture(memory(0, np.ones((4, 3), np.float32)), 4)


def test_outputs_are_made_dense() -> None:
    class Columns(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x.repeat(1, 2)[:, ::2]

    simulated = SimulatedTorch(torch)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    model = doubles(simulated, Columns())  # keeps what it ran
    (y,) = model.run(memory(0, x), 4, [DeviceTensor(x.ctypes.data, (4, 3), 48)])
    dense = np.ctypeslib.as_array((ctypes.c_float * 12).from_address(y.address))
    assert dense[:3].tolist() == [0, 2, 1]


def test_a_size_that_the_program_refuses_fails_the_load() -> None:
    class Pairs(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return x.view(-1, 2, 3).flip(1).view(-1, 3)

    model = doubles(SimulatedTorch(torch), Pairs())
    x = np.ones((4, 3), np.float32)
    assert model.capture(memory(0, x), 4).graph != 0
    with pytest.raises(errors.InvalidArgument, match="PyTorch, 1 rows: "):
        model.capture(memory(0, x), 1)


def test_free_dimensions_beside_the_rows_are_not_captured(tmp_path: Path) -> None:
    rows, wide = torch.export.Dim("rows", min=1, max=64), torch.export.Dim("wide", min=1, max=64)
    program = torch.export.export(
        torch.nn.ReLU(), (torch.ones(2, 3),), dynamic_shapes={"input": {0: rows, 1: wide}}
    )
    torch.export.save(program, tmp_path / "model.pt2")
    model = open_with(SimulatedTorch(torch), load_of(tmp_path))
    assert model.buckets == ()
    assert model.properties["not_captured"] == 'inputs["input"] has free dimensions [-1]'


@pytest.mark.parametrize("text", ["0", "1.5", "-1", "many", "nan"])
def test_a_wrong_memory_fraction_is_named(tmp_path: Path, text: str) -> None:
    load = load_of(tmp_path, parameters={"memory_fraction": text})
    with pytest.raises(
        errors.InvalidArgument, match=f'parameters\\["memory_fraction"\\]: got "{text}", want'
    ):
        open_with(SimulatedTorch(torch), load)


def test_a_memory_fraction_is_told_to_torch_before_it_loads(tmp_path: Path) -> None:
    simulated = SimulatedTorch(torch)
    load = load_of(exported(tmp_path, Scaled()), parameters={"memory_fraction": "0.5", "lanes": "3"})
    assert open_with(simulated, load).properties["memory_fraction"] == "0.5"
    assert simulated.calls == ["limit 0.5"]


def test_unknown_parameters_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match=r'parameters\["device"\]: is not known with KIND_GPU'):
        open_with(SimulatedTorch(torch), load_of(tmp_path, parameters={"device": "cuda"}))


def test_allowed_batch_sizes_end_with_the_largest(tmp_path: Path) -> None:
    folder = exported(tmp_path, Scaled())
    given = load_of(folder, max_batch_rows=16, allowed_rows=[4, 16])
    assert open_with(SimulatedTorch(torch), given).buckets == (4, 16)
    with pytest.raises(errors.InvalidArgument, match="the last one is 8, want 16"):
        open_with(SimulatedTorch(torch), load_of(folder, max_batch_rows=16, allowed_rows=[4, 8]))


def test_another_gpu_than_the_drivers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.FailedPrecondition, match="PyTorch's GPU 0 is 4567, the driver's is GPU-0123"):
        open_with(SimulatedTorch(torch, uuid="4567"), load_of(exported(tmp_path, Scaled())))


def test_without_a_gpu_the_message_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(errors.FailedPrecondition, match=r"KIND_GPU, but PyTorch .* sees no GPU"):
        open_model(load_of(exported(tmp_path, Scaled())))
