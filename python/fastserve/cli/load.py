"""Loads a model on a running server, or loads it again when it has changed (--model-control-mode explicit).

With --config and --file the model is what the command says instead of what the repository has, until the next load or unload.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fastserve.cli import connect
from fastserve.cli.load_progress import LoadProgress
from fastserve.cli.main import CommandError
from fastserve.cli.model_rows import Rows, is_http

EXAMPLES = """\
examples:
  fastserve load digits
  fastserve load digits --config config.pbtxt              with another configuration (or its JSON; - reads stdin)
  fastserve load digits --config digits.json --file 1/model.onnx=model.onnx
  fastserve load digits --url grpc://127.0.0.1:8001        Triton's as well
"""

MAX_FILE_BYTES = 2 << 30  # of one: what a request could carry at all


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--config", metavar="FILE", help="ModelConfig as JSON or as text (config.pbtxt)")
    parser.add_argument(
        "--file",
        dest="files",
        action="append",
        default=[],
        metavar="VERSION/NAME=FILE",
        help="a file that the model consists of; may be given several times; needs --config",
    )
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=600.0)


def run(args: argparse.Namespace) -> int:
    config = read_config(args.config) if args.config else None
    files = read_files(args.files)
    if files and config is None:
        raise CommandError("--file: --config is missing: the configuration of what the files make")
    began = time.monotonic()
    with connect.server(args) as server, connect.server(args) as beside:
        rows = Rows(beside, own=is_http(args))
        with LoadProgress(rows.read, args.model):
            server.load(args.model, config=config, files=files or None)
        ready = [entry.version for entry in server.index(ready=True) if entry.name == args.model]
    versions = ", ".join(sorted(ready, key=lambda v: (len(v), v)))
    print(f"{args.model} version {versions} is ready ({time.monotonic() - began:.1f} s)")
    return 0


def read_config(path: str) -> str:
    """JSON text, whichever way the file has it."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--config {path}: {_reason(error)}") from None
    if text.lstrip().startswith("{"):
        return text
    return _json_of_text(path, text)


def _json_of_text(path: str, text: str) -> str:
    from google.protobuf import json_format, text_format

    from fastserve import protos

    message = protos.message_class("inference.ModelConfig")()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise CommandError(f"--config {path}: {error}") from None
    made: str = json_format.MessageToJson(message, preserving_proto_field_name=True, indent=None)
    return made


def read_files(given: list[str]) -> dict[str, bytes]:
    files = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise CommandError(f"--file: got '{text}', want VERSION/NAME=FILE")
        if name in files:
            raise CommandError(f"--file: {name} is given twice")
        try:
            if Path(path).stat().st_size > MAX_FILE_BYTES:
                raise CommandError(f"--file {name}: {path} has more than {MAX_FILE_BYTES} bytes")
            files[name] = Path(path).read_bytes()
        except OSError as error:
            raise CommandError(f"--file {name}: {path}: {_reason(error)}") from None
    return files


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "is not UTF-8 text"
