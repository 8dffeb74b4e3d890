"""A stand-in for the module `tensorrt` (or tensorrt_rtx) in tests: no engine in it, nothing of NVIDIA's, and no GPU.

Plans are a header and JSON; a network is y = factor * x for each pair of tensors. It keeps to the rules that the loader has to
obey and complains in the ways of the real one: setters return False, factories None, words go to the log.
What it is called is in `module.calls`; names in `module.failing` fail, as "IExecutionContext.set_input_shape" does.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from enum import IntEnum
from math import prod
from types import SimpleNamespace
from typing import Any

from fastserve import errors

Launch = Callable[[int, int, int, int, float], None]  # stream, to, from, elements, factor


def tensor(name: str, shape: list[int], datatype: str = "FLOAT", **more: Any) -> dict[str, Any]:
    """`more`: of_shapes, on_host, format, alias, unknown (its size depends on the data), twice (as many rows as the input)."""
    return {"name": name, "shape": shape, "datatype": datatype, **more}


def static(rows: int, *dims: int, name: str = "x") -> dict[str, Any]:
    """A profile with one shape."""
    return {name: [[rows, *dims]] * 3}


def ranged(least: list[int], most: list[int], name: str = "x") -> dict[str, Any]:
    return {name: [least, most, most]}


def network(**more: Any) -> dict[str, Any]:
    """y = 2 x over rows of 4. `more` replaces parts of it."""
    usual = {
        "inputs": [tensor("x", [-1, 4])],
        "outputs": [tensor("y", [-1, 4])],
        "profiles": [static(1, 4), static(2, 4), static(8, 4)],
        "factor": 2.0,
        "scratch": [100, 200, 300],
    }
    return usual | more


def plan(description: Mapping[str, Any], version: str = "11.4.0.106", tag: bytes = b"ftrt") -> bytes:
    body = json.dumps(description).encode()
    numbers = bytes(int(part) for part in version.split("."))
    return struct.pack("<4sIQQ4s", tag, 0, 2, 28 + len(body), numbers) + body


def onnx(description: Mapping[str, Any]) -> bytes:
    """A message of ONNX with nothing but a producer's name, which says what the network is."""
    body = json.dumps(description).encode()
    size, varint = len(body), b""
    while size > 0x7F:
        varint += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x12" + varint + bytes([size]) + body


def module(version: str = "11.4.0.106", *, rtx: bool = False, launch: Launch | None = None) -> Any:
    """Another one each time."""
    trt = SimpleNamespace(__version__=version, calls=[], failing=set(), rtx=rtx, launch=launch, captures=True)
    trt.runtimes = []
    _enums(trt)
    _interfaces(trt)
    _runtime(trt)
    _builder(trt)
    return trt


def simulated_kernels() -> Launch:
    """For a process on the simulated CUDA driver: its kernel `scale`."""
    import ctypes as c

    driver = c.CDLL("libcuda.so.1")

    def launch(stream: int, to: int, source: int, elements: int, factor: float) -> None:
        bits = struct.unpack("<I", struct.pack("<f", factor))[0]
        words = (c.c_uint64 * 4)(to, source, elements, bits)
        assert driver.simulated_cuda_launch(c.c_size_t(stream), b"scale", words, 4) == 0

    return launch


def _enums(trt: Any) -> None:
    def enum(name: str, *members: str) -> None:
        setattr(trt, name, IntEnum(name, {member: i for i, member in enumerate(members)}))

    enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
    enum("TensorLocation", "DEVICE", "HOST")
    enum("TensorFormat", "LINEAR", "CHW32")
    enum("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64")
    enum("ExecutionContextAllocationStrategy", "STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED")
    enum("EngineStat", "TOTAL_WEIGHTS_SIZE", "STRIPPED_WEIGHTS_SIZE")
    enum("MemoryPoolType", "WORKSPACE")
    enum("HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    flags = ["TF32", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"]
    flags += ["REQUIRE_USER_ALLOCATION"] if trt.rtx else []
    flags += ["FP16", "BF16"] if trt.__version__.startswith("10.") else []
    enum("BuilderFlag", *flags)
    enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "STRONGLY_TYPED")
    if trt.rtx:
        enum("DynamicShapesKernelSpecializationStrategy", "LAZY", "EAGER", "NONE")
        trt.EngineValidity = IntEnum("EngineValidity", ["VALID", "SUBOPTIMAL", "INVALID"])
        trt.EngineInvalidityDiagnostics = IntEnum(
            "EngineInvalidityDiagnostics",
            {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2, "MALFORMED_ENGINE": 32},
        )


def _interfaces(trt: Any) -> None:
    for name in ("ILogger", "IOutputAllocator", "IProgressMonitor"):
        setattr(trt, name, type(name, (), {}))


class _Called:
    """Notes each call; `said` says whether it works, and complains to the log where it does not."""

    def __init__(self, trt: Any, log: Any) -> None:
        self.trt, self.logger = trt, log

    def said(self, name: str, *words: object) -> bool:
        call = f"{type(self).__name__}.{name}"
        self.trt.calls.append(" ".join([call, *map(str, words)]))
        if call in self.trt.failing:
            self.logger.log(1, f"{call} failed (In f at /_src/x.cpp:1)")
            return False
        return True


def _runtime(trt: Any) -> None:
    class IExecutionContext(_Called):
        def __init__(self, engine: Any) -> None:
            super().__init__(trt, engine.logger)
            self.engine, self.profile, self.frozen = engine, 0, False
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.allocators: dict[str, Any] = {}
            self.memory = (0, 0)
            self.ran = 0

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            assert stream, "never the legacy stream"
            self.profile = profile
            return self.said("set_optimization_profile_async", profile)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            low, _, high = self.engine.bounds(name, self.profile)
            if not all(a <= d <= b for a, d, b in zip(low, shape, high, strict=True)):
                self.logger.log(1, f"{name}: {shape} is not within profile {self.profile}")
                return False
            self.shapes[name] = tuple(shape)
            return self.said("set_input_shape", name, *shape)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return self.said("set_tensor_address", name)

        def set_output_allocator(self, name: str, allocator: Any) -> bool:
            self.allocators[name] = allocator
            return self.said("set_output_allocator", name)

        def set_device_memory(self, address: int, size: int) -> None:
            self.memory = (address, size)
            self.said("set_device_memory", size)

        def set_aux_streams(self, streams: list[int]) -> None:
            self.said("set_aux_streams", len(streams))

        def infer_shapes(self) -> list[str]:
            names = [t["name"] for t in self.engine.description["inputs"]]
            return [name for name in names if name not in self.shapes and self._free(name)]

        def _free(self, name: str) -> bool:
            return -1 in self.engine.tensor(name)["shape"]

        def get_tensor_shape(self, name: str) -> list[int]:
            shape = list(self.engine.tensor(name)["shape"])
            source = next(iter(self.shapes.values()), ())
            if self.engine.tensor(name).get("unknown"):
                return [source[0] if i == 0 and dim == -1 else dim for i, dim in enumerate(shape)]
            found = [source[i] if dim == -1 and i < len(source) else dim for i, dim in enumerate(shape)]
            return [2 * found[0], *found[1:]] if self.engine.tensor(name).get("twice") else found

        def execute_async_v3(self, stream: int) -> bool:
            assert stream, "never the legacy stream"
            assert self.memory[1] >= self.engine.scratch(self.profile) or not self.engine.scratch(
                self.profile
            )
            self.ran += 1
            if not self.said("execute_async_v3", self.ran):
                return False
            description = self.engine.description
            for x, y in zip(description["inputs"], description["outputs"], strict=False):
                elements = prod(self.shapes.get(x["name"], tuple(x["shape"])))
                to = self.addresses.get(y["name"], 0)
                if y["name"] in self.allocators:
                    shape = [self.get_tensor_shape(y["name"])[0], *[3] * (len(y["shape"]) - 1)]
                    elements = prod(shape)
                    allocator = self.allocators[y["name"]]
                    to = allocator.reallocate_output_async(y["name"], 0, elements * 4, 256, stream)
                    if not to:
                        return False
                    allocator.notify_shape(y["name"], shape)
                if trt.launch is not None:
                    trt.launch(stream, to, self.addresses[x["name"]], elements, description["factor"])
            return True

    if trt.rtx:

        def is_stream_capturable(self: Any, _stream: int) -> bool:
            return bool(self.trt.captures)

        IExecutionContext.is_stream_capturable = is_stream_capturable  # type: ignore[attr-defined]

    class IRuntimeConfig(_Called):
        strategy: Any = None

        def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
            self.strategy = strategy

    class IRuntimeCache(_Called):
        content = b""

        def deserialize(self, content: memoryview) -> bool:
            self.content = bytes(content)
            return self.said("deserialize", len(self.content))

        def serialize(self) -> bytes:
            self.said("serialize")
            return b"kernels"

    if trt.rtx:

        def create_runtime_cache(self: Any) -> Any:
            return IRuntimeCache(trt, self.logger)

        def set_runtime_cache(self: Any, cache: Any) -> bool:
            return bool(self.said("set_runtime_cache"))

        IRuntimeConfig.create_runtime_cache = create_runtime_cache  # type: ignore[attr-defined]
        IRuntimeConfig.set_runtime_cache = set_runtime_cache  # type: ignore[attr-defined]

    class ICudaEngine(_Called):
        def __init__(self, log: Any, description: dict[str, Any]) -> None:
            super().__init__(trt, log)
            self.description = description
            self.tensors = [*description["inputs"], *description["outputs"]]
            self.num_io_tensors = len(self.tensors)
            self.num_optimization_profiles = max(1, len(description["profiles"]))
            self.num_aux_streams = description.get("aux", 0)
            self.streamable_weights_size = description.get("streamable", 0)
            self.weight_streaming_budget_v2 = description.get("budget", 0)
            self.refittable = description.get("refittable", False)

        def tensor(self, name: str) -> dict[str, Any]:
            found: dict[str, Any] = next(t for t in self.tensors if t["name"] == name)
            return found

        def bounds(self, name: str, profile: int) -> list[list[int]]:
            profiles = self.description["profiles"]
            fixed = self.tensor(name)["shape"]
            return profiles[profile].get(name, [fixed] * 3) if profiles else [fixed] * 3

        def scratch(self, profile: int) -> int:
            sizes = self.description["scratch"]
            return int(sizes[min(profile, len(sizes) - 1)])

        def get_tensor_name(self, index: int) -> str:
            return str(self.tensors[index]["name"])

        def get_tensor_mode(self, name: str) -> Any:
            is_input = self.tensor(name) in self.description["inputs"]
            return trt.TensorIOMode.INPUT if is_input else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return trt.DataType[self.tensor(name)["datatype"]]

        def get_tensor_shape(self, name: str) -> list[int]:
            return list(self.tensor(name)["shape"])

        def get_tensor_location(self, name: str) -> Any:
            return trt.TensorLocation.HOST if self.tensor(name).get("on_host") else trt.TensorLocation.DEVICE

        def get_tensor_format(self, name: str) -> Any:
            return trt.TensorFormat[self.tensor(name).get("format", "LINEAR")]

        def is_shape_inference_io(self, name: str) -> bool:
            return bool(self.tensor(name).get("of_shapes"))

        def get_aliased_input_tensor(self, name: str) -> str | None:
            return self.tensor(name).get("alias")

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
            return self.bounds(name, profile)

        def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
            return self.scratch(profile)

        def get_engine_stat(self, _stat: Any) -> int:
            return int(self.description.get("weights", 1000))

        def create_runtime_config(self) -> Any:
            return IRuntimeConfig(trt, self.logger)

        def create_execution_context(self, strategy: Any) -> Any:
            if isinstance(strategy, IRuntimeConfig):
                strategy = strategy.strategy
            assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
            return IExecutionContext(self) if self.said("create_execution_context") else None

    class Runtime(_Called):
        engine_host_code_allowed = False

        def __init__(self, log: Any) -> None:
            super().__init__(trt, log)
            trt.runtimes.append(self)

        def deserialize_cuda_engine(self, content: bytes | memoryview) -> Any:
            if not self.said("deserialize_cuda_engine"):
                return None
            data = bytes(content)
            (size,) = struct.unpack_from("<Q", data, 16)
            if size != len(data):
                self.logger.log(1, "Serialization assertion plan.header.size == blobSize failed")
                return None
            if ".".join(map(str, data[24:28])) != trt.__version__:
                self.logger.log(1, "Version tag does not match")
                return None
            description = json.loads(data[28:])
            if wrong := description.get("refused"):
                self.logger.log(1, wrong)
                return None
            return ICudaEngine(self.logger, description)

    if trt.rtx:

        def get_engine_validity(_self: Any, content: bytes) -> tuple[int, int]:
            return 2, 2 if b"refused" in bytes(content) else 32

        Runtime.get_engine_validity = get_engine_validity  # type: ignore[attr-defined]
    trt.Runtime = Runtime
    trt.ICudaEngine, trt.IExecutionContext = ICudaEngine, IExecutionContext
    trt.IRuntimeConfig = IRuntimeConfig


def _builder(trt: Any) -> None:
    class OptimizationProfile(_Called):
        def __init__(self, log: Any) -> None:
            super().__init__(trt, log)
            self.bounds: dict[str, list[list[int]]] = {}

        def set_shape(self, name: str, *bounds: tuple[int, ...]) -> None:
            self.said("set_shape", name)
            self.bounds[name] = [list(shape) for shape in bounds]

    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> bytes:
            return self.content + b"+"

    class BuilderConfig(_Called):
        def __init__(self, log: Any) -> None:
            super().__init__(trt, log)
            self.profiles: list[dict[str, Any]] = []
            self.flags: set[Any] = {trt.BuilderFlag.TF32}
            self.progress_monitor: Any = None
            self.timing: Any = None

        def add_optimization_profile(self, profile: Any) -> int:
            if not self.said("add_optimization_profile"):
                return -1
            self.profiles.append(profile.bounds)
            return len(self.profiles) - 1

        def set_flag(self, flag: Any) -> None:
            self.said("set_flag", flag.name)
            self.flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self.said("clear_flag", flag.name)
            self.flags.discard(flag)

        def set_memory_pool_limit(self, pool: Any, size: int) -> None:
            self.said("set_memory_pool_limit", pool.name, size)

        def create_timing_cache(self, content: bytes) -> Any:
            return TimingCache(content) if self.said("create_timing_cache", len(content)) else None

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert ignore_mismatch is False
            if not self.said("set_timing_cache") or cache.content == b"of another GPU":
                return False
            self.timing = cache
            return True

        def get_timing_cache(self) -> Any:
            return self.timing

    class Network:
        def __init__(self, flags: int) -> None:
            self.flags, self.description = flags, {"inputs": []}  # type: ignore[var-annotated]

        @property
        def num_inputs(self) -> int:
            return len(self.description["inputs"])

        def get_input(self, index: int) -> Any:
            given = self.description["inputs"][index]
            return SimpleNamespace(
                name=given["name"], shape=given["shape"], is_shape_tensor=given.get("of_shapes", False)
            )

    class Builder(_Called):
        def __init__(self, log: Any) -> None:
            super().__init__(trt, log)

        def create_network(self, flags: int) -> Any:
            return Network(flags) if self.said("create_network", flags) else None

        def create_builder_config(self) -> Any:
            return BuilderConfig(self.logger) if self.said("create_builder_config") else None

        def create_optimization_profile(self) -> Any:
            return OptimizationProfile(self.logger) if self.said("create_optimization_profile") else None

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            config.progress_monitor.phase_start("Building engine", None, 2)
            config.progress_monitor.phase_start("Timing", "Building engine", 2)
            assert config.progress_monitor.step_complete("Timing", 0)
            config.progress_monitor.phase_finish("Timing")
            assert config.progress_monitor.step_complete("Building engine", 1)
            if not self.said("build_serialized_network", len(config.profiles)):
                return None
            description = network.description | {"profiles": config.profiles}
            return plan(description, trt.__version__, b"vtrt" if trt.rtx else b"ftrt")

    class ParserError:
        def __init__(self, node: str, code: str, text: str) -> None:
            self._node, self._code, self._text = node, code, text

        def node_name(self) -> str:
            return self._node

        def node_operator(self) -> str:
            return "Blur"

        def code(self) -> Any:
            return SimpleNamespace(name=self._code)

        def desc(self) -> str:
            return self._text

    class OnnxParser(_Called):
        def __init__(self, network: Any, log: Any) -> None:
            super().__init__(trt, log)
            self.network, self.errors = network, []  # type: ignore[var-annotated]

        @property
        def num_errors(self) -> int:
            return len(self.errors)

        def get_error(self, index: int) -> Any:
            return self.errors[index]

        def parse(self, content: bytes, path: str) -> bool:
            self.said("parse", path.rpartition("/")[2])
            description = json.loads(content[content.index(b"{") :])
            if wrong := description.get("unreadable"):
                self.errors.append(ParserError("blur_1", wrong, "no importer for Blur"))
                return False
            self.network.description = description
            return True

    trt.Builder, trt.OnnxParser = Builder, OnnxParser


class FakeDriver:
    """Of fastserve.gpu.tensorrt.driver, for tests in this process: "device" memory is the host's; nothing runs."""

    def __init__(self, *, captures: bool = True) -> None:
        self.calls: list[str] = []
        self.captures = captures
        self.blocks: dict[int, Any] = {}
        self.full = False
        self._next = 1000

    def _new(self) -> int:
        self._next += 1
        return self._next

    def version(self) -> int:
        return 13010

    def begin_capture(self, stream: int) -> None:
        assert stream
        self.calls.append("begin_capture")

    def end_capture(self, stream: int) -> int:
        self.calls.append("end_capture")
        return self._new() if self.captures else 0

    def destroy_graph(self, _graph: int) -> None:
        self.calls.append("destroy_graph")

    def synchronize(self, _stream: int) -> None:
        self.calls.append("synchronize")

    def new_stream(self) -> int:
        self.calls.append("new_stream")
        return self._new()

    def destroy_stream(self, _stream: int) -> None:
        self.calls.append("destroy_stream")

    def allocate(self, size: int) -> int:
        import ctypes

        if self.full:
            raise errors.ResourceExhausted("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2)")
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.blocks[address]

    def to_host(self, to: int, address: int, size: int, _stream: int) -> None:
        import ctypes

        ctypes.memmove(to, address, size)

    def to_device(self, address: int, host: int, size: int, _stream: int) -> None:
        self.to_host(address, host, size, 0)
