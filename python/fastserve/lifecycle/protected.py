"""Models that lie encrypted in the repository: model.onnx.enc, or model.xml.enc with model.bin.enc.

They are decrypted in memory, by a hook that the operator names (`--model-decrypt-hook`), and handed to OpenVINO without a file;
OpenVINO's cache of compiled models is off for them, as it would hold the weights in the clear. Memory that we own is
overwritten after the load; what a hook returns and Python copies on the way is only given back. The hook runs on a loader's
thread, with the rights of the server.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fastserve import _core
from fastserve.errors import FailedPrecondition, FastserveError, InvalidArgument
from fastserve.lifecycle import aes_gcm
from fastserve.lifecycle.regular_file import open_regular
from fastserve.lifecycle.version_spec import VersionSpec

SUFFIX = ".enc"
MAX_FILE_BYTES = 32 << 30  # encrypted; it is held in memory twice for a moment

Hook = Callable[[bytes], bytes | bytearray | memoryview]
Report = Callable[[float, str], None]


def core_spec(spec: VersionSpec, report: Report | None = None) -> _core.LoadSpec:
    """As VersionSpec.to_core, with the model itself where its file is encrypted. Raises InvalidArgument, FailedPrecondition: it
    cannot be decrypted; no hook is configured; its backend takes files only."""
    core = spec.to_core()
    if not spec.path.endswith(SUFFIX):
        return core
    if not spec.decrypt_hook:
        raise FailedPrecondition(
            f"'{Path(spec.path).name}' is encrypted: name what decrypts it with --model-decrypt-hook"
        )
    if spec.backend != "openvino":
        raise InvalidArgument(
            f"'{Path(spec.path).name}' is encrypted, which backend {spec.backend} does not take: only openvino does"
        )
    parts = [_decrypted(Path(spec.path), spec.decrypt_hook, report)]
    weights = Path(spec.path.removesuffix(f".xml{SUFFIX}") + f".bin{SUFFIX}")
    if spec.path.endswith(f".xml{SUFFIX}") and weights.exists():
        parts.append(_decrypted(weights, spec.decrypt_hook, report))
    try:
        core.hold(parts[0], parts[1] if len(parts) > 1 else b"")
    finally:
        for part in parts:
            _wipe(part)
    return core


def check_hook(text: str) -> None:
    """Raises InvalidArgument, FailedPrecondition: what is wrong with --model-decrypt-hook. "": nothing."""
    if text:
        hook_of(text)


@cache
def hook_of(text: str) -> Hook:
    """`module:function`, `aes-gcm:file=FILE` or `aes-gcm:env=NAME`. The key is read now, once."""
    module, _, name = text.partition(":")
    if module == "aes-gcm":
        return aes_gcm.decryptor(aes_gcm.read_key(name))
    if not module or not name:
        raise InvalidArgument(f"got '{text}', want MODULE:FUNCTION, aes-gcm:file=FILE or aes-gcm:env=NAME")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise InvalidArgument(f"'{text}' cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise InvalidArgument(f"'{text}' is no function")
    return found


def _decrypted(path: Path, hook: str, report: Report | None) -> bytes | bytearray | memoryview:
    if report is not None:
        report(0.0, f"decrypting {path.name}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidArgument(
            f"'{path.name}' has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are decrypted"
        )
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise InvalidArgument(f"'{path.name}' cannot be read: {error.strerror or error}") from None
    try:
        plain = hook_of(hook)(content)
    except FastserveError as error:
        raise InvalidArgument(f"'{path.name}' cannot be decrypted: {error}") from None
    except Exception as error:  # the hook is the operator's code; its message must not show what it worked on
        raise InvalidArgument(f"'{path.name}' cannot be decrypted: {type(error).__name__}") from None
    if not isinstance(plain, (bytes, bytearray, memoryview)):
        raise InvalidArgument(f"--model-decrypt-hook returned {type(plain).__name__}, want bytes")
    return plain


def _wipe(data: bytes | bytearray | memoryview) -> None:
    """What can be written to."""
    view = memoryview(data)
    if not view.readonly and view.contiguous:
        flat = view.cast("B")
        zeros = bytes(min(len(flat), 1 << 20))
        for start in range(0, len(flat), len(zeros) or 1):
            flat[start : start + len(zeros)] = zeros[: len(flat) - start]
