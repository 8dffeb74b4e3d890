"""What a person reads when the server is ready: addresses, models, what failed and why, and a curl to
paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastserve import _core
from fastserve.lifecycle import ModelState
from fastserve.server.example_request import curl

_DIM, _BOLD, _RED, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"


def banner(
    version: str,
    addresses: Mapping[str, str],
    statuses: Sequence[_core.VersionStatus],
    states: Sequence[ModelState],
    *,
    http_url: str = "",
    curl_options: str = "",
    gpus: Sequence[_core.GpuMemory] = (),
    color: bool = False,
) -> str:
    """Several lines, the last one with its line end. `addresses`: "http", "grpc" and "metrics" ->
    host:port. `http_url`: when it is not http://. `gpus`: those in use."""
    dim, bold, red, reset = (_DIM, _BOLD, _RED, _RESET) if color else ("", "", "", "")
    http_url = http_url or f"http://{addresses['http']}"
    urls = [
        ("REST", http_url),
        ("gRPC", addresses["grpc"]),
        ("metrics", f"http://{addresses['metrics']}/metrics"),
        *(
            (name, addresses[key])
            for name, key in (("REST", "http_unix"), ("gRPC", "grpc_unix"), ("local", "local"))
            if key in addresses
        ),
    ]
    ready = [s for s in statuses if s.state == "READY"]
    failed = [s for s in states if s.state == "FAILED"]
    lines = [f"{bold}fastserve {version}{reset}", ""]
    lines += [f"  {name:<8} {url}" for name, url in urls]
    lines += [f"  {'GPU':<8} {gpu['device']} {gpu['name']} {dim}{gpu['uuid']}{reset}" for gpu in gpus]
    lines += ["", *(f"  {bold}{s.model}{reset} {dim}{describe(s)}{reset}" for s in ready)]
    if not ready:
        lines.append("  no model is ready")
    lines += [f"  {red}{_name(s)} failed{reset}: {s.reason}" for s in failed]
    lines += ["", f"  {curl(http_url.removeprefix('http://'), ready, curl_options)}", ""]
    return "\n".join(lines) + "\n"


def describe(status: _core.VersionStatus) -> str:
    """`version 1 · openvino · image FP32[-1,8,8] → logits FP32[-1,10]`."""
    inputs, outputs = (", ".join(map(_tensor, specs)) for specs in (status.inputs, status.outputs))
    return f"version {status.version} · {status.platform or status.backend} · {inputs} → {outputs}"


def _tensor(spec: _core.TensorSpec) -> str:
    return f"{spec.name} {spec.datatype}[{','.join(map(str, spec.shape))}]"


def _name(state: ModelState) -> str:
    return state.model if state.version is None else f"{state.model} version {state.version}"
