"""From an ONNX file to a plan: its profiles, what its key names, and what is refused before any library sees it."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.python.gpu.tensorrt.conftest import H200, Bench
from tests.support.simulated_tensorrt import network
from tests.support.simulated_tensorrt import onnx as simulated_onnx

from fastserve import errors
from fastserve.gpu.tensorrt.build_profiles import Wanted, profiles
from fastserve.gpu.tensorrt.offline import look_at
from fastserve.gpu.tensorrt.onnx_file import external_files, hashes
from fastserve.gpu.tensorrt.onnx_plan import SCHEMA, Gpu, key_of
from fastserve.gpu.tensorrt.plan_cache import PlanCache
from fastserve.gpu.tensorrt.plan_file import read_header
from fastserve.gpu.tensorrt.settings import BuildSettings, read_settings

IMAGE = {"x": (-1, 3, 8, 8)}


# ---- profiles ----------------------------------------------------------------------------------------------------------


def static(*shape: int) -> tuple[tuple[int, ...], ...]:
    return shape, shape, shape


def test_one_static_profile_for_each_size() -> None:
    wanted = Wanted(max_batch_rows=6)
    assert profiles(IMAGE, wanted, BuildSettings()) == [{"x": static(n, 3, 8, 8)} for n in (1, 2, 4, 6)]
    wanted = Wanted(max_batch_rows=6, sizes=(2, 6))
    assert profiles(IMAGE, wanted, BuildSettings()) == [{"x": static(n, 3, 8, 8)} for n in (2, 6)]


def test_nothing_said_is_up_to_64_rows_and_nothing_free_is_no_profile() -> None:
    assert len(profiles(IMAGE, Wanted(), BuildSettings())) == 7
    assert profiles({"x": (4, 3)}, Wanted(), BuildSettings()) == []
    assert profiles({"x": (4, 3)}, Wanted(max_batch_rows=4), BuildSettings()) == []


def test_ranges_are_one_profile() -> None:
    settings = read_settings({"min_dims": "t:1", "max_dims": "t:64", "opt_dims": "t:16"}).build
    made = profiles({"t": (-1, -1)}, Wanted(max_batch_rows=4), settings)
    assert made == [{"t": ((1, 1), (4, 16), (4, 64))}]
    settings = read_settings({"min_dims": "t:1", "max_dims": "t:64"}).build
    assert profiles({"t": (-1, -1)}, Wanted(max_batch_rows=4), settings) == [
        {"t": ((1, 1), (4, 64), (4, 64))}
    ]


@pytest.mark.parametrize(
    ("inputs", "wanted", "given", "text"),
    [
        (IMAGE, Wanted(dims={"y": (1,)}), {}, 'inputs["y"]: the model has no such input, it has x'),
        (IMAGE, Wanted(dims={"x": (-1, 3)}), {}, 'inputs["x"].shape: got [-1, 3], want [-1, 3, 8, 8]'),
        (IMAGE, Wanted(dims={"x": (-1, 3, 8, 9)}), {}, 'inputs["x"].shape[3]: got 9, want 8 (the model)'),
        (IMAGE, Wanted(max_batch_rows=8, sizes=(1, 4)), {}, "allowed_batch_sizes: the last one is 4, want 8"),
        ({"x": (2, 3)}, Wanted(max_batch_rows=8), {}, 'max_batch_size: got 8, but inputs["x"] has 2 rows'),
        ({"x": (-1, -1)}, Wanted(), {}, 'inputs["x"].shape[1]: is free in the model'),
        (
            {"x": (-1, -1)},
            Wanted(),
            {"min_dims": "x:1", "max_dims": "x:2x3"},
            'parameters["max_dims"]: got [2, 3]',
        ),
        (
            {"x": (-1, -1)},
            Wanted(max_batch_rows=2, sizes=(2,)),
            {"min_dims": "x:1", "max_dims": "x:9"},
            "cannot be kept",
        ),
    ],
)
def test_what_cannot_be_is_named(
    inputs: dict[str, tuple[int, ...]], wanted: Wanted, given: dict[str, str], text: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        profiles(inputs, wanted, read_settings(given).build)
    assert text in refused.value.message


# ---- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad", "want"),
    [
        ("library", ["auto", "tensorrt", "tensorrt_rtx"], ["trt"], "one of auto, tensorrt, tensorrt_rtx"),
        ("precision", ["model", "fp16", "bf16"], ["fp8"], "one of model, fp16, bf16"),
        ("optimization_level", ["0", "5"], ["-1", "6", "x"], "a whole number from 0 to 5"),
        ("max_aux_streams", ["0", "8"], ["9", "1.5"], "a whole number from 0 to 8"),
        ("workspace_bytes", ["0", str(1 << 60)], [str((1 << 60) + 1)], "a whole number from 0"),
        ("plan_cache_bytes", ["0", str(1 << 60)], [str((1 << 60) + 1), ""], "a whole number from 0"),
        ("tf32", ["on", "off"], ["yes"], '"on" or "off"'),
        ("version_compatible", ["on", "off"], ["1"], '"on" or "off"'),
        ("engine_host_code_allowed", ["on", "off"], ["true"], '"on" or "off"'),
        ("plan_cache", ["auto", "none", "/plans"], ["plans"], '"auto", "none" or an absolute folder'),
        ("profiles", ["0", "0,2"], ["0,", "a"], "numbers such as 0,2"),
        ("max_dims", ["a:1", "a:1x2,b:c:3"], ["a", "a:0", "a:1x", ":1"], "dimensions such as"),
    ],
)
def test_each_parameter_at_its_edges(name: str, good: list[str], bad: list[str], want: str) -> None:
    for text in good:
        read_settings({name: text})
    for text in bad:
        with pytest.raises(errors.InvalidArgument) as refused:
            read_settings({name: text})
        assert f'parameters["{name}"]: got "{text}", want {want}' in refused.value.message


def test_an_unknown_parameter_is_refused_and_those_of_the_lane_are_known() -> None:
    read_settings({"lanes": "2", "graphs": "off"})
    with pytest.raises(
        errors.InvalidArgument, match='parameters\\["fp16"\\]: is not known to backend tensorrt'
    ):
        read_settings({"fp16": "on"})


# ---- keys --------------------------------------------------------------------------------------------------------------


def key(bench: Bench, **other: Any) -> str:
    given: dict[str, Any] = {
        "files": {"": "1"},
        "library": bench.library,
        "driver_version": 13_000,
        "gpu": H200,
        "wanted": Wanted(),
        "settings": BuildSettings(),
    }
    return key_of(**(given | other))


def test_the_key_names_everything_that_a_plan_depends_on(bench: Bench) -> None:
    from tests.support.simulated_tensorrt import module

    changed: list[dict[str, Any]] = [
        {},
        {"files": {"": "2"}},
        {"files": {"": "1", "weights": "3"}},
        {"driver_version": 12_000},
        {"gpu": Gpu("NVIDIA H100", "9.0", "GPU-1")},
        {"gpu": Gpu("NVIDIA H200", "9.1", "GPU-1")},
        {"gpu": Gpu("NVIDIA H200", "9.0", "MIG-1")},
        {"wanted": Wanted(max_batch_rows=4)},
        {"wanted": Wanted(sizes=(1,))},
        {"wanted": Wanted(dims={"x": (1,)})},
        {"library": bench.use("tensorrt", module("11.5.0.1"))},
        {"library": bench.use("tensorrt_rtx", module("11.4.0.106", rtx=True))},
    ]
    other: dict[str, Any] = {"min_dims": {"x": (1,)}, "opt_dims": {"x": (1,)}, "max_dims": {"x": (1,)}}
    other |= {"precision": "fp16", "hardware_compatibility": "ampere_plus"}
    for setting in dataclasses.fields(BuildSettings):
        value = getattr(BuildSettings(), setting.name)
        new = other.get(setting.name, not value if isinstance(value, bool) else 3)
        changed.append({"settings": dataclasses.replace(BuildSettings(), **{setting.name: new})})
    bench.use("tensorrt", module())
    keys = [key(bench, **one) for one in changed]
    assert len(set(keys)) == len(keys)
    assert key(bench) == keys[0], "and nothing else, such as the time"
    assert SCHEMA >= 1


def test_what_a_plan_does_not_depend_on_is_not_in_its_key(bench: Bench) -> None:
    assert key(bench, driver_version=13_010) == key(bench), "minor versions run each other's plans"
    assert key(bench, gpu=Gpu("NVIDIA H200", "9.0", "GPU-2")) == key(bench), "another one of the same"
    portable = dataclasses.replace(BuildSettings(), hardware_compatibility="ampere_plus")
    assert key(bench, gpu=Gpu("NVIDIA A100", "8.0", "GPU-3"), settings=portable) == key(
        bench, settings=portable
    )


def test_the_second_load_takes_it_from_the_cache(bench: Bench) -> None:
    content = simulated_onnx(network())
    first = bench.open(content, "model.onnx")
    assert "built in" in str(first.properties)
    second = bench.open(content, "model.onnx")
    assert "from the plan cache" in str(second.properties)
    third = bench.open(content, "model.onnx", parameters={"tf32": "off"})
    assert "built in" in str(third.properties)


def test_a_full_disk_only_costs_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: PlanCache, key: str, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PlanCache, "store", full)
    assert "built in" in str(bench.open(simulated_onnx(network()), "model.onnx").properties)
    assert "is not kept: No space left on device" in caplog.text


# ---- files -------------------------------------------------------------------------------------------------------------


def with_external_data(folder: Path, location: str) -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value=location)
    (folder / "w.bin").write_bytes(np.ones((4, 4), np.float32).tobytes())
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y"))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return bytes(helper.make_model(graph).SerializeToString())


def test_external_data_is_a_part_of_the_model(tmp_path: Path) -> None:
    model = with_external_data(tmp_path, "w.bin")
    assert external_files(model) == ["w.bin"]
    before = hashes(tmp_path / "model.onnx", model)
    (tmp_path / "w.bin").write_bytes(bytes(64))
    assert hashes(tmp_path / "model.onnx", model)["w.bin"] != before["w.bin"]
    (tmp_path / "w.bin").unlink()
    with pytest.raises(errors.InvalidArgument, match=r"external data 'w\.bin': No such file"):
        hashes(tmp_path / "model.onnx", model)


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", ""])
def test_external_data_that_leaves_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="leaves the model's folder"):
        external_files(with_external_data(tmp_path, location))


def test_external_data_of_subgraphs_and_functions_is_found(tmp_path: Path) -> None:
    inner = onnx.load_from_string(with_external_data(tmp_path, "w.bin")).graph
    branch = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([branch], "outer", [], [])
    assert external_files(helper.make_model(graph).SerializeToString()) == ["w.bin"]


def test_bytes_that_are_no_model_are_refused_whatever_they_are(tmp_path: Path) -> None:
    model = with_external_data(tmp_path, "w.bin")
    for cut in range(1, len(model), 7):
        try:
            external_files(model[:cut])
        except errors.InvalidArgument:
            continue
    random = np.random.default_rng(0)
    for _ in range(300):
        try:
            external_files(random.bytes(64))
        except errors.InvalidArgument:
            continue


def test_headers_of_plans() -> None:
    from tests.support.simulated_tensorrt import plan

    for content, text in (
        (plan(network()), "TensorRT 11.4.0.106"),
        (plan(network(), "1.7.1.116", b"vtrt"), "TensorRT-RTX 1.7.1.116"),
    ):
        assert read_header(content[:28], len(content)).text == text
        with pytest.raises(errors.InvalidArgument, match="is cut off"):
            read_header(content[:27], 27)
    with pytest.raises(errors.InvalidArgument, match="is no TensorRT plan: begins with nothing"):
        read_header(b"", 0)


# ---- fastserve check ---------------------------------------------------------------------------------------------------


def test_what_check_says_without_a_gpu(tmp_path: Path) -> None:
    from tests.support.simulated_tensorrt import plan

    file = tmp_path / "model.plan"
    file.write_bytes(plan(network()))
    problems, notes = look_at(str(file), {})
    assert problems == []
    assert notes == ["'model.plan' was built by TensorRT 11.4.0.106; TensorRT is not installed here"]
    file.write_bytes(b"garbage")
    problems, _ = look_at(str(file), {"tf32": "maybe"})
    assert problems[0] == 'parameters["tf32"]: got "maybe", want "on" or "off"'
    assert problems[1].startswith("'model.plan' is no TensorRT plan: begins with 67617262")
    problems, _ = look_at(str(tmp_path / "none.plan"), {})
    assert problems == ["'none.plan' cannot be read: No such file or directory"]
    (tmp_path / "model.onnx").write_bytes(with_external_data(tmp_path, "w.bin"))
    problems, notes = look_at(str(tmp_path / "model.onnx"), {})
    assert (problems, len(notes)) == ([], 1)
