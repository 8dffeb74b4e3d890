"""A worker process's end of its channel to the server (csrc/bind/worker, pybind11). Internal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy.typing as npt

def end_with_parent(parent: int) -> bool:
    """From now on this process ends when the server's thread that started it does. False: it is gone already."""

_T = TypeVar("_T")

class Channel:
    """Thread: the process's main one. Waiting releases the interpreter lock. RuntimeError: the server is gone."""

    def __init__(self, socket: int, bell: int) -> None: ...
    def open(self) -> dict[str, Any]:
        """What is to be loaded."""
    def describe(self, description: object) -> None: ...
    def refuse(self, code: int, message: str) -> None:
        """Instead of describe, or of an answer: one error for all."""
    def next(self, request_type: Callable[..., _T]) -> list[_T] | None:
        """The next batch, request by request; None: finalize and end. Arrays are views that the answer ends."""
    def next_whole(self) -> tuple[int, dict[str, npt.NDArray[Any]]] | None:
        """The next batch as it was gathered: rows and {input: array}."""
    def answer(self, answers: Sequence[object]) -> None: ...
    def answer_whole(self, outputs: Mapping[str, npt.NDArray[Any]]) -> None: ...
