"""Engine.submit: futures, completed by one thread of the engine in bursts."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from fastserve import _core
from fastserve.embedding.types import Outputs


class InferFuture(Future[Outputs]):
    """A `concurrent.futures.Future` of one request. Callbacks run on the engine's completing thread: they should be short."""

    _port: _core.Port
    _number = -1

    def cancel(self) -> bool:
        """True unless the answer is there already. What waits in the queue leaves it; what runs is run and thrown away."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        self._port.cancel(self._number, self)
        return True


class Completer:
    """The port of one engine's futures and the thread that completes them, which starts with the first."""

    def __init__(self, core: _core.Engine) -> None:
        self._port = _core.Port(core)
        self._submit = self._port.submit
        self._flush = self._port.flush
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def submit(self, *request: Any) -> InferFuture:
        if self._thread is None:
            self._start()
        future = InferFuture()
        future._port = self._port
        future._number = self._submit(future, *request)
        self._flush()
        return future

    def finish(self, *, cancel: bool) -> None:
        self._stopping.set()
        if cancel:
            self._port.cancel_all()
        self._port.wake()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        _complete_rest(self._port)
        self._port.close()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                # It does not keep this object, and with it the engine's answers, alive.
                self._thread = threading.Thread(
                    target=_run, args=(self._port, self._stopping), name="fastserve-futures", daemon=True
                )
                self._thread.start()


def _run(port: _core.Port, stopping: threading.Event) -> None:
    while not stopping.is_set():
        port.wait()
        _complete(port)


def _complete_rest(port: _core.Port) -> None:
    _complete(port)
    while port.in_flight:
        port.wait()
        _complete(port)


def _complete(port: _core.Port) -> None:
    for tag, outputs, error in port.take():
        assert isinstance(tag, InferFuture)
        if not tag.set_running_or_notify_cancel():
            continue
        if error is not None:
            tag.set_exception(error)
        else:
            assert outputs is not None
            tag.set_result(outputs)
