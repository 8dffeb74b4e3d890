"""Which errors are worth another try, and when it comes."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import errors
from fastserve.lifecycle.retry import RetryRule, is_passing, reason_label


def test_the_pauses_by_default() -> None:
    rule = RetryRule()
    assert [rule.pause_s(n, 0.5) for n in range(1, 7)] == [1.0, 4.0, 16.0, 64.0, 256.0, None]


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_so_many_tries(limit: int) -> None:
    rule = RetryRule(limit=limit)
    pauses = [rule.pause_s(n, 0.0) for n in range(1, limit + 3)]
    assert [pause is not None for pause in pauses] == [True] * limit + [False, False]


@given(failures=st.integers(1, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_a_pause_grows_up_to_its_cap(failures: int, random: float) -> None:
    rule = RetryRule(limit=10_000)
    pause = rule.pause_s(failures, random)
    assert pause is not None
    assert rule.first_s * 0.8 <= pause <= rule.most_s * 1.2
    later = rule.pause_s(min(failures + 1, 10_000), random)
    assert later is not None
    assert later >= pause


def test_jitter_is_a_share_of_the_pause() -> None:
    rule = RetryRule(first_s=10.0, jitter=0.2)
    assert [rule.pause_s(1, x) for x in (0.0, 0.5, 0.75)] == [8.0, 10.0, 11.0]
    assert RetryRule(first_s=10.0, jitter=0.0).pause_s(1, 0.9) == 10.0


BY_CODE = {4, 8, 10, 14}


@pytest.mark.parametrize("code", sorted(errors.CODE_NAMES))
def test_which_codes_pass_by_themselves(code: int) -> None:
    error = errors.from_code(code, "why")
    assert is_passing(error) == (code in BY_CODE)
    assert reason_label(error) == errors.CODE_NAMES[code].lower()


@pytest.mark.parametrize(
    ("error", "passing", "label"),
    [
        (OSError(errno.EIO, "Input/output error"), True, "io"),
        (OSError(errno.ESTALE, "Stale file handle"), True, "io"),
        (OSError(errno.EMFILE, "Too many open files"), True, "io"),
        (TimeoutError(), True, "io"),
        (FileNotFoundError(errno.ENOENT, "No such file"), False, "io"),
        (PermissionError(errno.EACCES, "Permission denied"), False, "io"),
        (MemoryError(), True, "out_of_memory"),
        (RuntimeError("a model's code"), False, "unknown"),
        (ValueError("bad"), False, "unknown"),
    ],
)
def test_which_other_errors_pass_by_themselves(error: Exception, passing: bool, label: str) -> None:
    assert is_passing(error) == passing
    assert reason_label(error) == label
