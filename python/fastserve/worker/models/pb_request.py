"""pb_utils' requests, responses and errors; a request can also be sent to another model of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastserve import errors
from fastserve.worker.models.pb_tensor import Tensor

if TYPE_CHECKING:
    from fastserve.worker.model import Calls, Parameter, Request

_GRPC = {1: 2, 2: 13, 3: 5, 4: 3, 5: 14, 6: 12, 7: 6, 8: 1}  # TritonError's codes -> gRPC's
_TRITON = {grpc: triton for triton, grpc in _GRPC.items()} | {4: 5, 8: 5}  # late, overloaded: UNAVAILABLE

# Calls to other models; set by pb_utils.bind. One model lives in a process.
_calls: list[Calls | None] = [None]


class TritonModelException(Exception):
    """What pb_utils raises, and what a model may raise to fail all requests of a batch."""


class TritonError:
    """A text and a code. The numbers are fastserve's; use the names."""

    UNKNOWN: ClassVar[int] = 1
    INTERNAL: ClassVar[int] = 2
    NOT_FOUND: ClassVar[int] = 3
    INVALID_ARG: ClassVar[int] = 4
    UNAVAILABLE: ClassVar[int] = 5
    UNSUPPORTED: ClassVar[int] = 6
    ALREADY_EXISTS: ClassVar[int] = 7
    CANCELLED: ClassVar[int] = 8

    def __init__(self, message: str, code: int = 2) -> None:
        if code not in _GRPC:
            raise ValueError(f"TritonError: code: got {code}, want one of TritonError's constants")
        self._message = str(message)
        self._code = code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code

    def grpc_code(self) -> int:
        return _GRPC[self._code]

    def __str__(self) -> str:
        return self._message


class InferenceResponse:
    """Output tensors and parameters for the client, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | str | None = None,
        parameters: dict[str, Parameter] | None = None,
    ) -> None:
        for tensor in output_tensors:
            if not isinstance(tensor, Tensor):
                raise TritonModelException(
                    f"InferenceResponse: output_tensors has a {type(tensor).__name__}, want pb_utils.Tensor"
                )
        if error is not None and not isinstance(error, TritonError):
            error = TritonError(str(error))
        self._outputs = list(output_tensors)
        self._error: TritonError | None = error
        self._parameters = _checked(parameters)

    def output_tensors(self) -> list[Tensor]:
        return self._outputs

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error

    def parameters(self) -> str:
        """JSON."""
        return json.dumps(self._parameters or {})

    def given_parameters(self) -> dict[str, Parameter] | None:
        return self._parameters


def _checked(parameters: Mapping[Any, Any] | None) -> dict[str, Parameter] | None:
    """A copy; None where there are none. Comes from users' programs: anything may be in it."""
    for name, value in (parameters or {}).items():
        if not isinstance(name, str) or not name or not _is_text(name):
            raise TritonModelException(f"InferenceResponse: parameters: got the name {name!r}, want a str")
        if not isinstance(value, (bool, int, float, str)):
            raise TritonModelException(
                f'InferenceResponse: parameters["{name}"]: got {type(value).__name__}, want bool, int, float or str'
            )
        if isinstance(value, str) and not _is_text(value):
            raise TritonModelException(f'InferenceResponse: parameters["{name}"]: is no UTF-8')
    return dict(parameters) if parameters else None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates
        return False
    return True


class PreferredMemory:
    """Where outputs of another model should be. All memory is the CPU's here."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self._type = preferred_memory_type
        self._device_id = preferred_device_id

    def preferred_memory_type(self) -> int:
        return self._type

    def preferred_device_id(self) -> int:
        return self._device_id


class InferenceRequest:
    """One that arrived (execute's), or one to be sent: then model_name, requested_output_names and inputs are needed."""

    def __init__(
        self,
        model_name: str,
        requested_output_names: Sequence[str],
        inputs: Sequence[Tensor],
        request_id: str = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: Any = None,
        parameters: dict[str, Parameter] | None = None,
        priority: int = 0,
    ) -> None:
        """`timeout` is in microseconds, 0 = none; `model_version` -1: the latest."""
        self._model = model_name
        self._version = model_version
        self._outputs = list(requested_output_names)
        self._inputs = list(inputs)
        self._id = request_id
        self._correlation_id = correlation_id
        self._flags = flags
        self._timeout_us = timeout
        self._preferred_memory = preferred_memory
        self._trace = trace
        self._parameters = dict(parameters or {})
        self._priority = priority

    @classmethod
    def arrived(cls, request: Request, model: str, version: int, outputs: Sequence[str]) -> InferenceRequest:
        """`outputs`: the model's, for a client that names none."""
        return cls(
            model,
            request.outputs or outputs,
            [Tensor(name, array) for name, array in request.inputs.items()],
            request.id,
            request.correlation_id,
            version,
            timeout=request.timeout_us,
            parameters=request.parameters,
            priority=request.priority,
        )

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._id

    def correlation_id(self) -> int | str:
        return self._correlation_id

    def requested_output_names(self) -> list[str]:
        return self._outputs

    def model_name(self) -> str:
        return self._model

    def model_version(self) -> int:
        return self._version

    def flags(self) -> int:
        return self._flags

    def set_flags(self, flags: int) -> None:
        self._flags = flags

    def timeout(self) -> int:
        return self._timeout_us

    def priority(self) -> int:
        return self._priority

    def preferred_memory(self) -> PreferredMemory | None:
        return self._preferred_memory

    def trace(self) -> Any:
        return self._trace

    def parameters(self) -> str:
        """JSON."""
        return json.dumps(self._parameters)

    def is_cancelled(self) -> bool:
        """A request that was cancelled before its batch ran never gets here."""
        return False

    def get_response_sender(self) -> Any:
        raise TritonModelException("get_response_sender is for decoupled models, which are not supported")

    def exec(self, decoupled: bool = False) -> InferenceResponse:
        """Sends it and waits. What the other model or the server refuses is the response's error."""
        if decoupled:
            raise TritonModelException("exec(decoupled=True): decoupled models are not supported")
        calls = _calls[0]
        if calls is None:
            text = "calls to other models are not available in this process"
            return InferenceResponse(error=TritonError(text, TritonError.UNSUPPORTED))
        try:
            outputs = calls.infer(
                self._model,
                max(self._version, 0),
                {tensor.name(): tensor.as_numpy() for tensor in self._inputs},
                self._outputs,
                timeout_s=self._timeout_us / 1e6 if self._timeout_us else None,
                priority=self._priority,
                parameters=self._parameters,
                request_id=self._id,
            )
        except errors.FastserveError as error:
            code = _TRITON.get(error.code, TritonError.INTERNAL)
            return InferenceResponse(error=TritonError(error.message, code))
        return InferenceResponse(
            [Tensor(name, array) for name, array in outputs.items()], parameters=outputs.parameters
        )

    async def async_exec(self, decoupled: bool = False) -> InferenceResponse:
        """As `exec`, on a thread of asyncio's: several can be awaited at once."""
        return await asyncio.to_thread(self.exec, decoupled)
