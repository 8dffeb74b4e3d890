"""Names that the adapter uses, against the real bindings of TensorRT 11.4 (1.3 MB, nothing of NVIDIA's libraries: stubs stand for
them) and, where tools/dev tensorrt-builds has put them, of TensorRT-RTX.

What this shows: classes, enumerators and methods are there under these names. Not that they do what is expected."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastserve.gpu.tensorrt

ROOT = Path(__file__).resolve().parents[4]
SOURCES = sorted(Path(fastserve.gpu.tensorrt.__file__).parent.glob("*.py"))
BINDINGS = ROOT / "build" / "tensorrt-bindings"
RTX = ROOT / "build" / "tensorrt-rtx"
WHEEL = "tensorrt_cu13_bindings==11.4.0.106"

# What the bindings are linked with.
STUBS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
}

# What is called on the objects that the library makes. test_every_name_is_used keeps it from growing old.
MEMBERS = {
    "Builder": "create_builder_config create_network create_optimization_profile build_serialized_network",
    "IBuilderConfig": "add_optimization_profile builder_optimization_level clear_flag create_timing_cache get_timing_cache "
    "hardware_compatibility_level max_aux_streams progress_monitor set_flag set_memory_pool_limit set_timing_cache",
    "ICudaEngine": "create_execution_context create_runtime_config get_device_memory_size_for_profile_v2 get_engine_stat "
    "get_tensor_dtype get_tensor_format get_tensor_location get_tensor_mode get_tensor_name get_tensor_profile_shape "
    "get_tensor_shape is_shape_inference_io num_aux_streams num_io_tensors num_optimization_profiles refittable "
    "streamable_weights_size weight_streaming_budget_v2",
    "IExecutionContext": "execute_async_v3 get_tensor_shape infer_shapes set_aux_streams set_device_memory set_input_shape "
    "set_optimization_profile_async set_output_allocator set_tensor_address",
    "INetworkDefinition": "get_input num_inputs",
    "IOptimizationProfile": "set_shape",
    "IRuntimeConfig": "set_execution_context_allocation_strategy",
    "ITensor": "is_shape_tensor name shape",
    "ITimingCache": "serialize",
    "OnnxParser": "get_error num_errors parse",
    "ParserError": "code desc node_name node_operator",
    "Runtime": "deserialize_cuda_engine engine_host_code_allowed",
}
# TensorRT-RTX alone has these; the adapter asks first.
RTX_MEMBERS = {
    "IExecutionContext": "is_stream_capturable",
    "IRuntimeCache": "deserialize serialize",
    "IRuntimeConfig": "create_runtime_cache dynamic_shapes_kernel_specialization_strategy set_runtime_cache",
    "Runtime": "get_engine_validity",
}
RTX_NAMES = {
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
}

DUMP = """
import importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
names = {n: [m for m in dir(v) if m[:2] != "__"] if inspect.isclass(v) else [] for n, v in vars(module).items()}
print(json.dumps({"version": module.__version__, "names": names}))
"""


def dumped(module: str, folder: Path, libraries: Path | None = None) -> dict[str, list[str]]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    # In a process of its own: nobody else is to find these libraries.
    done = subprocess.run(
        [sys.executable, "-c", DUMP, module], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    names: dict[str, list[str]] = json.loads(done.stdout)["names"]
    return names


@pytest.fixture(scope="module")
def tensorrt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    compiler = shutil.which("gcc")
    assert compiler is not None
    if not (BINDINGS / "tensorrt_bindings").exists():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(BINDINGS),
            WHEEL,
        ]
        done = subprocess.run(pip, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"{WHEEL} cannot be had: {done.stderr.strip()[-200:]}")
    folder = tmp_path_factory.mktemp("stubs")
    for name, symbols in STUBS.items():
        source = folder / f"{name}.c"
        source.write_text("".join(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in symbols))
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-o", folder / f"lib{name}.so.11", source], check=True, timeout=60
        )
    return dumped("tensorrt_bindings", BINDINGS, folder)


@pytest.fixture(scope="module")
def rtx() -> dict[str, list[str]]:
    if not (RTX / "tensorrt_rtx_bindings").exists():
        pytest.skip("wants build/tensorrt-rtx: tools/dev tensorrt-builds")
    return dumped("tensorrt_rtx_bindings", RTX)


def chain(node: ast.AST) -> list[str]:
    """a.b.c -> [a, b, c]; [] when it does not begin with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def of_the_module() -> Iterator[str]:
    """Name or Name.MEMBER of what is taken from the library's module, in all of the adapter."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            names = chain(node)
            if "trt" in names[:-1]:
                yield ".".join(names[names.index("trt") + 1 :])
            elif names[:1] == ["flag"] and len(names) == 2:  # flag = trt.BuilderFlag
                yield f"BuilderFlag.{names[1]}"


def attributes() -> set[str]:
    return {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
    } | {
        node.value  # getattr(x, "name", None), setattr by name
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def has(names: dict[str, list[str]], path: str) -> bool:
    name, _, member = path.partition(".")
    return name in names and (not member or member.startswith("__") or member in names[name])


def lacks(names: dict[str, list[str]], members: dict[str, str]) -> list[str]:
    return [f"{c}.{m}" for c, text in members.items() for m in text.split() if m not in names.get(c, [])]


def test_what_is_taken_from_the_module_is_there(tensorrt: dict[str, list[str]]) -> None:
    used = set(of_the_module()) - {"__version__"}
    assert {"Builder", "Runtime", "BuilderFlag.TF32", "TensorIOMode.INPUT"} <= used, (
        "the reader finds something"
    )
    # FP16 and BF16 are looked up by name, and only where TensorRT 10 chooses types.
    assert {path for path in used if not has(tensorrt, path)} <= RTX_NAMES


def test_members_are_there(tensorrt: dict[str, list[str]]) -> None:
    assert lacks(tensorrt, MEMBERS) == []
    assert "STRONGLY_TYPED" in tensorrt["NetworkDefinitionCreationFlag"]
    assert {"AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"} <= set(tensorrt["HardwareCompatibilityLevel"])


def test_what_only_rtx_has_is_not_there(tensorrt: dict[str, list[str]]) -> None:
    """Should TensorRT get them too, the adapter's questions for them have to be looked at."""
    wanted = [f"{c}.{m}" for c, text in RTX_MEMBERS.items() for m in text.split()]
    assert lacks(tensorrt, RTX_MEMBERS) == wanted


def test_rtx_has_all_of_it(rtx: dict[str, list[str]]) -> None:
    assert {path for path in set(of_the_module()) - {"__version__"} if not has(rtx, path)} == set()
    assert lacks(rtx, MEMBERS) == []
    assert lacks(rtx, RTX_MEMBERS) == []


@pytest.mark.parametrize("members", [MEMBERS, RTX_MEMBERS], ids=["all", "rtx"])
def test_every_name_is_used(members: dict[str, str]) -> None:
    assert {m for text in members.values() for m in text.split()} - attributes() == set()
