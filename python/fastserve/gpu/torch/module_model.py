"""An nn.Module that a Python program holds, served by its engine on a GPU: eager code, captured.

    add_graph_backend(engine.core, "resnet", module_opener(resnet.eval(), inputs=[...], outputs=[...], max_batch_rows=64))
    engine.load("resnet", backend="resnet")

The engine has the module from then on: training it meanwhile changes what is served (graphs read the weights where they are).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastserve import errors
from fastserve.gpu.source import GraphLoad
from fastserve.gpu.torch.device import TorchDevice
from fastserve.gpu.torch.graph_model import TorchGraphModel
from fastserve.gpu.torch.open_model import refuse_random
from fastserve.gpu.torch.sizes import sizes_for
from fastserve.worker.model import ModelSpec, TensorSpec
from fastserve.worker.models.torch_models import TorchModel


def module_opener(
    module: Any, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch_rows: int
) -> Callable[[GraphLoad], TorchGraphModel]:
    """`module` takes the inputs in this order and returns a tensor, a tuple in the outputs' order, or a dict by their names.
    It is moved to each device that it is loaded on, so it stays where it was loaded last. `max_batch_rows`: 0 = no batching."""
    import torch

    def open_module(load: GraphLoad) -> TorchGraphModel:
        device = TorchDevice(torch, load.device, load.device_uuid)
        before = device.allocated_bytes()
        program = ModuleProgram(torch, module, device.device, inputs, outputs, max_batch_rows)
        refuse_random(program, load.graphs)
        sizes = sizes_for(max_batch_rows, load.spec.allowed_rows)
        return TorchGraphModel(device, program, sizes, device.allocated_bytes() - before)

    return open_module


class ModuleProgram(TorchModel):
    """Runs a module's own `forward`."""

    format = "eager"

    def __init__(
        self,
        torch: Any,
        module: Any,
        device: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        max_batch_rows: int,
    ) -> None:
        self._torch, self._device = torch, device
        self._module = module.to(device)
        self._order = [spec.name for spec in inputs]
        self._outputs = [spec.name for spec in outputs]
        tensors = (*module.parameters(), *module.buffers())
        self._describe(max_batch_rows, (list(inputs), list(outputs)), precision=self._precision(tensors))

    def _load(self, spec: ModelSpec, path: Any) -> None:
        raise NotImplementedError  # it is loaded already

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        result = self._module(*(tensors[name] for name in self._order))
        if isinstance(result, dict):
            return result
        parts = list(result) if isinstance(result, (tuple, list)) else [result]
        if len(parts) < len(self._outputs):
            raise errors.Internal(f"outputs: the module returned {len(parts)}, want {len(self._outputs)}")
        return dict(zip(self._outputs, parts, strict=False))

    def draws_random_numbers(self) -> str:
        """Dropout in training mode; what `forward` draws itself shows in the warm-up."""
        for name, part in self._module.named_modules():
            if part.training and getattr(part, "p", 0) and "Dropout" in type(part).__name__:
                return f"{type(part).__name__} {name!r} in training mode"
        return ""
