"""Operations that draw random numbers, found in programs without running them."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve.worker.models import random_ops

torch = pytest.importorskip("torch")
functional = torch.nn.functional


class Program(torch.nn.Module):
    def __init__(self, code: Any) -> None:
        super().__init__()
        self.code = code

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.code(x)


@pytest.mark.parametrize(
    ("code", "want"),
    [
        (lambda x: x + 1, ""),
        (lambda x: functional.dropout(x, 0.5, True), "aten.dropout.default"),
        (lambda x: functional.dropout(x, 0.5, False), ""),
        (lambda x: functional.dropout(x, 0.0, True), ""),
        (lambda x: x + torch.rand_like(x), "aten.rand_like.default"),
        (torch.bernoulli, "aten.bernoulli.default"),
        (lambda x: functional.scaled_dot_product_attention(x, x, x), ""),
        (
            lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
            "aten.scaled_dot_product_attention.default",
        ),
    ],
)
def test_of_an_exported_program(code: Any, want: str) -> None:
    program = torch.export.export(Program(code), (torch.rand(2, 4, 4),))
    assert random_ops.of_exported(torch, program) == want


def test_a_layer_in_training_mode_is_found_and_in_eval_mode_not() -> None:
    module = torch.nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    for training in (True, False):
        program = torch.export.export(module.train(training), (torch.rand(2, 3, 4),), strict=False)
        assert bool(random_ops.of_exported(torch, program)) == training


class Drops(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x)


class Noise(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = x + torch.randn_like(x)
        return x


def test_of_torchscript() -> None:
    assert random_ops.of_script(torch, torch.jit.script(Drops()).eval()) == ""
    assert random_ops.of_script(torch, torch.jit.script(Noise()).eval()) == "aten.randn_like.default"
    traced = torch.jit.trace(Drops().train(), torch.ones(3), check_trace=False)
    assert random_ops.of_script(torch, traced.eval()) == "aten.dropout.default", "traced while training"
    assert random_ops.of_script(torch, torch.jit.trace(Drops().eval(), torch.ones(3)).eval()) == ""


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.LSTM(4, 4, 2, dropout=0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[0]


def test_of_recurrent_layers() -> None:
    assert random_ops.of_script(torch, torch.jit.script(Recurrent()).eval()) == ""
    program = torch.export.export(Recurrent().train(), (torch.rand(2, 3, 4),))
    assert random_ops.of_exported(torch, program) == "aten.lstm.input"
