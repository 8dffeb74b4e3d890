"""A small REST client of the Open Inference Protocol with binary tensors: standard library and numpy."""

from __future__ import annotations

import http.client
import json
import struct
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

REFUSED = 1  # exit code when the server says no
JSON_LENGTH = "Inference-Header-Content-Length"

# OIP datatype -> numpy's. BF16 and BYTES have no fixed-size counterpart there.
DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}


class Rest:
    """One connection to a server."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port or 80
        except ValueError:
            raise CommandError(f"--url: '{url}' has no good port") from None
        if parts.scheme != "http" or not parts.hostname:
            raise CommandError(f"--url: got '{url}', expected http://host:port")
        self._url = url
        self._prefix = parts.path.rstrip("/")
        self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Raises CommandError for what is not 200."""
        try:
            self._connection.request(method, self._prefix + path, body, headers or {})
            response = self._connection.getresponse()
            content = response.read()
        except ConnectionRefusedError:
            hint = "start one with `fastserve serve` or correct --url"
            raise CommandError(f"no server answers at {self._url}: {hint}", REFUSED) from None
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"{self._url}: {str(error) or type(error).__name__}", REFUSED) from None
        if response.status != 200:
            raise CommandError(f"{response.status} {response.reason}: {_error_text(content)}", REFUSED)
        return response.headers, content

    def json(self, method: str, path: str) -> Any:
        _, content = self.request(method, path)
        try:
            return json.loads(content)
        except ValueError:
            raise CommandError(f"{self._url}{path}: the answer is not JSON", REFUSED) from None


def _error_text(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")


def model_path(model: str, version: str = "") -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def encode(inputs: list[tuple[str, str, Array]]) -> tuple[bytes, dict[str, str]]:
    """(name, datatype, array) -> body and headers; every output is asked for in binary."""
    binaries = [to_bytes(datatype, array) for _, datatype, array in inputs]
    described = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype,
            "parameters": {"binary_data_size": len(binary)},
        }
        for (name, datatype, array), binary in zip(inputs, binaries, strict=True)
    ]
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(head))}
    return b"".join([head, *binaries]), headers


def decode(headers: http.client.HTTPMessage, body: bytes) -> dict[str, Any]:
    """The answer's JSON; every output has its array under "array"."""
    length = int(headers.get(JSON_LENGTH, len(body)))
    answer: dict[str, Any] = json.loads(body[:length])
    at = length
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            output["array"] = from_values(output["datatype"], output["shape"], output.get("data", []))
        else:
            output["array"] = from_bytes(output["datatype"], output["shape"], body[at : at + size])
            at += size
    return answer


def to_bytes(datatype: str, array: Array) -> bytes:
    import numpy as np

    if datatype == "BYTES":
        elements = [e if isinstance(e, bytes) else str(e).encode() for e in array.ravel().tolist()]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    if datatype == "BF16":
        return bytes((np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes())
    return bytes(np.ascontiguousarray(array, DTYPES[datatype]).tobytes())


def from_bytes(datatype: str, shape: list[int], data: bytes) -> Array:
    import numpy as np

    if datatype == "BYTES":
        elements, at = [], 0
        while at < len(data):
            (length,) = struct.unpack_from("<I", data, at)
            elements.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        return np.array(elements, object).reshape(shape)
    if datatype == "BF16":
        wide: np.ndarray[Any, Any] = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    return np.frombuffer(data, DTYPES[datatype]).reshape(shape)


def from_values(datatype: str, shape: list[int], values: list[Any]) -> Array:
    import numpy as np

    return np.array(values, DTYPES.get(datatype, object)).reshape(shape)
