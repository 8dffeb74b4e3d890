"""One thread a call, at its own priority."""

from __future__ import annotations

import os
import threading

import pytest

from fastserve.lifecycle.loaders import LoaderThreads


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)  # of the calling thread


async def test_a_call_has_the_priority_that_was_asked_for() -> None:
    seen: dict[str, tuple[int, bool]] = {}
    here = threading.get_native_id()

    def look(name: str) -> None:
        seen[name] = nice(), threading.get_native_id() == here

    before = nice()
    await LoaderThreads().run("plain", lambda: look("plain"))
    await LoaderThreads().run("poll", lambda: look("poll"), 3)
    assert seen == {"plain": (before, False), "poll": (min(before + 3, 19), False)}
    assert nice() == before


async def test_a_call_that_raises_ends_its_future() -> None:
    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await LoaderThreads().run("fails", fail)
