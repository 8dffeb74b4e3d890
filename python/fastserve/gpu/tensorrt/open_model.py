"""What a version of backend `tensorrt` is opened with, on one GPU: model.plan (or any other name), or model.onnx."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastserve import _core, errors
from fastserve.gpu.source import GraphLoad
from fastserve.gpu.tensorrt import layout, libraries
from fastserve.gpu.tensorrt.build_profiles import wanted_of
from fastserve.gpu.tensorrt.driver import Driver
from fastserve.gpu.tensorrt.engine import Engine, open_engine
from fastserve.gpu.tensorrt.graph_model import TensorRTGraphModel
from fastserve.gpu.tensorrt.onnx_plan import BuiltPlan, Gpu, plan_of
from fastserve.gpu.tensorrt.plan_cache import PlanCache, open_cache
from fastserve.gpu.tensorrt.plan_file import PlanHeader, read_header
from fastserve.gpu.tensorrt.runtime_cache import runtime_cache
from fastserve.gpu.tensorrt.settings import TensorRTSettings, read_settings
from fastserve.gpu.tensorrt.signature import read_ports

ONNX_SUFFIX = ".onnx"
USUAL_FILES = ("model.plan", "model.onnx")


def open_model(load: GraphLoad) -> TensorRTGraphModel:
    """FailedPrecondition: no TensorRT, or a plan for another version or GPU. InvalidArgument: the file or its configuration."""
    settings = read_settings(load.spec.parameters)
    return open_with(load, settings, Driver(), _gpu(load))


def open_with(load: GraphLoad, settings: TensorRTSettings, driver: Driver, gpu: Gpu) -> TensorRTGraphModel:
    path = _file(Path(load.spec.path))
    store = open_cache(settings.plan_cache, settings.plan_cache_bytes)
    if path.suffix == ONNX_SUFFIX:
        library = (
            libraries.first_library() if settings.library == "auto" else libraries.library(settings.library)
        )
        plan = plan_of(
            library, path, wanted_of(load.spec), settings.build, gpu, driver.version(), store, load.progress
        )
        header = PlanHeader(library.name, library.version)
    else:
        plan, header = _read_plan(path)
        library = libraries.library(header.library if settings.library == "auto" else settings.library)
    load.progress(0.95, f"opening the plan of {path.name}")
    opened = open_engine(
        library, plan.content, path.name, header, gpu.text, host_code=settings.engine_host_code_allowed
    )
    return _graph_model(load, settings, driver, opened, plan, store)


def _graph_model(
    load: GraphLoad,
    settings: TensorRTSettings,
    driver: Driver,
    opened: Engine,
    plan: BuiltPlan,
    store: PlanCache | None,
) -> TensorRTGraphModel:
    library, spec = opened.library, load.spec
    ports = read_ports(library, opened.engine)
    fitted = layout.decide(
        ports,
        layout.read_profiles(library, opened.engine, ports, settings.profiles),
        max_batch_rows=spec.max_batch_rows,
        allowed=spec.allowed_rows,
        given_inputs=spec.inputs,
        given_outputs=spec.outputs,
    )
    return TensorRTGraphModel(
        opened,
        driver,
        fitted,
        {"plan": plan.origin, **({"refittable": "yes"} if opened.engine.refittable else {})},
        lanes=load.lanes,
        runtime_cache=runtime_cache(library, opened.engine, store, plan.key),
    )


def _read_plan(path: Path) -> tuple[BuiltPlan, PlanHeader]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.NotFound(f"'{path.name}': {error.strerror or error}") from None
    try:
        header = read_header(content, len(content))
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"'{path.name}' {error.message}") from None
    key = hashlib.sha256(content).hexdigest()
    return BuiltPlan(content, key, f"built by {header.text}"), header


def _file(path: Path) -> Path:
    """NotFound: the folder has none of the usual names."""
    if not path.is_dir():
        return path
    for name in USUAL_FILES:
        if (path / name).exists():
            return path / name
    raise errors.NotFound(f"'{path.name}' has no {' or '.join(USUAL_FILES)}")


def _gpu(load: GraphLoad) -> Gpu:
    devices, reason = _core.cuda_devices()
    for device in devices:
        if device["ordinal"] == load.device:
            return Gpu(device["name"], device["compute_capability"], device["uuid"])
    raise errors.FailedPrecondition(
        f"backend tensorrt needs an NVIDIA GPU: {reason or f'no device {load.device}'}"
    )
