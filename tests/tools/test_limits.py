"""The list of limits says what the sources say, and the README what the list says."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> Any:
    spec = importlib.util.spec_from_file_location("limits", ROOT / "tools" / "limits.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["limits"] = module  # dataclasses look for it
    spec.loader.exec_module(module)
    return module


limits = load()
ALL = [limit for group in limits.LIMITS.values() for limit in group]


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: f"{limit.file.rpartition('/')[2]} {limit.name}")
def test_defaults_are_those_of_the_sources(limit: Any) -> None:
    assert limits.value_of(limit) == limit.default


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: f"{limit.file.rpartition('/')[2]} {limit.name}")
def test_every_limit_has_a_test(limit: Any) -> None:
    for name in limit.test.split(", "):
        assert (ROOT / name).exists()
    if limit.flag:
        assert limit.flag in (ROOT / limits.TREE).read_text()


@pytest.mark.parametrize(
    ("file", "struct"),
    [
        ("csrc/codec/http1_head.h", "Http1Limits"),
        ("csrc/codec/http2_flood.h", "Http2Limits"),
        ("csrc/frontend/local_loop.h", "LocalLimits"),
    ],
)
def test_no_limit_of_a_connection_is_left_out(file: str, struct: str) -> None:
    """A field that is added to these structs has to be documented."""
    body = re.search(rf"struct {struct} \{{(.*?)\n\}};", (ROOT / file).read_text(), re.S)
    assert body
    fields = set(re.findall(r"^\s+[\w:]+ (\w+)\s*=", body[1], re.M))
    listed = {limit.name for limit in ALL if limit.file == file}
    # body_bytes and max_streams follow the configuration.
    assert fields - listed <= {"body_bytes", "max_streams"}


def test_the_readme_has_the_table() -> None:
    text = (ROOT / "csrc" / "README.md").read_text()
    if "## Limits" not in text:
        pytest.skip("csrc/README.md has no section Limits")
    assert limits.table() in text
