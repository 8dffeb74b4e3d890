"""TorchScript (model.pt), torch.export and AOTInductor packages (model.pt2) on PyTorch.

A TorchScript file does not say its shapes, so a configuration must; tensors are called INPUT__0, OUTPUT__0 (by position) or
as the arguments of `forward` and the keys of the dict that it returns. An AOTInductor package neither says its shapes nor the
names of its arguments: by position, or the keys of the dict that it returns. A torch.export file says everything itself.
Parameters: device (cpu, cuda, cuda:N), inter_op_thread_count (1).
Loading runs what the file holds: a TorchScript program can write files, a .pt2 becomes Python code, an AOTInductor package is a
shared object. Load none that you would not run. Plain pickles (torch.save of a module) are refused.

fastserve.gpu.torch opens the same programs on a GPU and captures them (`open_program`, TorchModel.call).
"""

from __future__ import annotations

import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve import errors
from fastserve.worker.model import Description, TensorSpec
from fastserve.worker.models import random_ops
from fastserve.worker.models.onnx_runtime import model_file
from fastserve.worker.models.parameters import OF_THE_SERVER
from fastserve.worker.models.signature import Port, resolve
from fastserve.worker.models.tensors import configured, quoted
from fastserve.worker.models.whole import WholeBatch

if TYPE_CHECKING:
    from fastserve.worker.model import Array, Calls, ModelSpec, WorkerModel

_BY_POSITION = re.compile(r".*__(\d+)")
_NAMES = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_FLOATS = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64"}
_DATATYPES = {**{name: name.upper() for name in _NAMES}, **_FLOATS}  # of torch, without "torch."


def open_model(spec: ModelSpec, _calls: Calls | None) -> WorkerModel:
    try:
        import torch
    except ImportError as error:
        raise errors.FailedPrecondition(
            f"backend: torch cannot be imported ({error}); install fastserve[torch]"
        ) from None
    path = model_file(spec, ("model.pt", "model.pt2"))
    device = _set_up(torch, spec)
    return open_program(torch, spec, path, device)


def open_program(torch: Any, spec: ModelSpec, path: Path, device: Any) -> TorchModel:
    """InvalidArgument: the file is none of the three, or its configuration does not fit it."""
    kind: type[TorchModel] = ScriptModel
    if path.suffix == ".pt2":
        kind = CompiledModel if _is_compiled(path) else ExportedModel
    with torch.inference_mode():
        return kind(torch, spec, path, device)


def datatype_of(dtype: Any) -> str:
    """OIP's name of a torch.dtype; "" when it has none."""
    return _DATATYPES.get(str(dtype).removeprefix("torch."), "")


def dtype_of(torch: Any, datatype: str) -> Any:
    """The other way round; not for BYTES."""
    return getattr(torch, next(name for name, known in _DATATYPES.items() if known == datatype))


def _is_compiled(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/data/aotinductor/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False  # torch.export says what is wrong


def _set_up(torch: Any, spec: ModelSpec) -> Any:
    given = dict(spec.parameters)
    if unknown := sorted(set(given) - OF_THE_SERVER - {"device", "inter_op_thread_count"}):
        raise errors.InvalidArgument(
            f'parameters["{unknown[0]}"]: is not known, there are device, inter_op_thread_count'
        )
    device = given.get("device", "cpu").lower()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise errors.InvalidArgument(f'parameters["device"]: got "{device}", want cpu, cuda or cuda:N')
    if device != "cpu" and not torch.cuda.is_available():
        raise errors.FailedPrecondition(f'parameters["device"]: got "{device}", but torch sees no GPU')
    if spec.threads:
        torch.set_num_threads(spec.threads)
    return torch.device(device)


class TorchModel(WholeBatch):
    """What the formats share: numpy in, numpy out."""

    format = ""

    def __init__(self, torch: Any, spec: ModelSpec, path: Path, device: Any) -> None:
        self._torch = torch
        self._device = device
        self._kinds: dict[str, str] = {}  # of the inputs
        self._load(spec, path)

    def _load(self, spec: ModelSpec, path: Path) -> None:
        raise NotImplementedError

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Tensors on the device, by the served names; inside inference_mode. On the current stream where that is a GPU."""
        raise NotImplementedError

    def draws_random_numbers(self) -> str:
        """The operation that does, when it can be seen in the program; "" = none is seen."""
        return ""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """A failure of the program's is INTERNAL: torch does not tell a wrong value from a wrong program."""
        torch = self._torch
        with torch.inference_mode():
            tensors = {name: self._tensor(name, array) for name, array in inputs.items()}
            try:
                results = self.call(tensors)
            except RuntimeError as error:
                raise errors.Internal(f"PyTorch: {_reason(error)}") from None
            return {name: self._array(name, result) for name, result in results.items()}

    def _tensor(self, name: str, array: Array) -> Any:
        torch = self._torch
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self._kinds[name] == "BF16":
            tensor = tensor.to(torch.bfloat16)
        return tensor.to(self._device)

    def _array(self, name: str, result: Any) -> Array:
        torch = self._torch
        if not isinstance(result, torch.Tensor):
            raise errors.Internal(f'outputs["{name}"]: got {type(result).__name__}, want a tensor')
        if result.dtype == torch.bfloat16:
            result = result.float()
        array: Array = result.detach().cpu().contiguous().numpy()
        return array

    def _describe(self, rows: int, specs: tuple[list[TensorSpec], list[TensorSpec]], **more: str) -> None:
        inputs, outputs = specs
        if texts := [s.name for s in (*inputs, *outputs) if s.datatype == "BYTES"]:
            raise errors.Unimplemented(f"{quoted(texts)}: BYTES: PyTorch has no strings")
        self._kinds = {spec.name: spec.datatype for spec in inputs}
        torch = self._torch
        properties = {
            "device": str(self._device).upper(),
            "runtime": f"torch {torch.__version__}",
            "threads": str(torch.get_num_threads()),
            "format": self.format,
            **more,
        }
        self.description = Description(rows, inputs, outputs, properties, "pytorch_libtorch")

    def _configured(
        self, spec: ModelSpec, what: str, precision: str
    ) -> tuple[list[TensorSpec], list[TensorSpec]]:
        """Of a file that does not say its tensors."""
        rows = int(spec.config.get("max_batch_size") or 0)
        inputs, outputs = (configured(spec.config, side, batches=rows > 0) for side in ("input", "output"))
        for side, specs in (("input", inputs), ("output", outputs)):
            if not specs:
                raise errors.InvalidArgument(
                    f"config.{side}: is missing: {what} does not say its tensors "
                    "(config.pbtxt, model.yaml, or save it with torch.export as model.pt2)"
                )
        self._describe(rows, (inputs, outputs), precision=precision)
        return inputs, outputs

    def _precision(self, tensors: Iterable[Any]) -> str:
        """Datatypes of the weights, "FP16, FP32"; and where the GPU computes FP32 with fewer bits."""
        kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.is_floating_point()}
        words = sorted(_DATATYPES.get(kind, kind) for kind in kinds)
        if self._device.type != "cpu" and "FP32" in words:
            backends = self._torch.backends
            places = [
                *(["matrix products"] if backends.cuda.matmul.allow_tf32 else []),
                *(["convolutions"] if backends.cudnn.allow_tf32 else []),
            ]
            return ", ".join(words) + (f" (TF32 in {' and '.join(places)})" if places else "")
        return ", ".join(words) or "no floating-point weights"


class ScriptModel(TorchModel):
    """TorchScript: the configuration is the signature."""

    format = "TorchScript"

    def _load(self, spec: ModelSpec, path: Path) -> None:
        torch = self._torch
        try:
            self._module = torch.jit.load(str(path), map_location=self._device).eval()
        except (RuntimeError, ValueError) as error:
            raise errors.InvalidArgument(f"'{path.name}' is no TorchScript file: {_reason(error)}") from None
        tensors = (*self._module.parameters(), *self._module.buffers())
        inputs, outputs = self._configured(spec, "a TorchScript file", self._precision(tensors))
        self._outputs = [output.name for output in outputs]
        self._arguments = self._bind([tensor.name for tensor in inputs])

    def _bind(self, names: list[str]) -> Callable[[dict[str, Any]], Any]:
        """How `forward` is called with the configured inputs."""
        module = self._module
        arguments = module.forward.schema.arguments[1:]  # without self
        if len(arguments) == 1 and str(arguments[0].type).startswith("Dict"):
            return lambda tensors: module(tensors)
        known = [argument.name for argument in arguments]
        if set(names) <= set(known):
            needed = [a.name for a in arguments if not a.has_default_value() and a.name not in names]
            if needed:
                raise errors.InvalidArgument(f"config.input: forward's {quoted(needed)} is missing")
            return lambda tensors: module(**tensors)
        order = _positions(names, "input")
        if len(order) > len(known):
            raise errors.InvalidArgument(
                f"config.input: got {len(order)} inputs, forward takes {len(known)} ({quoted(known)})"
            )
        return lambda tensors: module(*(tensors[name] for name in order))

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        return _named(self._arguments(tensors), self._outputs)

    def draws_random_numbers(self) -> str:
        return random_ops.of_script(self._torch, self._module)


class CompiledModel(TorchModel):
    """An AOTInductor package: machine code for one device. The configuration is the signature, as for TorchScript."""

    format = "AOTInductor"

    def _load(self, spec: ModelSpec, path: Path) -> None:
        import torch._inductor

        on_gpu = self._device.type != "cpu"
        try:
            # Single-threaded: its own synchronisation would be captured into CUDA graphs; `call` has a lock instead.
            index = self._device.index if on_gpu and self._device.index is not None else -1
            self._package = torch._inductor.aoti_load_package(
                str(path), run_single_threaded=True, device_index=index
            )
        except Exception as error:  # many kinds
            raise errors.InvalidArgument(
                f"'{path.name}': PyTorch cannot load the AOTInductor package: {_reason(error)}"
            ) from None
        built_for = str(self._package.get_metadata().get("AOTI_DEVICE_KEY", ""))
        if built_for and built_for != self._device.type:
            raise errors.InvalidArgument(
                f"'{path.name}' is compiled for {built_for}, but the model is to run on {self._device.type}"
            )
        inputs, outputs = self._configured(spec, "an AOTInductor package", "as compiled")
        self._order = _positions([tensor.name for tensor in inputs], "input")
        self._outputs = [output.name for output in outputs]
        takes = _leaves(self._package.loader.get_call_spec()[0])
        if takes != len(self._order):
            raise errors.InvalidArgument(
                f"config.input: got {len(self._order)} inputs, the package takes {takes}"
            )
        self._lock = threading.Lock()

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            return _named(self._package(*(tensors[name] for name in self._order)), self._outputs)


class ExportedModel(TorchModel):
    """torch.export: the program is the signature, and the configuration narrows it."""

    format = "torch.export"

    def _load(self, spec: ModelSpec, path: Path) -> None:
        torch = self._torch
        try:
            program = torch.export.load(str(path))
        except Exception as error:  # many kinds, by what is wrong with the archive
            raise errors.InvalidArgument(f"'{path.name}' is no torch.export file: {_reason(error)}") from None
        from torch.utils import _pytree as pytree

        if self._device.type != "cpu":
            program = _moved(program, self._device)
        self._program = program
        self._module = program.module()
        self._flatten, self._unflatten = pytree.tree_flatten, pytree.tree_unflatten
        self._in_spec = program.call_spec.in_spec
        inputs, outputs, rows_do_not_follow = _read_ports(program)
        resolved = resolve(spec.config, inputs, outputs, rows_do_not_follow)
        self._feeds = [
            name
            for _, name in sorted(zip(resolved.input_ports, [s.name for s in resolved.inputs], strict=True))
        ]
        self._fetches = dict(zip([s.name for s in resolved.outputs], resolved.output_ports, strict=True))
        self._describe(
            resolved.max_batch_rows,
            (resolved.inputs, resolved.outputs),
            batching=resolved.batching,
            precision=self._precision((*program.state_dict.values(), *_tensors(program.constants))),
        )

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        args, kwargs = self._unflatten([tensors[name] for name in self._feeds], self._in_spec)
        parts, _ = self._flatten(self._module(*args, **kwargs))
        return {name: parts[at] for name, at in self._fetches.items()}

    def draws_random_numbers(self) -> str:
        return random_ops.of_exported(self._torch, self._program)


def _moved(program: Any, device: Any) -> Any:
    """Weights, and what the program makes on the device on which it was exported."""
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, str(device))


def _tensors(constants: Mapping[str, Any]) -> list[Any]:
    return [value for value in constants.values() if hasattr(value, "is_floating_point")]


def _named(result: Any, names: list[str]) -> dict[str, Any]:
    """What a program returned, by the configured names: keys of its dict, else positions."""
    if isinstance(result, Mapping):
        if missing := [name for name in names if name not in result]:
            raise errors.Internal(
                f"outputs[{quoted(missing[:1])}]: the model returned {quoted(list(result))}"
            )
        return {name: result[name] for name in names}
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    order = _positions(names, "output")
    if len(parts) < len(order):
        raise errors.Internal(f"outputs: the model returned {len(parts)}, config.output has {len(order)}")
    return dict(zip(order, parts, strict=False))


def _leaves(spec: str) -> int:
    """Tensors that a package takes, by its call specification: JSON of a tree whose leaves have no type."""
    version, tree = json.loads(spec)
    del version

    def count(node: dict[str, Any]) -> int:
        return 1 if node["type"] is None else sum(count(child) for child in node["children_spec"])

    return count(tree)


def _read_ports(program: Any) -> tuple[list[Port], list[Port], str]:
    """Inputs, outputs, and "" or why the outputs' rows do not follow the inputs'."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    in_names, out_names = list(signature.user_inputs), list(signature.user_outputs)
    for side, names in (("input", in_names), ("output", out_names)):
        if wrong := [name for name in names if not hasattr(values.get(name), "dtype")]:
            raise errors.Unimplemented(f"{side} {wrong[0]!r} of the model is no tensor")
    spec = program.call_spec.out_spec
    keys = [str(key) for key in spec.context] if spec.type is dict else []
    if len(keys) != len(out_names):
        keys = [f"output_{at}" for at in range(len(out_names))]
    inputs = [_port(n, values[n], (f"INPUT__{at}",)) for at, n in enumerate(in_names)]
    outputs = [
        _port(key, values[n], (f"OUTPUT__{at}",))
        for at, (key, n) in enumerate(zip(keys, out_names, strict=True))
    ]
    fronts = {str(values[n].shape[0]) if values[n].dim() else "scalar" for n in (*in_names, *out_names)}
    obstacle = "" if len(fronts) == 1 else f"leading dimensions differ: {', '.join(sorted(fronts))}"
    return inputs, outputs, obstacle


def _port(name: str, value: Any, also: tuple[str, ...]) -> Port:
    datatype = datatype_of(value.dtype)
    if not datatype:
        raise errors.Unimplemented(f'"{name}" of the model: {value.dtype} is not supported')
    return Port(name, datatype, tuple(dim if isinstance(dim, int) else -1 for dim in value.shape), also)


def _positions(names: list[str], side: str) -> list[str]:
    """In the order of NAME__0, NAME__1 ...; where no name has one, as they are configured."""
    found = [_BY_POSITION.fullmatch(name) for name in names]
    if not any(found):
        return names
    places = {int(match[1]): name for match, name in zip(found, names, strict=True) if match}
    if sorted(places) != list(range(len(names))):
        raise errors.InvalidArgument(
            f"config.{side}: got {quoted(names)}, want names that end in __0 to __{len(names) - 1}, each once"
        )
    return [places[at] for at in range(len(names))]


def _reason(error: BaseException) -> str:
    """The last line with something in it: TorchScript puts a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
