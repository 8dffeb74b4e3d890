"""The short form of `tools/dev model`: the SPIN models of queue and park/wake hold in all states, and seeded faults are found."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("fastserve_model_checks", Path(__file__).parent / "spin.py")
assert _SPEC is not None
assert _SPEC.loader is not None
spin = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = spin  # dataclasses look their module up
_SPEC.loader.exec_module(spin)

_MISSING = spin.missing_tools()
pytestmark = pytest.mark.skipif(
    bool(_MISSING), reason=f"not installed: {' '.join(_MISSING)} (apt-get install spin gcc)"
)

_SHORT = [check for check in spin.CHECKS + spin.MUTANTS if check.short]


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, concurrent.futures.Future]]:
    """All of them, as many at a time as there are processors; a test waits for its own."""
    with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        yield {check.name: pool.submit(spin.run, check) for check in _SHORT}


@pytest.mark.parametrize("check", _SHORT, ids=lambda check: check.name)
def test_the_model(check: spin.Check, outcomes: dict[str, concurrent.futures.Future]) -> None:
    outcome = outcomes[check.name].result()
    assert spin.verdict(check, outcome) == ""


def test_the_mutants_cover_what_matters() -> None:
    """A switch without a mutant in the list, or a mutant that no model has, would be a check that never fires."""
    for model in ("intake", "request_queue", "completion_queue"):
        text = (Path(spin.__file__).parent / f"{model}.pml").read_text()
        if model == "request_queue":
            text += (Path(spin.__file__).parent / "doorbell.pml").read_text()
        listed = {check.mutant for check in spin.MUTANTS if check.model == model}
        numbered = {int(number) for number in re.findall(r"MUTANT [!=]= (\d+)", text)}
        assert listed == numbered
