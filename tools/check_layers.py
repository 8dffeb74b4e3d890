"""Checks that every #include in csrc/ points downwards. The tables here *are* the document.

    python tools/check_layers.py            errors as file:line, exit code 1 when there are any
    python tools/check_layers.py --print    the tables

To allow a new include, change a table in a commit of its own and say why in csrc/README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parent.parent / "csrc"
SUFFIXES = {".h", ".hpp", ".cc", ".cpp", ".cu", ".cuh"}

# Bottom up. A row may include the rows below it, never its neighbours and never up.
ROWS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("tensor",),
    ("queue", "memory"),
    ("local",),
    ("batch",),
    ("backend",),
    ("sched",),
    ("model",),
    ("engine", "codec"),
    ("frontend", "client"),
    ("bind",),
)

# Narrower than its row. codec turns bytes into events, with no I/O, no threads and no engine.
NARROWED: dict[str, frozenset[str]] = {
    "codec": frozenset({"base", "tensor", "memory", "batch"}),
    # Linked into programs that have no engine.
    "client": frozenset({"base", "tensor", "local"}),
}


class VendorRule(NamedTuple):
    """Headers of a library that only some files may include."""

    library: str
    header: str  # regular expression over what stands in the #include
    files: str  # regular expression over the path below csrc/
    where: str  # the same for people


VENDORS: tuple[VendorRule, ...] = (
    VendorRule("OpenVINO", r"openvino/", r"backend/openvino[^/]*$", "backend/openvino*"),
    VendorRule(
        "CUDA",
        # cuda_driver.h is cuda.h by another name: every other layer sees integers.
        r"(cuda|cuda_runtime|cuda_runtime_api|cuda_fp16|driver_types|nvml)\.h$|NvInfer|backend/cuda_driver\.h$",
        r"backend/cuda[^/]*$",
        "backend/cuda*",
    ),
    VendorRule("nghttp2", r"nghttp2/", r"codec/http2[^/]*$", "codec/http2*"),
    VendorRule("OpenSSL", r"openssl/", r"codec/tls[^/]*$", "codec/tls*"),
    VendorRule("Python", r"(Python\.h$|pybind11/|numpy/)", r"bind/", "bind"),
    # Not in the engine, which builds on a machine without any network library.
    VendorRule("llhttp", r"llhttp\.h$", r"(codec|frontend)/", "codec, frontend"),
    VendorRule("simdjson", r"simdjson\.h$", r"(codec|frontend)/", "codec, frontend"),
    VendorRule("protozero", r"protozero/", r"(codec|frontend)/", "codec, frontend"),
    VendorRule("zlib", r"zlib\.h$", r"(codec|frontend)/", "codec, frontend"),
)

INCLUDE = re.compile(r'^\s*#\s*(?:include|import)\s*(?:"(?P<quoted>[^"]+)"|<(?P<angled>[^>]+)>)')


def allowed(layer: str) -> frozenset[str]:
    """The other layers that a layer may include."""
    if layer in NARROWED:
        return NARROWED[layer]
    below: set[str] = set()
    for row in ROWS:
        if layer in row:
            return frozenset(below)
        below.update(row)
    raise KeyError(layer)


LAYERS = tuple(layer for row in ROWS for layer in row)
ALLOWED: dict[str, frozenset[str]] = {layer: allowed(layer) for layer in LAYERS}


def includes(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line number, what is included, whether in quotes) of every #include of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            yield number, match["quoted"] or match["angled"], match["quoted"] is not None


def check_file(path: Path, csrc: Path) -> Iterator[str]:
    inside = path.relative_to(csrc).as_posix()
    shown = f"{csrc.name}/{inside}"
    layer = inside.split("/")[0]
    if layer not in ALLOWED:
        yield f"{shown}:1: {layer} is not a layer: add it to ROWS in tools/check_layers.py"
        return
    for number, name, quoted in includes(path):
        for rule in VENDORS:
            if re.match(rule.header, name) and not re.match(rule.files, inside):
                yield f"{shown}:{number}: only {rule.where} may include {rule.library} ({name})"
        target = name.split("/")[0]
        if not quoted:
            if "/" in name and target in ALLOWED and (csrc / name).exists():
                yield f'{shown}:{number}: own header in angle brackets: write "{name}"'
        elif name.startswith("..") or "/" not in name:
            if not any(re.match(rule.header, name) for rule in VENDORS):
                wanted = f"<layer>/{Path(name).name}"
                yield f'{shown}:{number}: "{name}" is not relative to csrc/: write "{wanted}"'
        elif target in ALLOWED and target != layer and target not in ALLOWED[layer]:
            yield f"{shown}:{number}: layer {layer} may not include {target} ({name})"


def check(csrc: Path = CSRC) -> list[str]:
    """All broken rules below a csrc/ folder, sorted by file and line."""
    errors: list[str] = []
    for path in sorted(csrc.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file():
            errors += check_file(path, csrc)
    return errors


def print_tables() -> None:
    print("layer      may include")
    for layer in reversed(LAYERS):
        names = [name for name in LAYERS if name in ALLOWED[layer]]
        print(f"{layer:<10} {' '.join(names) or '-'}")
    print("\nlibrary    only in")
    for rule in VENDORS:
        print(f"{rule.library:<10} {rule.where}")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/check_layers.py", description="Checks the layers of csrc/.")
    parser.add_argument("--print", action="store_true", help="show the tables and exit")
    parser.add_argument("csrc", nargs="?", type=Path, default=CSRC)
    arguments = parser.parse_args(argv)
    if arguments.print:
        print_tables()
        return 0
    errors = check(arguments.csrc)
    print("\n".join([*errors, f"layers: {len(errors)} broken rules"]))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
