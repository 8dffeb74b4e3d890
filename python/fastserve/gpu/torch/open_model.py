"""model.pt and model.pt2 on a GPU: what a version of the `pytorch` backend with a KIND_GPU group is opened with.

Parameters, beside the lane's (csrc/backend/cuda_settings.h):
    memory_fraction   (0, 1]: how much of the device torch may allocate, in the whole process; the last word counts. Default: all
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastserve import errors
from fastserve.gpu.source import GraphLoad
from fastserve.gpu.torch.device import TorchDevice
from fastserve.gpu.torch.graph_model import TorchGraphModel, refusal
from fastserve.gpu.torch.sizes import sizes_for
from fastserve.worker.model import ModelSpec
from fastserve.worker.models.onnx_runtime import model_file
from fastserve.worker.models.torch_models import TorchModel, open_program
from fastserve.worker.words import CONFIG_PARAMETER, REASON_PARAMETER

_OF_THE_LANE = frozenset({"lanes", "graphs", "completion", "watchdog_ms", "stream_priority"})
_OWN = frozenset({"memory_fraction"})


def open_model(load: GraphLoad) -> TorchGraphModel:
    """FailedPrecondition: no torch, or no GPU that it sees. InvalidArgument: the file, its configuration, or a program that draws
    random numbers."""
    try:
        import torch
    except ImportError as error:
        raise errors.FailedPrecondition(
            f"backend: torch cannot be imported ({error}); install fastserve[torch]"
        ) from None
    return open_with(torch, load)


def open_with(torch: Any, load: GraphLoad) -> TorchGraphModel:
    fraction = _read_parameters(load.spec.parameters)
    spec = _model_spec(load)
    path = model_file(spec, ("model.pt2", "model.pt"))
    device = TorchDevice(torch, load.device, load.device_uuid)
    if fraction:
        device.limit(fraction)
    load.progress(0.0, f"reading {path.name}")
    before = device.allocated_bytes()
    program = open_program(torch, spec, path, device.device)
    refuse_random(program, load.graphs)
    sizes = sizes_for(program.description.max_batch_rows, load.spec.allowed_rows)
    properties = program.description.properties
    if fraction:
        properties["memory_fraction"] = f"{fraction:g}"
    if reason := load.spec.parameters.get(REASON_PARAMETER):
        properties["chosen_because"] = reason
    return TorchGraphModel(device, program, sizes, device.allocated_bytes() - before)


def refuse_random(program: TorchModel, graphs: bool) -> None:
    """InvalidArgument, with the operation. Without graphs torch's own generator does its work."""
    if graphs and (operation := program.draws_random_numbers()):
        raise errors.InvalidArgument(refusal(operation))


def _read_parameters(given: dict[str, str]) -> float:
    """memory_fraction; 0 = not said. InvalidArgument names the parameter."""
    known = _OF_THE_LANE | _OWN
    if unknown := sorted(set(given) - known - {CONFIG_PARAMETER, REASON_PARAMETER}):
        raise errors.InvalidArgument(
            f'parameters["{unknown[0]}"]: is not known with KIND_GPU, there are {", ".join(sorted(known))}'
        )
    text = given.get("memory_fraction", "")
    if not text:
        return 0.0
    try:
        fraction = float(text)
    except ValueError:
        fraction = 0.0
    if not 0.0 < fraction <= 1.0:
        raise errors.InvalidArgument(
            f'parameters["memory_fraction"]: got "{text}", want a number above 0 and at most 1'
        )
    return fraction


def _model_spec(load: GraphLoad) -> ModelSpec:
    """What the loader of the worker processes takes."""
    spec = load.spec
    given = Path(spec.path)
    folder = given if given.is_dir() else given.parent
    config = json.loads(spec.parameters.get(CONFIG_PARAMETER, "") or "{}") or _config_of(load)
    if not given.is_dir():
        config = {**config, "default_model_filename": given.name}
    return ModelSpec(
        model=spec.model,
        version=spec.version,
        folder=str(folder),
        repository=str(folder.parent),
        kind="pytorch",
        config=config,
        parameters={},
        instance=0,
        instance_name=f"{spec.model}_{load.device}",
        threads=0,
    )


def _config_of(load: GraphLoad) -> dict[str, Any]:
    """What a program that embeds the engine said, in the words of Triton's configuration."""
    spec = load.spec
    batches = spec.max_batch_rows > 0
    sides = {
        side: [
            {
                "name": tensor.name,
                "data_type": f"TYPE_{tensor.datatype}",
                "dims": list(tensor.shape)[1:] if batches else list(tensor.shape),
            }
            for tensor in tensors
        ]
        for side, tensors in (("input", spec.inputs), ("output", spec.outputs))
    }
    size = {"max_batch_size": spec.max_batch_rows} if spec.max_batch_rows >= 0 else {}
    return {"name": spec.model, "backend": "pytorch", **size, **sides}
