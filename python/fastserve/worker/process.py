"""What runs in a worker process: one model, one instance, one batch at a time.

    open the channel > make the model > describe it > { batch > execute > answers } > finalize

An exception of the model's fails the requests of its batch (INTERNAL, traceback on stderr, which is the server's log); whatever
else ends the process, the server notices. Thread: the main one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import traceback
from typing import Any

from fastserve import _worker
from fastserve.worker.words import CONFIG_PARAMETER, REASON_PARAMETER

SOCKET, BELL, CALLS = 3, 4, 5

INVALID_ARGUMENT = 3
INTERNAL = 13


def main() -> None:
    if not _worker.end_with_parent(int(os.environ.get("FASTSERVE_WORKER_PARENT", "0"))):
        sys.exit(1)
    faulthandler.enable()  # a crash says where, and so does a hang: the server ends it with SIGABRT
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = _worker.Channel(SOCKET, BELL)
    given = channel.open()
    try:
        model, description = _open(given)
        channel.describe(description)
    except BaseException as error:
        traceback.print_exc()
        code, message = _failure(error, INVALID_ARGUMENT)
        channel.refuse(code, f"model '{given['model']}' does not load: {message}")
        _flush()
        os._exit(1)  # nothing of a half-made model may keep it
    try:
        _serve(channel, model)
    finally:
        model.finalize()
        _flush()


def _open(given: dict[str, Any]) -> tuple[Any, Any]:
    from fastserve.worker.calls import ServerCalls
    from fastserve.worker.model import ModelSpec, open_model

    parameters = dict(given["parameters"])
    config = json.loads(parameters.pop(CONFIG_PARAMETER, "") or "{}") or _config_of(given)
    reason = parameters.pop(REASON_PARAMETER, "")
    spec = ModelSpec(
        model=given["model"],
        version=given["version"],
        folder=given["folder"],
        repository=given["repository"],
        kind=given["kind"],
        config=config,
        parameters=parameters,
        instance=given["instance"],
        instance_name=given["instance_name"],
        threads=given["threads"],
    )
    limit_s = float(parameters.get("execute_timeout_s", "") or 60)
    model = open_model(spec, ServerCalls(CALLS, given["model"], limit_s))
    description = model.describe()
    _check_optional(config, description)
    if reason:
        description.properties.setdefault("chosen_because", reason)
    return model, description


def _check_optional(config: dict[str, Any], description: Any) -> None:
    """The configuration may not promise that an input can be left out which the model needs."""
    from fastserve.errors import InvalidArgument

    needed = {spec.name for spec in description.inputs if not spec.optional}
    for tensor in config.get("input") or []:
        if tensor.get("optional") and tensor["name"] in needed:
            raise InvalidArgument(
                f'config.input["{tensor["name"]}"].optional: got true, want false: the model needs it'
            )


def _config_of(given: dict[str, Any]) -> dict[str, Any]:
    """What is known without a configuration file, in the words of Triton's."""
    batches = given["max_batch_rows"] > 0

    def tensors(specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor["name"],
                "data_type": "TYPE_" + ("STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]),
                "dims": tensor["shape"][1:] if batches else tensor["shape"],
                **({"optional": True} if tensor["optional"] else {}),
            }
            for tensor in specs
        ]

    return {
        "name": given["model"],
        "backend": given["kind"],
        **({"max_batch_size": given["max_batch_rows"]} if given["max_batch_rows"] >= 0 else {}),
        "input": tensors(given["inputs"]),
        "output": tensors(given["outputs"]),
        "parameters": {name: {"string_value": value} for name, value in given["parameters"].items()},
    }


def _serve(channel: _worker.Channel, model: Any) -> None:
    whole = getattr(model, "execute_whole", None)
    if whole is not None:
        while (batch := channel.next_whole()) is not None:
            with _answered(channel):
                channel.answer_whole(whole(*batch))
        return
    from fastserve.worker.model import Request

    execute = model.execute
    while (requests := channel.next(Request)) is not None:
        with _answered(channel):
            channel.answer(execute(requests))


class _answered(contextlib.AbstractContextManager[None]):
    """What the model raises is the answer; made once for each batch, so it is no generator."""

    def __init__(self, channel: _worker.Channel) -> None:
        self._channel = channel

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
        if error is None:
            return True
        if not isinstance(error, Exception):
            return False  # SystemExit, KeyboardInterrupt: the process ends
        traceback.print_exc()
        code, message = _failure(error)
        self._channel.refuse(code, message)
        return True


def _failure(error: BaseException, otherwise: int = INTERNAL) -> tuple[int, str]:
    """gRPC's code and the text for clients: what fastserve raises keeps its code."""
    code = getattr(type(error), "code", None)
    if isinstance(code, int) and 0 < code <= 16 and type(error).__module__ == "fastserve.errors":
        return code, str(error)
    last = traceback.format_exception_only(error)[-1].strip()
    return otherwise, last


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
