"""The public surface of `fastserve`, as golden text: what changes here changes programs.

python tests/python/embedding/test_public_api.py --write
"""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fastserve

GOLDEN = Path(__file__).with_name("public_api.txt")


def surface() -> Iterator[str]:
    for name in fastserve.__all__:
        value = getattr(fastserve, name)
        if not inspect.isclass(value):
            yield f"{name}: {type(value).__name__}" if name == "__version__" else f"{name}: type alias"
            continue
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})"
        yield from (f"    {line}" for line in sorted(members(value)))


def members(cls: type) -> Iterator[str]:
    if issubclass(cls, fastserve.FastserveError):
        yield f"code = {cls.code}"
        return
    if dataclasses.is_dataclass(cls):
        yield from (f"{field.name}: {field.type}" for field in dataclasses.fields(cls))
        return
    for name, member in vars(cls).items():
        if name.startswith("_") and name not in {
            "__init__",
            "__enter__",
            "__aenter__",
            "__dlpack__",
            "__dlpack_device__",
        }:
            continue
        if isinstance(member, property):
            yield f"{name}: {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]
        elif inspect.isfunction(member) and member.__module__.startswith("fastserve"):
            kind = "async def" if inspect.iscoroutinefunction(member) else "def"
            yield f"{kind} {name}{inspect.signature(member)}"


def test_the_public_surface_is_as_written_down() -> None:
    assert "\n".join(surface()) + "\n" == GOLDEN.read_text()


def test_importing_is_light() -> None:
    """No front end, no loop, no backend, and of other packages numpy alone."""
    text = (
        "import sys, fastserve; fastserve.Engine;"
        "heavy = ('grpc', 'google.protobuf', 'uvloop', 'openvino', 'torch', 'cuda', 'pydantic', 'starlette');"
        "print([m for m in heavy if m in sys.modules], open('/proc/self/maps').read().count('libopenvino'))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "0"]


if __name__ == "__main__":
    text = "\n".join(surface()) + "\n"
    if "--write" in sys.argv:
        GOLDEN.write_text(text)
    else:
        print(text, end="")
