"""Plan -> engine, or why this machine cannot run it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.libraries import Library, shortened
from fastserve.gpu.tensorrt.plan_file import PlanHeader

logger = logging.getLogger("fastserve.gpu.tensorrt")

# How TensorRT says that a plan was built for another GPU.
_OTHER_GPU = re.compile(
    r"incompatible device|compute capability|compute \d|different GPU|UNSUPPORTED_CC", re.I
)


@dataclass
class Engine:
    """`runtime` lives as long as its engine."""

    library: Library
    runtime: Any
    engine: Any

    def weights_bytes(self) -> int:
        """On the device; 0 = unknown."""
        stat = getattr(self.library.trt, "EngineStat", None)
        if stat is None:
            return 0
        return max(0, int(self.engine.get_engine_stat(stat.TOTAL_WEIGHTS_SIZE)))


def open_engine(
    library: Library, plan: bytes | memoryview, name: str, header: PlanHeader, device: str, *, host_code: bool
) -> Engine:
    """`name`: of the file, for messages; `device`: "NVIDIA H200 (9.0)". InvalidArgument: it is broken. FailedPrecondition: it
    is for another version of the library, or another GPU."""
    if header.library != library.name:
        raise errors.FailedPrecondition(
            f"'{name}' was built by {header.text}, and {library.text} is to run it: parameters[\"library\"]"
        )
    runtime = library.made("creating a runtime", lambda: library.trt.Runtime(library.log))
    if host_code:
        runtime.engine_host_code_allowed = True
    mark = library.lines.mark()
    try:
        engine = runtime.deserialize_cuda_engine(plan)
    except (RuntimeError, TypeError) as error:
        raise errors.InvalidArgument(f"'{name}': {library.text}: {error}") from None
    if engine is None:
        raise _refusal(library, runtime, plan, name, header, device, library.lines.since(mark))
    return Engine(library, runtime, engine)


def _refusal(
    library: Library,
    runtime: Any,
    plan: bytes | memoryview,
    name: str,
    header: PlanHeader,
    device: str,
    lines: list[str],
) -> errors.FastserveError:
    words = "; ".join(shortened(line) for line in lines[-3:]) or "its log says nothing"
    diagnoses = _diagnoses(library, runtime, plan)
    said = f" ({', '.join(diagnoses)})" if diagnoses else ""
    if header.version and header.version != library.version:
        return errors.FailedPrecondition(
            f"'{name}' was built by {header.text}, want {library.version}, which is here{said}: build it again with "
            f'that, or with version compatibility and parameters["engine_host_code_allowed"] on: {words}'
        )
    if _OTHER_GPU.search(" ".join([*lines, *diagnoses])):
        return errors.FailedPrecondition(
            f"'{name}' was built for another GPU than this {device}{said}: build it again here: {words}"
        )
    return errors.InvalidArgument(f"'{name}' is refused by {library.text}{said}: {words}")


def _diagnoses(library: Library, runtime: Any, plan: bytes | memoryview) -> list[str]:
    """TensorRT-RTX alone has words for it."""
    ask = getattr(runtime, "get_engine_validity", None)
    known = getattr(library.trt, "EngineInvalidityDiagnostics", None)
    if ask is None or known is None:
        return []
    _, bits = ask(plan)
    return [name for name, flag in known.__members__.items() if int(bits) & int(flag)]


def why_not_captured(engine: Any, has_unknown_outputs: str) -> str:
    """What forbids a CUDA graph of this engine's step whatever the batch; "" = nothing does.

    `has_unknown_outputs`: a field whose size only the run decides."""
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.is_shape_inference_io(name):
            # Its values are read on the host at every step, and a graph would repeat those of the capture.
            return f"'{name}' is a shape tensor"
    if has_unknown_outputs:
        return f"the size of {has_unknown_outputs} depends on the data"
    streamable = int(engine.streamable_weights_size)
    if streamable and int(engine.weight_streaming_budget_v2) < streamable:
        return "weights are streamed to the device in each step (weight streaming), which is synchronous"
    return ""
