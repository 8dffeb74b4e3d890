"""TorchScript and torch.export on PyTorch; the models are written on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import request, spec_of, tensor, version_folder

from fastserve import errors
from fastserve.worker.model import WorkerModel, open_model

torch = pytest.importorskip("torch")
ONES = np.ones((2, 3), np.float32)


class Both(torch.nn.Module):
    def forward(self, x, y):  # type: ignore[no-untyped-def]
        return {"sum": x + y, "half": (x - y).to(torch.bfloat16)}


class Pair(torch.nn.Module):
    def forward(self, x, y):  # type: ignore[no-untyped-def]
        return x + y, x - y


class FromDict(torch.nn.Module):
    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"y": tensors["x"] * 2}


def opened(repository: Path, config: dict[str, Any] | None = None, **parameters: str) -> WorkerModel:
    return open_model(spec_of(repository, "pytorch", config, **parameters), None)


def script(repository: Path, module: Any) -> None:
    torch.jit.save(torch.jit.script(module), version_folder(repository) / "model.pt")


def export(repository: Path, module: Any, *, rows: bool = True) -> None:
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = (torch.ones(2, 3), torch.ones(2, 3))
    shapes = {"x": {0: batch}, "y": {0: batch}} if rows else None
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    torch.export.save(program, version_folder(repository) / "model.pt2")


def config_of(inputs: tuple[str, ...], outputs: tuple[str, ...], kind: str = "TYPE_FP32") -> dict[str, Any]:
    return {
        "max_batch_size": 8,
        "input": [tensor(name, "TYPE_FP32", 3) for name in inputs],
        "output": [tensor(name, kind, 3) for name in outputs],
    }


def test_an_exported_program_says_everything_itself(tmp_path: Path) -> None:
    export(tmp_path, Both())
    model = opened(tmp_path)
    described = model.describe()
    assert (described.max_batch_rows, described.platform) == (64, "pytorch_libtorch")
    assert [(t.name, t.datatype, t.shape) for t in (*described.inputs, *described.outputs)] == [
        ("x", "FP32", [-1, 3]),
        ("y", "FP32", [-1, 3]),
        ("sum", "FP32", [-1, 3]),
        ("half", "BF16", [-1, 3]),
    ]
    one, two = model.execute([request(x=ONES, y=ONES), request(x=ONES[:1], y=ONES[:1] * 2)])
    assert one.outputs["sum"].tolist() == [[2] * 3] * 2
    assert two.outputs["half"].tolist() == [[-1] * 3]
    assert two.outputs["half"].dtype == np.float32, "BF16 travels as float32"


def test_an_exported_tuple_is_numbered_and_can_be_renamed(tmp_path: Path) -> None:
    export(tmp_path, Pair())
    assert [t.name for t in opened(tmp_path).describe().outputs] == ["output_0", "output_1"]
    model = opened(tmp_path, config_of(("INPUT__1", "INPUT__0"), ("OUTPUT__1",)))
    (answer,) = model.execute([request(INPUT__0=ONES, INPUT__1=ONES * 3)])
    assert {name: array[0, 0] for name, array in answer.outputs.items()} == {"OUTPUT__1": -2}


def test_a_program_of_fixed_rows_is_not_batched(tmp_path: Path) -> None:
    export(tmp_path, Pair(), rows=False)
    described = opened(tmp_path).describe()
    assert (described.max_batch_rows, described.inputs[0].shape) == (0, [2, 3])
    assert "without a free dimension" in described.properties["batching"]


@pytest.mark.parametrize(
    ("module", "inputs", "outputs", "want"),
    [
        (Pair(), ("INPUT__0", "INPUT__1"), ("OUTPUT__0", "OUTPUT__1"), [4, -2]),
        (Pair(), ("b__1", "a__0"), ("z__1", "q__0"), [-2 + 4, 4]),  # by the numbers, whatever the order
        (Pair(), ("y", "x"), ("first", "second"), [4, 2]),  # by the arguments' names
    ],
)
def test_torchscript_by_position_and_by_name(
    tmp_path: Path, module: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], want: list[int]
) -> None:
    script(tmp_path, module)
    model = opened(tmp_path, config_of(inputs, outputs))
    first, second = inputs
    (answer,) = model.execute([request(**{first: ONES, second: ONES * 3})])
    assert [int(answer.outputs[name][0, 0]) for name in outputs] == want


def test_torchscript_with_dicts(tmp_path: Path) -> None:
    script(tmp_path, FromDict())
    (answer,) = opened(tmp_path, config_of(("x",), ("y",))).execute([request(x=ONES)])
    assert answer.outputs["y"].tolist() == (ONES * 2).tolist()
    model = opened(tmp_path, config_of(("x",), ("z",)))
    with pytest.raises(errors.Internal, match='the model returned "y"'):
        model.execute([request(x=ONES)])


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "config.input: is missing: a TorchScript file does not say its tensors"),
        (config_of(("x",), ("y",)), 'forward\'s "y" is missing'),
        (config_of(("INPUT__0", "INPUT__2"), ("y",)), "want names that end in __0 to __1, each once"),
        (config_of(("a", "b", "c"), ("y",)), "got 3 inputs, forward takes 2"),
    ],
)
def test_torchscript_needs_a_fitting_configuration(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    script(tmp_path, Pair())
    with pytest.raises(errors.InvalidArgument) as refused:
        opened(tmp_path, config)
    assert text in str(refused.value)


@pytest.mark.slow  # the compiler takes a minute
def test_an_aotinductor_package(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=1024)
    shapes = {"x": {0: batch}, "y": {0: batch}}
    program = torch.export.export(Both(), (torch.ones(2, 3), torch.ones(2, 3)), dynamic_shapes=shapes)
    target = str(version_folder(tmp_path) / "model.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=target)
    with pytest.raises(errors.InvalidArgument, match="an AOTInductor package does not say its tensors"):
        opened(tmp_path)
    with pytest.raises(errors.InvalidArgument, match="got 1 inputs, the package takes 2"):
        opened(tmp_path, config_of(("x",), ("sum",)))
    model = opened(tmp_path, config_of(("INPUT__1", "INPUT__0"), ("sum",)))
    assert model.describe().properties["format"] == "AOTInductor"
    (answer,) = model.execute([request(INPUT__0=ONES, INPUT__1=ONES * 3)])
    assert answer.outputs["sum"].tolist() == [[4] * 3] * 2


def test_outputs_of_another_type_than_configured(tmp_path: Path) -> None:
    script(tmp_path, Pair())
    model = opened(tmp_path, config_of(("x", "y"), ("s", "d"), "TYPE_INT64"))
    with pytest.raises(errors.Internal, match=r'outputs\["s"\]\.datatype: got FP32, want INT64'):
        model.execute([request(x=ONES, y=ONES)])


def test_a_failure_inside_the_program(tmp_path: Path) -> None:
    script(tmp_path, Pair())
    model = opened(tmp_path, config_of(("x", "y"), ("s", "d")))
    with pytest.raises(errors.Internal, match="PyTorch: "):
        model.execute([request(x=ONES, y=np.ones((2, 2), np.float32))])


def test_a_plain_pickle_is_not_loaded(tmp_path: Path) -> None:
    flag = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (flag,))

    for name in ("model.pt", "model.pt2"):
        path = version_folder(tmp_path) / name
        torch.save(Evil(), path)
        with pytest.raises(errors.InvalidArgument, match=r"is no (TorchScript|torch\.export) file"):
            opened(tmp_path)
        path.unlink()
    assert not flag.exists()


@pytest.mark.parametrize(("name", "value"), [("device", "tpu"), ("devise", "cpu")])
def test_wrong_parameters_are_named(tmp_path: Path, name: str, value: str) -> None:
    script(tmp_path, Pair())
    with pytest.raises(errors.InvalidArgument) as refused:
        opened(tmp_path, config_of(("x", "y"), ("s", "d")), **{name: value})
    assert f'parameters["{name}"]' in str(refused.value)
