"""`Client`: the blocking client. Its asyncio twin is in async_client.py, with the same methods."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from fastserve.client import calls, core
from fastserve.client.calls import Call
from fastserve.client.core import UNSET, Inputs, Request
from fastserve.client.failure import AttemptFailed
from fastserve.client.infer_call import InferCall, infer_call
from fastserve.client.result import (
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    Parameter,
    Result,
    ServerMetadata,
)
from fastserve.client.retry import Retry
from fastserve.client.settings import MAX_CONNECTIONS, MAX_MESSAGE_BYTES, settings
from fastserve.client.tensors import Output
from fastserve.errors import FastserveError

T = TypeVar("T")


class Client:
    """A KServe v2 / Triton server at an address. Any thread may call; a context manager.

        with Client("grpc://127.0.0.1:8001") as client:
            scores = client.infer("digits", {"image": image})["scores"]

    Errors are fastserve.errors.FastserveError (NotFound, InvalidArgument, Unavailable, ...): `.code`, `.message`,
    `.field`. Every method takes `timeout` in seconds for the call as a whole, retries and their pauses included
    (None: no limit; not given: the client's).
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None = 60.0,
        retry: Retry | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str = "",
        headers: Mapping[str, str] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        keepalive: float | None = None,
        binary: bool | None = None,
    ) -> None:
        """`url`: grpc://host:port, grpcs://host:port, http://host[:port], https://host[:port], unix:/path (gRPC) or
        http+unix:/path. Nothing is connected before the first call.

        `retry`: see `Retry`; `Retry(attempts=1)` for none. `ca`, `cert`, `key`: PEM files for TLS and mTLS;
        `server_name`: the name that the certificate has to carry, if it is not the host. `headers`: sent with every
        request (gRPC: metadata), for instance {"Authorization": "Bearer ..."}. `max_connections`: of an HTTP client,
        kept alive for 30 s; further calls wait. gRPC uses one connection. `max_message_bytes`: the largest answer
        (gRPC: and request). `keepalive`: seconds between pings on an idle gRPC connection. `binary`: HTTP with
        binary tensor data; None = if the server's metadata lists it. Raises InvalidArgument.
        """
        self._settings = settings(
            url,
            timeout=timeout,
            retry=retry,
            ca=ca,
            cert=cert,
            key=key,
            server_name=server_name,
            headers=headers,
            max_connections=max_connections,
            max_message_bytes=max_message_bytes,
            keepalive=keepalive,
            binary=binary,
        )
        self._transport: Any
        if self._settings.address.protocol == "grpc":
            from fastserve.client.grpc_sync import GrpcTransport

            self._transport = GrpcTransport(self._settings)
        else:
            from fastserve.client.http_sync import HttpTransport

            self._transport = HttpTransport(self._settings)
        self._binary = binary
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._settings.address}>"

    def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        self._transport.close()

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str | Output] | None = None,
        id: str = "",
        timeout: float | None = UNSET,
        priority: int | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        idempotent: bool = False,
    ) -> Result:
        """Runs one request. `inputs`: {input name: array}, or the array where the model has one input.

        `outputs`: those wanted, all when None. `timeout`: after it DeadlineExceeded, and the server drops the request
        where it can. `parameters`: the request's, for instance {"timeout": 5000} (µs that it may wait in the
        server's queue). `idempotent`: the request may run twice, so it is sent again even when it is not known
        whether it ran.
        """
        seconds, deadline = core.deadline_of(self._settings, timeout)
        call = self._infer_call(
            model,
            inputs,
            deadline,
            version=version,
            outputs=outputs,
            id=id,
            priority=priority,
            parameters=parameters,
        )
        if self._settings.address.protocol == "http" and not self._uses_binary(deadline):
            call = call.in_json()
        return self._attempts(call, seconds, deadline, idempotent)

    def stream(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str | Output] | None = None,
        id: str = "",
        timeout: float | None = UNSET,
        priority: int | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> Iterator[Result]:
        """Every answer of one request, as they come (ModelStreamInfer; gRPC only).

            for part in client.stream("llm", {"prompt": prompt}):
                print(part["text"][0].decode())

        Leaving the loop cancels the request. `timeout` is for the stream as a whole. Never sent again.
        """
        _, deadline = core.deadline_of(self._settings, timeout)
        call = self._infer_call(
            model,
            inputs,
            deadline,
            version=version,
            outputs=outputs,
            id=id,
            priority=priority,
            parameters=parameters,
        )
        return self._raising(self._stream([call], deadline))

    def stream_all(
        self, requests: Iterable[Request], *, timeout: float | None = UNSET
    ) -> Iterator[Result | FastserveError]:
        """Many requests over one stream: answers in the order of their arrival, each with the `id` of its request.

        An error of one request is an item (FastserveError with `request_id`, where the server gives it), not an
        exception: the stream goes on. `requests` is consumed by another thread while answers come.
        """
        _, deadline = core.deadline_of(self._settings, timeout)
        return self._stream(core.calls_of(requests), deadline)

    def live(self, *, timeout: float | None = UNSET) -> bool:
        """The server runs. Raises Unavailable when nothing answers at the address."""
        return self._call(calls.Live(), timeout)

    def ready(self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET) -> bool:
        """The server, or the model, can take requests. A model that is not there is not ready."""
        return self._call(calls.ModelReady(model, str(version)) if model else calls.Ready(), timeout)

    @overload
    def metadata(self, *, timeout: float | None = UNSET) -> ServerMetadata: ...
    @overload
    def metadata(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> ModelMetadata: ...
    def metadata(
        self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET
    ) -> ServerMetadata | ModelMetadata:
        """Of the server, or of a model: its inputs and outputs."""
        call: Call[Any] = calls.ModelMetadata(model, str(version)) if model else calls.ServerMetadata()
        found: ServerMetadata | ModelMetadata = self._call(call, timeout)
        return found

    def config(self, model: str, *, version: str | int = "", timeout: float | None = UNSET) -> dict[str, Any]:
        """The model's configuration (config.pbtxt completed), as Triton's JSON has it."""
        return self._call(calls.ModelConfig(model, str(version)), timeout)

    def statistics(
        self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET
    ) -> list[ModelStatistics]:
        """One entry for each version of the model; of all models without a name."""
        return self._call(calls.Statistics(model, str(version)), timeout)

    def scheduling(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> dict[str, Any]:
        """fastserve only, over HTTP: what the model's batch policy believes and did; `words` has it in sentences."""
        return self._call(calls.Scheduling(model, str(version)), timeout)

    def scheduling_picture(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> str:
        """fastserve only, over HTTP: latency and throughput against batch size, as SVG."""
        return self._call(calls.SchedulingPicture(model, str(version)), timeout)

    def labels(self, model: str, *, timeout: float | None = UNSET) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: what the labels of the model's versions stand for."""
        return self._call(calls.Labels(model), timeout)

    def change_labels(
        self,
        model: str,
        labels: Mapping[str, Mapping[int, float] | None],
        expected: Mapping[str, Mapping[int, float] | None] | None = None,
        *,
        timeout: float | None = UNSET,
    ) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: assigns labels, all at once: {"canary": {3: 95, 4: 5}}; None removes one. `expected`: what
        labels have to stand for now (None: they are not there), else FailedPrecondition. Returns all labels."""
        return self._call(calls.ChangeLabels(model, labels, expected or {}), timeout)

    def states(self, *, timeout: float | None = UNSET) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: every version with its state, labels, memory and counts."""
        return self._call(calls.States(), timeout)

    def reload(self, *, timeout: float | None = UNSET) -> bool:
        """fastserve only, over HTTP: has the server read its repositories again; whether anything is different there. Loads go
        on after the answer (`states`)."""
        return self._call(calls.Reload(), timeout)

    def index(self, *, ready: bool = False, timeout: float | None = UNSET) -> list[IndexEntry]:
        """The models of the repository, or only those that are ready."""
        return self._call(calls.Index(ready), timeout)

    def load(
        self,
        model: str,
        *,
        config: str | Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout: float | None = UNSET,
    ) -> None:
        """Loads or reloads a model of the repository. `config` replaces its configuration; `files`
        ({"1/model.onnx": content}) replaces its directory and needs a config."""
        self._call(core.load_call(model, config, files), timeout)

    def unload(self, model: str, *, dependents: bool = False, timeout: float | None = UNSET) -> None:
        """Stops serving a model; `dependents`: and, of an ensemble, its parts."""
        self._call(calls.Unload(model, dependents), timeout)

    def _call(self, call: Call[T], timeout: Any) -> T:
        seconds, deadline = core.deadline_of(self._settings, timeout)
        return self._attempts(call, seconds, deadline, call.idempotent)

    def _attempts(self, call: Call[T], seconds: float | None, deadline: float | None, idempotent: bool) -> T:
        attempt = 1
        while True:
            try:
                value: T = self._transport.call(call, seconds, deadline)
                return value
            except AttemptFailed as failed:
                time.sleep(core.pause_before_retry(self._settings, attempt, failed, idempotent, deadline))
            attempt += 1

    def _infer_call(self, model: str, inputs: Inputs, deadline: float | None, **arguments: Any) -> InferCall:
        if not core.is_mapping(inputs):
            inputs = core.named(inputs, self._known_metadata(model, str(arguments["version"]), deadline))
        return infer_call(model, inputs, **arguments)

    def _known_metadata(self, model: str, version: str, deadline: float | None) -> ModelMetadata:
        """Asked for once: the input's name does not change while a client lives."""
        found = self._metadata.get((model, version))
        if found is None:
            found = self._attempts(calls.ModelMetadata(model, version), None, deadline, True)
            self._metadata[model, version] = found
        return found

    def _uses_binary(self, deadline: float | None) -> bool:
        if self._binary is None:
            try:
                extensions = self._attempts(calls.ServerMetadata(), None, deadline, True).extensions
                self._binary = core.lists_binary(extensions)
            except FastserveError as error:
                if error.http_status is None:  # not the server's word
                    raise
                self._binary = False
        return self._binary

    def _stream(
        self, requests: Iterable[Call[Any]], deadline: float | None
    ) -> Iterator[Result | FastserveError]:
        if self._settings.address.protocol != "grpc":
            raise core.no_streams()
        items: Iterator[Result | FastserveError] = self._transport.stream(requests, deadline)
        return items

    def _raising(self, items: Iterator[Result | FastserveError]) -> Iterator[Result]:
        for item in items:
            if isinstance(item, FastserveError):
                raise item
            yield item
