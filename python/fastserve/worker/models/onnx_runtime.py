"""ONNX models on ONNX Runtime.

Parameters: device (cpu, cuda, cuda:N), intra_op_thread_count (the worker's share of CPUs), inter_op_thread_count (1),
graph_optimization_level (all, extended, basic, disable), enable_mem_arena, enable_mem_pattern, session.* (ONNX Runtime's own).
Loading a file runs no code from it; external data is read from files beside it.

On a GPU (its CUDA provider: the package onnxruntime-gpu) it runs batch by batch in the worker process, copies included: ONNX
Runtime does not give its CUDA graphs out, so the GPU lane's stream scheduler cannot run them. It has not yet run on a GPU.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastserve import errors
from fastserve.worker.model import Description
from fastserve.worker.models.parameters import Parameters
from fastserve.worker.models.signature import Port, resolve
from fastserve.worker.models.tensors import NUMPY
from fastserve.worker.models.whole import WholeBatch

if TYPE_CHECKING:
    from fastserve.worker.model import Array, Calls, ModelSpec, WorkerModel

_TYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_CUDA = "CUDAExecutionProvider"
_TRIAL_ROWS = 7  # a number that no model has by itself


def open_model(spec: ModelSpec, _calls: Calls | None) -> WorkerModel:
    try:
        import onnxruntime
    except ImportError as error:
        raise errors.FailedPrecondition(
            f"backend: onnxruntime cannot be imported ({error}); install fastserve[onnxruntime]"
        ) from None
    return OnnxModel(onnxruntime, spec)


def model_file(spec: ModelSpec, usual: tuple[str, ...]) -> Path:
    """What the configuration names, else the usual names, else the only file with such a suffix."""
    folder = Path(spec.folder)
    if named := spec.config.get("default_model_filename"):
        return folder / str(named)
    for name in usual:
        if (folder / name).exists():
            return folder / name
    suffixes = {Path(name).suffix for name in usual}
    found = [path for path in sorted(folder.iterdir()) if path.suffix in suffixes]
    if len(found) != 1:
        raise errors.InvalidArgument(f"the version folder has no {' or '.join(usual)}")
    return found[0]


class OnnxModel(WholeBatch):
    """One session."""

    def __init__(self, runtime: Any, spec: ModelSpec) -> None:
        given = Parameters(spec.parameters)
        providers = _providers(runtime, given.any_text("device", "cpu"))
        options = _options(runtime, given, spec.threads)
        given.done()
        path = model_file(spec, ("model.onnx",))
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise errors.InvalidArgument(f"'{path.name}': ONNX Runtime: {_first_line(error)}") from None
        if len(providers) > 1 and _device_of(self._session) == "CPU":
            raise errors.FailedPrecondition(
                f"ONNX Runtime's {_CUDA} does not start: is there a GPU, CUDA and cuDNN?"
            )
        nodes_in, nodes_out = self._session.get_inputs(), self._session.get_outputs()
        inputs = [_port(node, "input") for node in nodes_in]
        outputs = [_port(node, "output") for node in nodes_out]
        obstacle = "" if spec.config.get("max_batch_size") == 0 else self._rows_do_not_follow(inputs)
        resolved = resolve(spec.config, inputs, outputs, obstacle)
        self._feeds = {
            s.name: inputs[i].name for s, i in zip(resolved.inputs, resolved.input_ports, strict=True)
        }
        self._fetches = {
            s.name: outputs[i].name for s, i in zip(resolved.outputs, resolved.output_ports, strict=True)
        }
        self._texts = [s.name for s in resolved.inputs if s.datatype == "BYTES"]
        self._asked = list(self._fetches.values())
        properties = {
            "device": _device_of(self._session),
            "batching": resolved.batching,
            "runtime": f"onnxruntime {runtime.__version__}",
            **({"graphs": "none: ONNX Runtime runs batch by batch"} if len(providers) > 1 else {}),
            "threads": str(options.intra_op_num_threads),
        }
        self.description = Description(
            resolved.max_batch_rows, resolved.inputs, resolved.outputs, properties, "onnxruntime_onnx"
        )

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What ONNX Runtime says about an input's values or shape is the client's fault; it has no finer codes."""
        feeds = {self._feeds[name]: array for name, array in inputs.items()}
        for name in self._texts:
            feeds[self._feeds[name]] = _decoded(name, inputs[name])
        try:
            results = self._session.run(self._asked, feeds)
        except Exception as error:
            raise _run_error(error) from None
        return {name: np.asarray(result) for name, result in zip(self._fetches, results, strict=True)}

    def _rows_do_not_follow(self, inputs: list[Port]) -> str:
        """Names of free dimensions decide where there are any; else one run of zeros with 7 rows."""
        rows_in = [_front(node) for node in self._session.get_inputs()]
        rows_out = [_front(node) for node in self._session.get_outputs()]
        if any(not isinstance(dim, str) and dim is not None for dim in rows_in):
            return ""  # `resolve` says which
        if any(isinstance(dim, int) for dim in rows_out):
            return f"an output has {next(d for d in rows_out if isinstance(d, int))} rows whatever the input"
        names = set(rows_in) | set(rows_out)
        if len(names) == 1 and None not in names:
            return ""
        named = {dim for dim in rows_in if dim is not None}
        if len(named) > 1:
            return f"the inputs' leading dimensions differ: {', '.join(sorted(map(str, named)))}"
        return self._trial(inputs)

    def _trial(self, inputs: list[Port]) -> str:
        feeds = {}
        for port in inputs:
            shape = [_TRIAL_ROWS, *(max(dim, 1) for dim in port.shape[1:])]
            empty = np.full(shape, "", np.object_)
            feeds[port.name] = empty if port.datatype == "BYTES" else np.zeros(shape, NUMPY[port.datatype])
        try:
            results = self._session.run(None, feeds)
        except Exception as error:
            return f"a run with {_TRIAL_ROWS} rows failed: {_first_line(error)}"
        for node, result in zip(self._session.get_outputs(), results, strict=True):
            shape = list(np.shape(result))
            if not shape or shape[0] != _TRIAL_ROWS:
                return f'output "{node.name}" has shape {shape} for inputs of {_TRIAL_ROWS} rows'
        return ""


def _providers(runtime: Any, device: str) -> list[Any]:
    """The CPU's alone, or CUDA's with the CPU's behind it, for operations that it lacks. InvalidArgument, FailedPrecondition."""
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if found is None:
        raise errors.InvalidArgument(f'parameters["device"]: got "{device}", want cpu, cuda or cuda:N')
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if _CUDA not in runtime.get_available_providers():
        raise errors.FailedPrecondition(
            f'parameters["device"]: got "{device}", but ONNX Runtime {runtime.__version__} has no {_CUDA} here: '
            "it comes with the package onnxruntime-gpu, installed instead of onnxruntime"
        )
    return [(_CUDA, {"device_id": found[1] or "0"}), "CPUExecutionProvider"]


def _device_of(session: Any) -> str:
    """ONNX Runtime goes on without a provider that does not start: what it really has."""
    if _CUDA not in session.get_providers():
        return "CPU"
    return f"CUDA:{session.get_provider_options()[_CUDA].get('device_id', '0')}"


def _options(runtime: Any, given: Parameters, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = given.number("intra_op_thread_count", threads)
    options.inter_op_num_threads = given.number("inter_op_thread_count", 1)
    options.enable_cpu_mem_arena = given.flag("enable_mem_arena", True)
    options.enable_mem_pattern = given.flag("enable_mem_pattern", True)
    levels = {"all": "ALL", "extended": "EXTENDED", "basic": "BASIC", "disable": "DISABLE_ALL"}
    level = levels[given.text("graph_optimization_level", "all", tuple(levels))]
    name = level if level == "DISABLE_ALL" else f"ENABLE_{level}"
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{name}")
    # Idle threads of one model would spin where other models run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in given.prefixed("session.").items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 3
    return options


def _port(node: Any, side: str) -> Port:
    datatype = _TYPES.get(node.type)
    if datatype is None:
        raise errors.Unimplemented(f'{side} "{node.name}" of the model: type {node.type} is not supported')
    return Port(node.name, datatype, tuple(dim if isinstance(dim, int) else -1 for dim in node.shape))


def _front(node: Any) -> int | str | None:
    """A number, a name, or None: free and nameless. A scalar has 0 rows."""
    dim: int | str | None = node.shape[0] if node.shape else 0
    return dim


def _decoded(name: str, array: Array) -> Array:
    """ONNX Runtime takes str."""
    out = np.empty(array.shape, np.object_)
    for at, element in enumerate(array.flat):
        try:
            out.flat[at] = element.decode() if isinstance(element, bytes) else element
        except UnicodeDecodeError:
            raise errors.InvalidArgument(f'inputs["{name}"][{at}]: is not UTF-8 text') from None
    return out


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _run_error(error: Exception) -> errors.FastserveError:
    text = f"ONNX Runtime: {_first_line(error)}"
    return errors.InvalidArgument(text) if "INVALID_ARGUMENT" in text else errors.Internal(text)
