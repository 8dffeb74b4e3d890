"""The parameters of a model of backend `tensorrt`, beside those of its lanes (csrc/backend/cuda_settings.h). Pure.

Of every file:
    library                    auto (default; a plan says which), tensorrt, tensorrt_rtx
    engine_host_code_allowed   off (default) or on: a version-compatible plan may bring code of its own; trusted plans only
    profiles                   "0,2": only these optimisation profiles of a plan are used
    plan_cache                 auto (default: fastserve/plans in the user's cache folder), none, or a folder
    plan_cache_bytes           10 GiB: beyond, plans that were not used for longest are removed
Of ONNX files, which are built into plans:
    precision                  model (default: the types that the file has), fp16, bf16 (these two: TensorRT 10 only)
    tf32                       on (default) or off: FP32 multiplications with 10 bits of mantissa
    workspace_bytes            0 (default: TensorRT's own limit, all of the device)
    optimization_level         0 to 5 (TensorRT's default: 3)
    max_aux_streams            0 (default): streams of its own within one batch
    version_compatible         off (default) or on: the plan also runs on later releases of the same major version
    hardware_compatibility     none (default), same_compute_capability, ampere_plus
    min_dims, opt_dims, max_dims  "tokens:16,mask:16": free dimensions of inputs, without the rows; "image:3x224x224"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastserve import errors

OF_THE_LANE = frozenset({"lanes", "graphs", "completion", "watchdog_ms", "stream_priority"})
DEFAULT_CACHE_BYTES = 10 << 30
MAX_OPTIMIZATION_LEVEL = 5
MAX_AUX_STREAMS = 8
_MOST_BYTES = 1 << 60

Dims = Mapping[str, tuple[int, ...]]  # input -> without the rows


@dataclass(frozen=True)
class BuildSettings:
    """What changes a plan; a part of its key in the cache."""

    precision: str = "model"
    tf32: bool = True
    workspace_bytes: int = 0
    optimization_level: int | None = None
    max_aux_streams: int = 0
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    min_dims: Dims = field(default_factory=dict)
    opt_dims: Dims = field(default_factory=dict)
    max_dims: Dims = field(default_factory=dict)


@dataclass(frozen=True)
class TensorRTSettings:
    library: str = "auto"
    engine_host_code_allowed: bool = False
    profiles: tuple[int, ...] = ()  # all
    plan_cache: str = "auto"
    plan_cache_bytes: int = DEFAULT_CACHE_BYTES
    build: BuildSettings = BuildSettings()


def read_settings(given: Mapping[str, str]) -> TensorRTSettings:
    """InvalidArgument: parameters["precision"]: got "fp8", want one of model, fp16, bf16."""
    read = _Reader(given)
    build = BuildSettings(
        precision=read.word("precision", "model", "fp16", "bf16"),
        tf32=read.switch("tf32", default=True),
        workspace_bytes=read.number("workspace_bytes", 0, _MOST_BYTES) or 0,
        optimization_level=read.number("optimization_level", 0, MAX_OPTIMIZATION_LEVEL),
        max_aux_streams=read.number("max_aux_streams", 0, MAX_AUX_STREAMS) or 0,
        version_compatible=read.switch("version_compatible", default=False),
        hardware_compatibility=read.word(
            "hardware_compatibility", "none", "same_compute_capability", "ampere_plus"
        ),
        min_dims=read.dims("min_dims"),
        opt_dims=read.dims("opt_dims"),
        max_dims=read.dims("max_dims"),
    )
    cache_bytes = read.number("plan_cache_bytes", 0, _MOST_BYTES)
    settings = TensorRTSettings(
        library=read.word("library", "auto", "tensorrt", "tensorrt_rtx"),
        engine_host_code_allowed=read.switch("engine_host_code_allowed", default=False),
        profiles=read.numbers("profiles"),
        plan_cache=read.folder("plan_cache"),
        plan_cache_bytes=DEFAULT_CACHE_BYTES if cache_bytes is None else cache_bytes,
        build=build,
    )
    read.end()
    return settings


class _Reader:
    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given
        self._known: set[str] = set(OF_THE_LANE)

    def _text(self, name: str) -> str | None:
        self._known.add(name)
        return self._given.get(name)

    def _wrong(self, name: str, want: str) -> errors.InvalidArgument:
        return errors.InvalidArgument(f'parameters["{name}"]: got "{self._given[name]}", want {want}')

    def word(self, name: str, *words: str) -> str:
        """The first is the default."""
        text = self._text(name)
        if text is None:
            return words[0]
        if text not in words:
            raise self._wrong(name, "one of " + ", ".join(words))
        return text

    def switch(self, name: str, *, default: bool) -> bool:
        text = self._text(name)
        if text is not None and text not in {"on", "off"}:
            raise self._wrong(name, '"on" or "off"')
        return default if text is None else text == "on"

    def number(self, name: str, least: int, most: int) -> int | None:
        text = self._text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
            raise self._wrong(name, f"a whole number from {least} to {most}")
        return int(text)

    def numbers(self, name: str) -> tuple[int, ...]:
        text = self._text(name)
        if text is None:
            return ()
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise self._wrong(name, "numbers such as 0,2")
        return tuple(sorted({int(part) for part in parts}))

    def dims(self, name: str) -> Dims:
        text = self._text(name)
        if text is None:
            return {}
        found: dict[str, tuple[int, ...]] = {}
        for part in text.split(","):
            tensor, colon, dims = part.strip().rpartition(":")  # names may have colons
            numbers = dims.split("x")
            if not (colon and tensor and all(n.isascii() and n.isdigit() and int(n) for n in numbers)):
                raise self._wrong(name, "dimensions such as tokens:16,image:3x224x224")
            found[tensor] = tuple(int(number) for number in numbers)
        return found

    def folder(self, name: str) -> str:
        text = self._text(name)
        if text is None:
            return "auto"
        if text not in {"auto", "none"} and not text.startswith("/"):
            raise self._wrong(name, '"auto", "none" or an absolute folder')
        return text

    def end(self) -> None:
        if unknown := sorted(set(self._given) - self._known):
            raise errors.InvalidArgument(
                f'parameters["{unknown[0]}"]: is not known to backend tensorrt, there are '
                + ", ".join(sorted(self._known))
            )
