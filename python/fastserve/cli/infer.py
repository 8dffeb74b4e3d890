"""Sends one request to a running server and prints what comes back."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli import connect, inputs
from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastserve.client import Result

    Array = npt.NDArray[Any]

SHOWN_VALUES = 8

EXAMPLES = f"""\
examples:
  fastserve infer digits --input image=random
  fastserve infer digits --input image=digit.npy --input 'mask=[[1, 0, 1]]' --save answer.npz
  fastserve infer digits --input zeros --batch 8 --repeat 1000 --url grpc://127.0.0.1:8001

{inputs.HELP}"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    connect.arguments(parser, default_url="http://127.0.0.1:8000")
    inputs.arguments(parser)
    parser.add_argument(
        "--version", dest="model_version", default="", metavar="N", help="of the model; else its newest"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="send it N times and show the latencies"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="write the outputs into a file")


def run(args: argparse.Namespace) -> int:
    if args.repeat < 1 or args.batch < 1:
        raise CommandError("--repeat and --batch start at 1")
    with connect.server(args, binary=True) as server:
        metadata = server.metadata(args.model, version=args.model_version)
        arrays = inputs.tensors(metadata, args)
        latencies_ms = []
        for _ in range(args.repeat):
            started = time.perf_counter()
            answer = server.infer(args.model, arrays, version=args.model_version)
            latencies_ms.append((time.perf_counter() - started) * 1e3)
    if args.save:
        _save(args.save, answer)
    (_print_json if args.json else _print)(answer, sorted(latencies_ms))
    return 0


def _shown(answer: Result, name: str) -> Array:
    """BF16 as float32, which numpy prints and stores without another package."""
    import numpy as np

    array = answer[name]
    if answer.datatypes[name] != "BF16":
        return array
    wide = np.ascontiguousarray(array).view("<u2").astype("<u4") << 16
    return wide.view("<f4").reshape(array.shape)


def _save(path: Path, answer: Result) -> None:
    import numpy as np

    arrays = {name: _shown(answer, name) for name in answer}
    for name, array in arrays.items():
        if array.dtype == object:  # .npz holds no Python objects unless they are pickled
            arrays[name] = array.astype(np.bytes_)
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise CommandError(f"--save {path}: {error.strerror or error}") from None


def _plain(array: Array) -> list[Any]:
    return [e.decode("utf-8", "replace") if isinstance(e, bytes) else e for e in array.ravel().tolist()]


def _quantiles(latencies_ms: list[float]) -> dict[str, float]:
    at = len(latencies_ms) - 1
    return {"min": latencies_ms[0], "p50": latencies_ms[at // 2], "p99": latencies_ms[round(at * 0.99)]}


def _print_json(answer: Result, latencies_ms: list[float]) -> None:
    outputs = [
        {
            "name": name,
            "datatype": answer.datatypes[name],
            "shape": list(array.shape),
            "data": _plain(_shown(answer, name)),
        }
        for name, array in answer.items()
    ]
    shown = {"model_name": answer.model, "model_version": answer.model_version, "outputs": outputs}
    print(json.dumps(shown | {"latency_ms": _quantiles(latencies_ms)}))


def _print(answer: Result, latencies_ms: list[float]) -> None:
    print(f"{answer.model} version {answer.model_version}")
    for name, array in answer.items():
        values = _plain(_shown(answer, name))
        texts = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:SHOWN_VALUES]]
        more = f" ... ({len(values)} values)" if len(values) > SHOWN_VALUES else ""
        print(f"  {name} {answer.datatypes[name]}{list(array.shape)}: {' '.join(texts)}{more}")
    quantiles = _quantiles(latencies_ms)
    if len(latencies_ms) > 1:
        print(
            f"  {len(latencies_ms)} requests, ms: " + ", ".join(f"{k} {v:.2f}" for k, v in quantiles.items())
        )
    else:
        print(f"  {latencies_ms[0]:.2f} ms")
