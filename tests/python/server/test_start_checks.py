"""Settings that do not go together are one line before a port is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.config import Repository, Tracing
from fastserve.lifecycle import Repositories
from fastserve.server.listeners import StartError
from fastserve.server.start_checks import check_tracing, startup_models


@pytest.fixture
def repositories(tmp_path: Path) -> Repositories:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return Repositories((tmp_path,))


def explicit(*models: str) -> Repository:
    return Repository(model_control_mode="explicit", load_model=models)


def test_which_models_are_loaded_at_start(repositories: Repositories) -> None:
    assert startup_models(Repository(), repositories) is None
    assert startup_models(explicit("*"), repositories) is None
    assert startup_models(explicit(), repositories) == []
    assert startup_models(explicit("b"), repositories) == ["b"]


@pytest.mark.parametrize(
    ("repository", "words"),
    [
        (Repository(load_model=("a",)), "needs --model-control-mode explicit"),
        (explicit("*", "a"), "give it alone"),
        (explicit("a", "c"), "--load-model 'c': no model repository has a folder of that name"),
    ],
)
def test_what_cannot_be_loaded_at_start(
    repositories: Repositories, repository: Repository, words: str
) -> None:
    with pytest.raises(StartError) as caught:
        startup_models(repository, repositories)
    assert words in str(caught.value)


def test_where_traces_can_be_written(tmp_path: Path) -> None:
    check_tracing(Tracing())
    check_tracing(Tracing(file=tmp_path / "t", level="TIMESTAMPS"))
    (tmp_path / "there").write_text("x")
    check_tracing(Tracing(file=tmp_path / "there"))
    for tracing, words in (
        (Tracing(level="TIMESTAMPS"), "--trace-level TIMESTAMPS needs --trace-file"),
        (Tracing(file=tmp_path), "cannot write traces"),
        (Tracing(file=tmp_path / "no" / "t"), "cannot write traces"),
    ):
        with pytest.raises(StartError) as caught:
            check_tracing(tracing)
        assert words in str(caught.value)
