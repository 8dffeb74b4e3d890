"""Where the backend plug-ins are and which backend takes which file. Opens none of them."""

from __future__ import annotations

from pathlib import Path

from fastserve import _core
from fastserve.gpu import backends as gpu_backends
from fastserve.worker.registration import register_workers

_PLUGINS = {"openvino": "libfastserve_openvino.so"}

# What a version directory holds -> the backend that runs it, in the order in which they are looked for.
MODEL_FILES: dict[str, str] = {
    "model.xml": "openvino",
    "model.onnx": "openvino",
    "model.savedmodel": "openvino",
    "saved_model.pb": "openvino",
    "model.tflite": "openvino",
    "model.pdmodel": "openvino",
    "model.py": "python",
    "model.pt": "pytorch",
    "model.pt2": "pytorch",
    "model.plan": "tensorrt",
}
# Looked for where there is none of those; decrypted in memory (--model-decrypt-hook).
ENCRYPTED_FILES = ("model.xml.enc", "model.onnx.enc")
# Backends that run a file which another one takes unless they are asked for.
_ALSO = {"onnxruntime": ("model.onnx",), "tensorrt": ("model.onnx",)}
_BY_SUFFIX = {Path(name).suffix: backend for name, backend in MODEL_FILES.items()}


def backend_for(path: Path | None) -> str:
    """The backend for a model file or version directory; "" when its name says nothing."""
    if path is None:
        return ""
    if path.suffix == ".enc":
        return "openvino"
    if path.suffix in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix]
    for name, backend in MODEL_FILES.items():
        if (path / name).exists():
            return backend
    return ""


# How OpenVINO says that it lacks an operation (conversion), or that its CPU plug-in does (compilation).
_LACKS = ("OpConversionFailure", "No conversion rule found", "not supported", "Unsupported operation")


def second_choice(backend: str, path: str, refusal: str) -> str:
    """The backend that may run a model which nobody asked another one to run, and which the usual one refused; "": none."""
    onnx = path.endswith(".onnx") or Path(path, "model.onnx").exists()
    lacks = any(words in refusal for words in _LACKS)
    return "onnxruntime" if backend == "openvino" and onnx and lacks else ""


def reads(backend: str, name: str) -> bool:
    """Whether a backend runs files of this (usual) name."""
    return MODEL_FILES[name] == backend or name in _ALSO.get(backend, ())


def register(core: _core.Engine, *, allow_python_models: bool = False) -> None:
    """Tells the engine where its plug-ins are; the first model of a backend opens one."""
    package = Path(__file__).resolve().parent
    for backend, file_name in _PLUGINS.items():
        for folder in (Path(_core.__file__).resolve().parent, package):
            if (folder / file_name).exists():
                core.add_plugin(backend, str(folder / file_name))
                break
    register_workers(core, allow_python_models=allow_python_models)
    gpu_backends.register(core)
