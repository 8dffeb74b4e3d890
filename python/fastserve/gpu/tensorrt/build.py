"""ONNX -> plan: what a model is compiled with. Blocks for seconds (small models, TensorRT-RTX) to many minutes.

Thread: a loader's. TensorRT's builder does not hold the interpreter lock while it works.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.build_profiles import Bounds, Wanted, profiles
from fastserve.gpu.tensorrt.build_progress import Phases, Progress, monitor
from fastserve.gpu.tensorrt.libraries import Library, shortened
from fastserve.gpu.tensorrt.settings import BuildSettings
from fastserve.gpu.tensorrt.signature import dims_of

_MOST_ERRORS = 3  # of the parser, in a message
_WEAKLY_TYPED = 10  # the last major version of TensorRT that chooses types by itself
_FLAG_OF = {"fp16": "FP16", "bf16": "BF16"}
# The share of a load that the build is: captures come after it and count anew.
_BEGIN, _END = 0.05, 0.95


class PlanBuild:
    """One build: the steps in order, each of which may refuse."""

    def __init__(self, library: Library, path: Path, settings: BuildSettings) -> None:
        """InvalidArgument: this library cannot keep to a setting."""
        self._library, self._path, self._settings = library, path, settings
        trt = library.trt
        flags = self._network_flags()
        self._builder = library.made("creating a builder", lambda: trt.Builder(library.log))
        self._network = library.made("creating a network", lambda: self._builder.create_network(flags))
        self._config = library.made("creating a configuration", self._builder.create_builder_config)
        self._timing_cache: Any = None

    def build(
        self, model: bytes, wanted: Wanted, told: Progress, timing: bytes | memoryview | None
    ) -> memoryview:
        """The plan. `timing`: what timing_cache() gave after an earlier build."""
        told(0.0, f"reading {self._path.name}")
        self._parse(model)
        self._configure(timing)
        for bounds in profiles(self._inputs(), wanted, self._settings):
            self._add_profile(bounds)
        watching = monitor(self._library.trt, Phases(told, _BEGIN, _END))
        self._config.progress_monitor = watching
        mark = self._library.lines.mark()
        plan = self._builder.build_serialized_network(self._network, self._config)
        if plan is None:
            message = self._library.worded(f"building '{self._path.name}'", mark)
            raise (
                errors.ResourceExhausted(message)
                if "memory" in message.lower()
                else errors.InvalidArgument(message)
            )
        return memoryview(plan).cast("B")

    def timing_cache(self) -> memoryview | None:
        """After a build, for the next one. TensorRT-RTX has none."""
        if self._timing_cache is None:
            return None
        cache = self._config.get_timing_cache() or self._timing_cache
        return memoryview(self._library.made("serializing the timing cache", cache.serialize)).cast("B")

    def _network_flags(self) -> int:
        """From 11 on, and in TensorRT-RTX, networks have the types of the file (strongly typed)."""
        library, precision = self._library, self._settings.precision
        chooses = not library.is_rtx and library.major <= _WEAKLY_TYPED
        if not chooses and precision != "model":
            raise errors.InvalidArgument(
                f'parameters["precision"]: got "{precision}", want "model": {library.text} keeps the types that the file has '
                "(strongly typed networks); convert the file"
            )
        if not chooses or precision != "model":
            return 0
        return 1 << int(library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _parse(self, model: bytes) -> None:
        library = self._library
        parser = library.made("creating a parser", lambda: library.trt.OnnxParser(self._network, library.log))
        mark = library.lines.mark()
        if parser.parse(model, str(self._path)):
            return
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        said = [_parser_error(error) for error in found[:_MOST_ERRORS]]
        message = "; ".join(said) or library.worded("parsing", mark)
        text = f"'{self._path.name}': {library.text} cannot read it: {message}"
        lacks = any("UNSUPPORTED" in getattr(error.code(), "name", "") for error in found)
        raise errors.Unimplemented(text) if lacks else errors.InvalidArgument(text)

    def _inputs(self) -> dict[str, tuple[int, ...]]:
        """Unimplemented: one of them decides shapes by its values."""
        inputs = {}
        for index in range(self._network.num_inputs):
            tensor = self._network.get_input(index)
            if tensor.is_shape_tensor:
                raise errors.Unimplemented(
                    f'inputs["{tensor.name}"] is a shape tensor, whose values profiles have to bound: build a plan with trtexec'
                )
            inputs[tensor.name] = dims_of(tensor.shape)
        return inputs

    def _configure(self, timing: bytes | memoryview | None) -> None:
        library, settings, config, trt = self._library, self._settings, self._config, self._library.trt
        flag = trt.BuilderFlag
        if settings.workspace_bytes:
            library.done(
                "limiting the workspace",
                lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes),
            )
        if settings.optimization_level is not None:
            self._set("builder_optimization_level", settings.optimization_level)
        self._set("max_aux_streams", settings.max_aux_streams)
        if settings.hardware_compatibility != "none":
            level = getattr(trt.HardwareCompatibilityLevel, settings.hardware_compatibility.upper())
            self._set("hardware_compatibility_level", level)
        if settings.precision in _FLAG_OF:
            config.set_flag(getattr(flag, _FLAG_OF[settings.precision]))
        if not settings.tf32:
            config.clear_flag(flag.TF32)
        if settings.version_compatible:
            config.set_flag(flag.VERSION_COMPATIBLE)
            config.set_flag(flag.EXCLUDE_LEAN_RUNTIME)  # a plan of ours brings no code of its own
        if library.is_rtx:
            # Or it allocates within a run, which no capture may contain.
            config.set_flag(flag.REQUIRE_USER_ALLOCATION)
        else:
            self._use_timing_cache(timing)

    def _set(self, name: str, value: Any) -> None:
        self._library.done(f"setting {name}", lambda: setattr(self._config, name, value))

    def _use_timing_cache(self, timing: bytes | memoryview | None) -> None:
        """What was measured for kernels in earlier builds with this version on this GPU."""
        library, config = self._library, self._config
        for content in (bytes(timing or b""), b""):
            cache = config.create_timing_cache(content)
            if cache is not None and config.set_timing_cache(cache, False):
                self._timing_cache = cache
                return
        raise errors.Internal(f"{library.text}: no timing cache can be set")

    def _add_profile(self, bounds: Bounds) -> None:
        library = self._library
        profile = library.made("creating a profile", self._builder.create_optimization_profile)
        for name, (least, best, most) in bounds.items():
            library.done(
                f"bounding '{name}'",
                lambda name=name, least=least, best=best, most=most: profile.set_shape(
                    name, least, best, most
                ),  # type: ignore[misc]
            )
        library.made(
            f"adding the profile {dict(bounds)}",
            lambda: self._config.add_optimization_profile(profile),
            errors.InvalidArgument,
        )


def _parser_error(error: Any) -> str:
    node = error.node_name()
    where = f"node '{node}' ({error.node_operator()}): " if node else ""
    return where + shortened(error.desc())
