"""Sends one request to a running server and prints what comes back."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

SHOWN_VALUES = 8

EXAMPLES = """\
examples:
  fastserve infer digits --input image=random
  fastserve infer digits --input image=digit.npy --input 'mask=[[1, 0, 1]]' --save answer.npz
  fastserve infer digits --input zeros --batch 8 --repeat 1000

An input is NAME=file.npy, NAME=file.json, NAME=<JSON>, NAME=random or NAME=zeros; without NAME= when the model has one.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server's REST port")
    parser.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="[NAME=]DATA",
        help="what to send, once for each input of the model",
    )
    parser.add_argument(
        "--version", dest="model_version", default="", metavar="N", help="of the model; else its newest"
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="for random and zeros: what -1 in a shape is"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="N", help="send it N times and show the latencies"
    )
    parser.add_argument("--seed", type=int, default=0, help="of random")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--save", type=Path, metavar="FILE.npz", help="write the outputs into a file")


def run(args: argparse.Namespace) -> int:
    from fastserve.cli import rest

    if args.repeat < 1 or args.batch < 1:
        raise CommandError("--repeat and --batch start at 1")
    path = rest.model_path(args.model, args.model_version)
    with rest.Rest(args.url) as server:
        metadata = server.json("GET", path)
        arrays = _inputs(metadata, args.inputs, args.batch, args.seed)
        body, headers = rest.encode(arrays)
        latencies_ms = []
        for _ in range(args.repeat):
            started = time.perf_counter()
            answer_headers, content = server.request("POST", f"{path}/infer", body, headers)
            latencies_ms.append((time.perf_counter() - started) * 1e3)
    answer = rest.decode(answer_headers, content)
    if args.save:
        _save(args.save, answer)
    (_print_json if args.json else _print)(answer, sorted(latencies_ms))
    return 0


def _inputs(
    metadata: dict[str, Any], given: list[str], batch: int, seed: int
) -> list[tuple[str, str, Array]]:
    import numpy as np

    specs = {spec["name"]: spec for spec in metadata["inputs"]}
    generator = np.random.default_rng(seed)
    arrays = []
    for text in given:
        name, separator, data = text.partition("=")
        if not separator or (name not in specs and len(specs) == 1 and not name.isidentifier()):
            if len(specs) != 1:
                raise CommandError(
                    f"--input {text}: the model has {len(specs)} inputs: NAME=DATA ({', '.join(specs)})"
                )
            name, data = next(iter(specs)), text
        if name not in specs:
            raise CommandError(f"--input {text}: no input '{name}'; there are {', '.join(specs)}")
        spec = specs[name]
        arrays.append((name, spec["datatype"], _array(spec, data, batch, generator)))
    if not given:
        wanted = ", ".join(f"{s['name']} {s['datatype']}{s['shape']}" for s in specs.values())
        example = " ".join(f"--input {name}=random" for name in specs)
        raise CommandError(f"no --input given; the model takes {wanted}; try {example}")
    return arrays


def _array(spec: dict[str, Any], data: str, batch: int, generator: Any) -> Array:
    import numpy as np

    datatype = spec["datatype"]
    shape = [batch if size < 0 else size for size in spec["shape"]]
    if data == "zeros":
        return np.full(shape, b"", object) if datatype == "BYTES" else np.zeros(shape, _dtype(datatype))
    if data == "random":
        return _random(datatype, shape, generator)
    try:
        if data.endswith(".npy"):
            array: Array = np.load(data, allow_pickle=False)
        else:
            array = np.array(json.loads(Path(data).read_text() if data.endswith(".json") else data))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CommandError(f"--input {spec['name']}={data}: {reason}") from None
    target = _dtype(datatype)
    if not (
        np.can_cast(array.dtype, target, "same_kind") or (data[-4:] != ".npy" and array.dtype.kind in "biuf")
    ):
        raise CommandError(f"--input {spec['name']}={data}: holds {array.dtype}, the model takes {datatype}")
    return array.astype(target)


def _dtype(datatype: str) -> Any:
    import numpy as np

    from fastserve.cli.rest import DTYPES

    return np.dtype({"BYTES": "O", "BF16": "<f4"}.get(datatype) or DTYPES[datatype])


def _random(datatype: str, shape: list[int], generator: Any) -> Array:
    import numpy as np

    if datatype == "BYTES":
        words = [b"word%d" % number for number in generator.integers(0, 1000, int(np.prod(shape)))]
        return np.array(words, object).reshape(shape)
    dtype = _dtype(datatype)
    if dtype.kind == "f":
        return np.asarray(generator.random(shape), dtype)
    return np.asarray(generator.integers(0, 2 if dtype.kind == "b" else 100, shape), dtype)


def _save(path: Path, answer: dict[str, Any]) -> None:
    import numpy as np

    arrays = {output["name"]: output["array"] for output in answer["outputs"]}
    for name, array in arrays.items():
        if array.dtype == object:  # .npz holds no Python objects unless they are pickled
            arrays[name] = array.astype(np.bytes_)
    try:
        with path.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise CommandError(f"--save {path}: {error.strerror or error}") from None


def _plain(array: Array) -> list[Any]:
    return [e.decode("utf-8", "replace") if isinstance(e, bytes) else e for e in array.ravel().tolist()]


def _quantiles(latencies_ms: list[float]) -> dict[str, float]:
    at = len(latencies_ms) - 1
    return {"min": latencies_ms[0], "p50": latencies_ms[at // 2], "p99": latencies_ms[round(at * 0.99)]}


def _print_json(answer: dict[str, Any], latencies_ms: list[float]) -> None:
    outputs = [
        {"name": o["name"], "datatype": o["datatype"], "shape": o["shape"], "data": _plain(o["array"])}
        for o in answer["outputs"]
    ]
    shown = {
        "model_name": answer.get("model_name"),
        "model_version": answer.get("model_version"),
        "outputs": outputs,
    }
    print(json.dumps(shown | {"latency_ms": _quantiles(latencies_ms)}))


def _print(answer: dict[str, Any], latencies_ms: list[float]) -> None:
    print(f"{answer.get('model_name', '')} version {answer.get('model_version', '')}")
    for output in answer["outputs"]:
        values = _plain(output["array"])
        texts = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values[:SHOWN_VALUES]]
        more = f" ... ({len(values)} values)" if len(values) > SHOWN_VALUES else ""
        print(f"  {output['name']} {output['datatype']}{output['shape']}: {' '.join(texts)}{more}")
    quantiles = _quantiles(latencies_ms)
    if len(latencies_ms) > 1:
        print(
            f"  {len(latencies_ms)} requests, ms: " + ", ".join(f"{k} {v:.2f}" for k, v in quantiles.items())
        )
    else:
        print(f"  {latencies_ms[0]:.2f} ms")
