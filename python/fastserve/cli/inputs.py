"""--input and --shape: what the user says of a request's tensors -> arrays of the model's datatypes."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    import numpy.typing as npt

    from fastserve.client import ModelMetadata, TensorMetadata

    Array = npt.NDArray[Any]

HELP = """\
An input is NAME=file.npy, NAME=file.npz (its entry NAME), NAME=file.json, NAME=<JSON>, NAME=random or NAME=zeros; without
NAME= when the model has one.
"""
_MAX_ELEMENTS = 1 << 31


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="[NAME=]DATA",
        help="what to send, once for each input of the model",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="for random and zeros: what -1 in a shape is"
    )
    parser.add_argument(
        "--shape",
        dest="shapes",
        action="append",
        default=[],
        metavar="[NAME=]N,N,...",
        help="for random and zeros: the whole shape, where -1 in it is not --batch",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random")


def tensors(
    metadata: ModelMetadata, args: argparse.Namespace, *, default: str = "", seed_offset: int = 0
) -> dict[str, Any]:
    """Name -> array (BF16: client.Input). `default`: DATA of the inputs that are not given; "" = all must be."""
    import numpy as np

    if args.batch < 1:
        raise CommandError("--batch starts at 1")
    specs = {spec.name: spec for spec in metadata.inputs}
    data = dict(_named("--input", text, specs) for text in args.inputs)
    shapes = {name: _shape(text) for name, text in (_named("--shape", text, specs) for text in args.shapes)}
    if default:
        data = {name: data.get(name, default) for name in specs}
    if not data:
        wanted = ", ".join(f"{s.name} {s.datatype}{list(s.shape)}" for s in specs.values())
        example = " ".join(f"--input {name}=random" for name in specs)
        raise CommandError(f"no --input given; the model takes {wanted}; try {example}")
    generator = np.random.default_rng(args.seed + seed_offset)
    return {
        name: _tensor(specs[name], text, _filled(specs[name], shapes, args.batch), generator)
        for name, text in data.items()
    }


def _named(flag: str, text: str, specs: Mapping[str, TensorMetadata]) -> tuple[str, str]:
    name, separator, data = text.partition("=")
    if not separator or (name not in specs and len(specs) == 1 and not name.isidentifier()):
        if len(specs) != 1:
            raise CommandError(
                f"{flag} {text}: the model has {len(specs)} inputs: NAME=DATA ({', '.join(specs)})"
            )
        name, data = next(iter(specs)), text
    if name not in specs:
        raise CommandError(f"{flag} {text}: no input '{name}'; there are {', '.join(specs)}")
    return name, data


def _shape(text: str) -> list[int]:
    try:
        shape = [int(size) for size in text.strip("[]").split(",")]
    except ValueError:
        raise CommandError(
            f"--shape {text}: expected numbers with commas between them: 1,3,224,224"
        ) from None
    if min(shape) < 0 or math.prod(shape) > _MAX_ELEMENTS:
        raise CommandError(f"--shape {text}: expected sizes from 0, and at most {_MAX_ELEMENTS} elements")
    return shape


def _filled(spec: TensorMetadata, shapes: Mapping[str, list[int]], batch: int) -> list[int]:
    given = shapes.get(spec.name)
    if given is None:
        return [batch if size < 0 else size for size in spec.shape]
    if len(given) != len(spec.shape) or any(w not in (-1, g) for w, g in zip(spec.shape, given, strict=True)):
        raise CommandError(f"--shape {spec.name}={given}: the model takes {list(spec.shape)}")
    return given


def _tensor(spec: TensorMetadata, data: str, shape: list[int], generator: Any) -> Any:
    from fastserve.client import Input

    array = _array(spec, data, shape, generator)
    return Input(array, "BF16") if spec.datatype == "BF16" else array


def _array(spec: TensorMetadata, data: str, shape: list[int], generator: Any) -> Array:
    import numpy as np

    datatype = spec.datatype
    if data == "zeros":
        return np.full(shape, b"", object) if datatype == "BYTES" else np.zeros(shape, _dtype(datatype))
    if data == "random":
        return _random(datatype, shape, generator)
    try:
        if data.endswith(".npy"):
            array: Array = np.load(data, allow_pickle=False)
        elif data.endswith(".npz"):
            array = np.load(data, allow_pickle=False)[spec.name]
        else:
            array = np.array(json.loads(Path(data).read_text() if data.endswith(".json") else data))
    except (OSError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CommandError(f"--input {spec.name}={data}: {reason}") from None
    target = _dtype(datatype)
    is_file = data.endswith((".npy", ".npz"))
    if not (np.can_cast(array.dtype, target, "same_kind") or (not is_file and array.dtype.kind in "biuf")):
        raise CommandError(f"--input {spec.name}={data}: holds {array.dtype}, the model takes {datatype}")
    return array.astype(target)


def _dtype(datatype: str) -> Any:
    import numpy as np

    from fastserve.client.tensors import DTYPES

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
