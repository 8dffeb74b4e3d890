"""A TritonPythonModel, open: its configuration completed, its answers checked request by request."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from fastserve import errors
from fastserve.worker.model import Answer
from fastserve.worker.models.arguments import arguments
from fastserve.worker.models.failure import failure
from fastserve.worker.models.pb_config import ModelConfig, using_decoupled_model_transaction_policy
from fastserve.worker.models.pb_request import InferenceRequest, InferenceResponse, TritonModelException
from fastserve.worker.models.tensors import configured, quoted, rows_of, wrong_output

if TYPE_CHECKING:
    from fastserve.worker.model import Description, ModelSpec, Request


class TritonModel:
    """`initialize` has run when it is made."""

    def __init__(self, model_class: Any, spec: ModelSpec) -> None:
        self._spec = spec
        config = _completed(model_class, spec)
        self._description = _describe(config)
        self._names = tuple(output.name for output in self._description.outputs)
        self._known = {output.name: output for output in self._description.outputs}
        self._model = model_class()
        if hasattr(self._model, "initialize"):
            self._model.initialize(arguments(spec, config))
        if not hasattr(self._model, "execute"):
            raise errors.InvalidArgument("model.py: TritonPythonModel has no method execute(self, requests)")
        if inspect.isgeneratorfunction(self._model.execute):
            raise errors.Unimplemented(_NO_DECOUPLED)

    def describe(self) -> Description:
        return self._description

    def finalize(self) -> None:
        if hasattr(self._model, "finalize"):
            self._model.finalize()

    def execute(self, requests: list[Request]) -> list[Answer]:
        """What `execute` raises fails all of them, one bad response only its own request."""
        spec = self._spec
        given = [
            InferenceRequest.arrived(request, spec.model, spec.version, self._names) for request in requests
        ]
        try:
            responses = self._model.execute(given)
            if inspect.isawaitable(responses):
                responses = asyncio.run(_awaited(responses))
            _check_count(responses, len(requests))
        except Exception as error:
            return [self._failed(*_failure(error)) for _ in requests]
        return [self._answer(*pair) for pair in zip(requests, responses, strict=True)]

    def _answer(self, request: Request, response: Any) -> Answer:
        if not isinstance(response, InferenceResponse):
            kind = "None" if response is None else type(response).__name__
            return self._failed(
                errors.Internal.code, f"execute: got {kind} for this request, want InferenceResponse"
            )
        if (error := response.error()) is not None:
            return self._failed(error.grpc_code(), error.message())
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        rows = rows_of(request.inputs) if self._description.max_batch_rows else None
        wanted = request.outputs or self._names
        for name in wanted:
            if name not in outputs:
                text = f'outputs["{name}"]: missing in the response, which has {quoted(list(outputs))}'
                return self._failed(errors.Internal.code, text)
            if wrong := wrong_output(self._known[name], outputs[name], rows):
                return self._failed(errors.Internal.code, wrong)
        return Answer({name: outputs[name] for name in wanted}, parameters=response.given_parameters())

    @staticmethod
    def _failed(code: int, message: str) -> Answer:
        return Answer(error=(code, message))


_NO_DECOUPLED = (
    "model_transaction_policy.decoupled: models that answer a request several times are not supported yet"
)


def _completed(model_class: Any, spec: ModelSpec) -> dict[str, Any]:
    """The configuration with what the model says itself."""
    config = dict(spec.config)
    if hasattr(model_class, "auto_complete_config"):
        completed = model_class.auto_complete_config(ModelConfig(config))
        if not isinstance(completed, ModelConfig):
            raise errors.InvalidArgument(
                f"auto_complete_config: returned {type(completed).__name__}, want the ModelConfig that it got"
            )
        config = completed.as_dict()
    config.setdefault("max_batch_size", 0)
    config.setdefault("input", [])
    config.setdefault("output", [])
    if using_decoupled_model_transaction_policy(config):
        raise errors.Unimplemented(_NO_DECOUPLED)
    return config


def _describe(config: dict[str, Any]) -> Description:
    from fastserve.worker.model import Description

    rows = int(config["max_batch_size"])
    inputs = configured(config, "input", batches=rows > 0)
    outputs = configured(config, "output", batches=rows > 0)
    for side, specs in (("input", inputs), ("output", outputs)):
        if not specs:
            raise errors.InvalidArgument(
                f"config.{side}: is missing: neither the configuration nor auto_complete_config names one"
            )
    return Description(rows, inputs, outputs, {"form": "TritonPythonModel"}, "python")


async def _awaited(responses: Any) -> Any:
    return await responses


def _check_count(responses: Any, count: int) -> None:
    if responses is None:
        raise errors.Internal(f"execute: returned None, want a list of {count} responses")
    if not isinstance(responses, (list, tuple)):
        raise errors.Internal(f"execute: returned {type(responses).__name__}, want a list of responses")
    if len(responses) != count:
        raise errors.Internal(f"execute: returned {len(responses)} responses for {count} requests")


def _failure(error: Exception) -> tuple[int, str]:
    if isinstance(error, TritonModelException):
        return errors.Internal.code, str(error)
    return failure(error)
