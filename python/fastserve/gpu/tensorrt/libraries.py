"""TensorRT as a module that is given: `tensorrt` (10, 11) or `tensorrt_rtx`, whose classes have the same names.

No setter of TensorRT raises and no factory does: they return False, None or nothing at all and write into the log. Everything
that is called goes through Library.made or Library.done, which raise with the lines that the log got meanwhile.

Thread: any. One log for each module and process: TensorRT keeps the first that it sees.
"""

from __future__ import annotations

import importlib
import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeVar

from fastserve import errors

logger = logging.getLogger("fastserve.gpu.tensorrt")

T = TypeVar("T")

TENSORRT, RTX = "tensorrt", "tensorrt_rtx"
NAMES = {TENSORRT: "TensorRT", RTX: "TensorRT-RTX"}
# The wheels of the bindings alone, which is all that `tensorrt_rtx` imports.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
OLDEST = 10  # major version of TensorRT: the calls that are made here

_ERROR, _WARNING = 1, 2  # ILogger.Severity: 0 internal error ... 4 verbose
_KEPT_LINES = 64
_MOST_LINES, _MOST_CHARACTERS = 3, 400  # of the log in a message


class LogLines:
    """The last errors of TensorRT, and who was told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[tuple[int, int, str]] = deque(maxlen=_KEPT_LINES)  # number, thread, text
        self._number = 0

    def add(self, severity: int, text: str) -> None:
        level = logging.WARNING if severity == _WARNING else logging.DEBUG  # errors are raised
        logger.log(level, "TensorRT: %s", text)
        if severity > _ERROR:
            return
        with self._lock:
            self._number += 1
            self._lines.append((self._number, threading.get_ident(), text))

    def mark(self) -> int:
        with self._lock:
            return self._number

    def since(self, mark: int) -> list[str]:
        """Of this thread; of all where it had none: a build has threads of its own."""
        with self._lock:
            lines = [(thread, text) for number, thread, text in self._lines if number > mark]
        own = [text for thread, text in lines if thread == threading.get_ident()]
        return list(dict.fromkeys(own or [text for _, text in lines]))


class Library:
    """One of the modules."""

    def __init__(self, trt: Any, name: str) -> None:
        self.trt = trt
        self.name = name
        self.lines = LogLines()
        self.log = _log(trt, self.lines)

    @property
    def is_rtx(self) -> bool:
        return self.name == RTX

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    @property
    def text(self) -> str:
        return f"{NAMES[self.name]} {self.version}"

    def made(
        self, what: str, call: Callable[[], T | None], kind: type[errors.FastserveError] = errors.Internal
    ) -> T:
        """What a factory or a setter that says True gives. `kind` is raised for None, False and -1."""
        mark = self.lines.mark()
        try:
            result = call()
        except (RuntimeError, TypeError, ValueError) as error:
            raise kind(self.worded(what, mark, str(error))) from None
        if result is None or result is False or _is_negative(result):
            raise kind(self.worded(what, mark))
        return result

    def done(self, what: str, call: Callable[[], object]) -> None:
        """What returns nothing: it failed when the log got an error."""
        mark = self.lines.mark()
        try:
            call()
        except (RuntimeError, TypeError, ValueError) as error:
            raise errors.Internal(self.worded(what, mark, str(error))) from None
        if self.lines.since(mark):
            raise errors.Internal(self.worded(what, mark))

    def worded(self, what: str, mark: int, more: str = "") -> str:
        """`what` failed: TensorRT's own words."""
        lines = self.lines.since(mark)
        said = [*([more] if more else []), *lines[-_MOST_LINES:]] or ["its log says nothing"]
        return f"{self.text}: {what}: " + "; ".join(shortened(line) for line in said)


def _is_negative(result: object) -> bool:
    """The index of something that was not added."""
    return type(result) is int and result < 0


def shortened(line: str) -> str:
    """Without the places in NVIDIA's sources, on one line."""
    text = re.sub(r"\s*\(?In \w+ at /\S*:\d+\)?", "", " ".join(line.split()))
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 3] + "..."


def _log(trt: Any, lines: LogLines) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            with suppress(Exception):  # it is called from C++, which would end the process
                lines.add(int(severity), text)

    return Log()


_found: dict[str, Library] = {}
_finding = threading.Lock()


def library(asked: str) -> Library:
    """`asked`: tensorrt or tensorrt_rtx. Only where the driver has found a GPU.

    FailedPrecondition: it is not installed, or too old."""
    with _finding:
        if asked not in _found:
            _found[asked] = _open(asked)
        return _found[asked]


def first_library() -> Library:
    """TensorRT, or RTX where that alone is installed."""
    reasons = []
    for name in NAMES:
        try:
            return library(name)
        except errors.FailedPrecondition as error:
            reasons.append(error.message)
    raise errors.FailedPrecondition("; ".join(reasons))


def _open(name: str) -> Library:
    reason = ""
    for module in _MODULES[name]:
        try:
            return checked_library(importlib.import_module(module), name)
        except ImportError as error:  # also of a library beside it: libnvinfer.so
            reason = reason or str(error)
    raise errors.FailedPrecondition(
        f"backend tensorrt: {name} cannot be imported ({reason}); pip install {name.replace('_', '-')}"
    )


def checked_library(module: ModuleType | Any, name: str) -> Library:
    found = Library(module, name)
    if name == TENSORRT and found.major < OLDEST:
        raise errors.FailedPrecondition(f"backend tensorrt: got {found.text}, want {OLDEST} or later")
    return found
