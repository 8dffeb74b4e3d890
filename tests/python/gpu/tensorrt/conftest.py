"""Libraries and loads for tests of the loader: no GPU, no TensorRT (tests/support/simulated_tensorrt.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import simulated_tensorrt as simulated

from fastserve import _core
from fastserve.gpu.source import GraphLoad
from fastserve.gpu.tensorrt import libraries
from fastserve.gpu.tensorrt.libraries import RTX, TENSORRT, Library
from fastserve.gpu.tensorrt.onnx_plan import Gpu
from fastserve.gpu.tensorrt.open_model import open_with
from fastserve.gpu.tensorrt.settings import read_settings

H200 = Gpu("NVIDIA H200", "9.0", "GPU-1")


class Bench:
    """Opens files with a simulated library. `told`: progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.driver = simulated.FakeDriver()
        self.told: list[tuple[float, str]] = []
        self.gpu = H200
        self.use(TENSORRT, simulated.module())

    def use(self, name: str, trt: Any) -> Library:
        self.trt = trt
        self.library = libraries._found[name] = Library(trt, name)
        return self.library

    def open(self, content: bytes, name: str = "model.plan", *, lanes: int = 1, **spec: Any) -> Any:
        (self.folder / name).write_bytes(content)
        given = {"plan_cache": str(self.folder / "cache")} | spec.pop("parameters", {})
        loaded = _core.LoadSpec(
            "m", 1, backend="tensorrt", path=str(self.folder / name), parameters=given, **spec
        )
        load = GraphLoad(loaded, 0, "GPU-1", "NVIDIA H200", lanes, True, self._tell)
        return open_with(load, read_settings(given), self.driver, self.gpu)  # type: ignore[arg-type]

    def _tell(self, part: float, what: str) -> None:
        self.told.append((part, what))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path)
    for name in (TENSORRT, RTX):
        libraries._found.pop(name, None)


@pytest.fixture
def rtx(bench: Bench) -> Bench:
    bench.use(RTX, simulated.module("1.7.1.116", rtx=True))
    return bench


@pytest.fixture
def called(bench: Bench) -> Callable[[str], int]:
    """How often something was called."""
    return lambda what: sum(what in call for call in bench.trt.calls)
