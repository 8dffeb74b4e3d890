"""Weights of ONNX files that cannot be what they say: found before a backend loads them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastserve import errors
from fastserve.lifecycle import onnx_weights

BYTES = 16  # of the weight: 4 floats


def model(**entries: str | None) -> Any:
    """y = k * x, where k lies in weights.bin. `entries`: of external_data; None: left out."""
    from onnx import TensorProto, helper

    weight = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin"} | entries).items():
        if value is not None:
            weight.external_data.add(key=key, value=value)
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "k"], ["y"])], "g", shapes[:1], shapes[1:])
    graph.initializer.append(weight)
    return helper.make_model(graph)


def check(folder: Path, made: Any, name: str = "model.onnx") -> None:
    (folder / name).write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    if not (folder / "weights.bin").exists():
        (folder / "weights.bin").write_bytes(bytes(BYTES + 4))
    onnx_weights.check(folder / name)


@pytest.mark.parametrize("offset", ["0", "4", None])
@pytest.mark.parametrize("length", [str(BYTES), None])
def test_what_fits_is_taken(tmp_path: Path, offset: str | None, length: str | None) -> None:
    check(tmp_path, model(offset=offset, length=length))
    onnx_weights.check(tmp_path)  # a version's folder


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"length": "-16"}, "weights 'k': external_data.length: got '-16', want 0 or more bytes"),
        ({"offset": "-4"}, "weights 'k': external_data.offset: got '-4', want 0 or more bytes"),
        ({"length": "1e3"}, "external_data.length: got '1e3'"),
        ({"length": str(1 << 63)}, "external_data.length: got '9223372036854775808'"),
        ({"length": "12"}, "external_data.length: got 12, want 16, which its dims and data_type make"),
        ({"offset": "5"}, "got offset 5 and 16 bytes, 'weights.bin' has 20"),
        ({"offset": "21"}, "got offset 21, 'weights.bin' has 20 bytes"),
        ({"offset": "5", "length": "16"}, "got offset 5 and length 16, 'weights.bin' has 20 bytes"),
        ({"location": None}, "external_data.location: got '', want a file of the model's folder"),
        ({"location": "/etc/passwd"}, "want a file of the model's folder"),
        ({"location": "../weights.bin"}, "want a file of the model's folder"),
        ({"location": "gone.bin"}, "got 'gone.bin', which cannot be read: No such file or directory"),
    ],
)
def test_what_does_not_is_named(tmp_path: Path, entries: dict[str, str | None], words: str) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        check(tmp_path, model(**entries))
    assert words in refused.value.message


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(errors.InvalidArgument, match="is not a regular file"):
        check(tmp_path, model())


def negative(made: Any) -> Any:
    made.graph.initializer[0].dims[0] = -4
    return made


def inside_of_a_branch(made: Any) -> Any:
    from onnx import helper

    branch = made.graph.__class__()
    branch.CopyFrom(made.graph)
    del made.graph.initializer[:]
    made.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch))
    return made


def unpacked_by_hand(made: Any) -> bytes:
    """One dimension a field, as other writers do it."""
    minus_four = bytes([0x08]) + bytes([0xFC] + [0xFF] * 8 + [0x01])
    tensor = minus_four + b"\x10\x01" + b"\x42\x01k"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    return b"\x3a" + bytes([len(graph)]) + graph


@pytest.mark.parametrize("how", [negative, lambda made: inside_of_a_branch(negative(made)), unpacked_by_hand])
def test_a_negative_dimension(tmp_path: Path, how: Callable[[Any], Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"weights 'k': dims\[0\]: got -4, want 0 or more"):
        check(tmp_path, how(model()))


@pytest.mark.parametrize("content", [b"", b"this is no ONNX file", bytes(4096), b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_onnx_is_the_backends_to_say(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)
    onnx_weights.check(tmp_path / "gone.onnx")
    onnx_weights.check(tmp_path / "weights.bin")


def test_any_cut_of_a_model_ends(tmp_path: Path) -> None:
    whole = model(length="16").SerializeToString()
    for at in range(len(whole)):
        with contextlib.suppress(errors.InvalidArgument):
            check(tmp_path, whole[:at])


def test_large_data_is_skipped(tmp_path: Path) -> None:
    made = model()
    weight = made.graph.initializer[0]
    weight.ClearField("external_data")
    weight.data_location = 0
    weight.raw_data = bytes(8 << 20)
    check(tmp_path, made)
    made.graph.initializer.append(negative(model()).graph.initializer[0])
    with pytest.raises(errors.InvalidArgument, match="got -4"):
        check(tmp_path, made)
