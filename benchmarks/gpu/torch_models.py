"""Models of torch_rows.py in plain torch, and the engine that serves one of them on the CUDA lane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fastserve import Engine
from fastserve.gpu.source import add_graph_backend
from fastserve.gpu.torch.module_model import module_opener
from fastserve.worker.model import TensorSpec

DEVICE = "cuda:0"


class Bottleneck(torch.nn.Module):
    def __init__(self, wide: int, narrow: int, stride: int) -> None:
        super().__init__()
        out = narrow * 4
        self.main = torch.nn.Sequential(
            *unit(wide, narrow, 1, 1), *unit(narrow, narrow, 3, stride), *unit(narrow, out, 1, 1)[:2]
        )
        same = wide == out and stride == 1
        self.side = torch.nn.Identity() if same else torch.nn.Sequential(*unit(wide, out, 1, stride)[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(x) + self.side(x))


def unit(wide: int, out: int, kernel: int, stride: int) -> list[torch.nn.Module]:
    convolution = torch.nn.Conv2d(wide, out, kernel, stride, kernel // 2, bias=False)
    return [convolution, torch.nn.BatchNorm2d(out), torch.nn.ReLU()]


class ResNet50(torch.nn.Module):
    """He et al. 2015, stride in the 3x3 convolution; takes NCHW, computes channels-last."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[torch.nn.Module] = [*unit(3, 64, 7, 2), torch.nn.MaxPool2d(3, 2, 1)]
        wide = 64
        for stage, (narrow, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
            for block in range(blocks):
                parts.append(Bottleneck(wide, narrow, 2 if stage and not block else 1))
                wide = narrow * 4
        self.parts = torch.nn.Sequential(*parts)
        self.classes = torch.nn.Linear(wide, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.parts(x.contiguous(memory_format=torch.channels_last))
        return self.classes(x.mean((2, 3)))


def resnet() -> tuple[torch.nn.Module, torch.nn.Module]:
    """(FP16 to be served, FP32 to compare with), with statistics of real activations, so that values stay in FP16's range."""
    torch.manual_seed(1)
    reference = ResNet50().to(DEVICE).train()
    with torch.no_grad():
        for _ in range(8):
            reference(torch.randn(16, 3, 224, 224, device=DEVICE))
    reference.eval()
    served = ResNet50().to(DEVICE).eval()
    served.load_state_dict(reference.state_dict())
    return served.half().to(memory_format=torch.channels_last), reference


class Mlp(torch.nn.Module):
    """Many small layers: what launching costs is most of what it costs."""

    def __init__(self, layers: int = 30, wide: int = 256, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(wide, wide, dtype=dtype) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class RowsSum(torch.nn.Module):
    """Every row of the answer has the sum of all rows in it, so padding that is not zero shows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.sum(0, keepdim=True)


IMAGES = TensorSpec("x", "FP16", [-1, 3, 224, 224])
SCORES = TensorSpec("y", "FP16", [-1, 1000])


@contextmanager
def served(
    module: torch.nn.Module,
    given: TensorSpec,
    answer: TensorSpec,
    most_rows: int,
    *,
    lanes: int = 2,
    sizes: tuple[int, ...] = (),
    load: bool = True,
) -> Iterator[Engine]:
    """The module as model "m"."""
    with Engine() as engine:
        opener = module_opener(module, inputs=[given], outputs=[answer], max_batch_rows=most_rows)
        add_graph_backend(engine.core, "module", opener)
        if load:
            engine.load(
                "m",
                backend="module",
                max_batch_rows=most_rows,
                allowed_batch_sizes=sizes,
                parameters={"lanes": str(lanes)},
            )
        yield engine


def images(rows: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng().standard_normal((rows, 3, 224, 224), np.float32).astype(np.float16)


def relative_error(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    """Of norms; infinite when anything is no number."""
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    if got64.shape != want64.shape or not np.isfinite(got64).all():
        return float("inf")
    return float(np.linalg.norm(got64 - want64) / np.linalg.norm(want64))
