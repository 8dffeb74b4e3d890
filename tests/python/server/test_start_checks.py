"""Settings that do not go together are one line before a port is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.config import Repository, Scheduling, Tracing
from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle import Repositories
from fastserve.scheduling import MAX_RESOURCE_COUNT, RateLimit
from fastserve.server.listeners import StartError
from fastserve.server.start_checks import (
    MAX_CACHE_BYTES,
    check_tracing,
    model_defaults,
    model_lists,
    poller_of,
    rate_limit,
    response_cache_bytes,
    startup_models,
)


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


def limited(*resources: str) -> Scheduling:
    return Scheduling(rate_limit="execution_count", rate_limit_resource=resources)


def test_resources_of_the_rate_limiter() -> None:
    assert rate_limit(Scheduling()) is None
    assert rate_limit(limited()) == RateLimit()
    assert rate_limit(limited("R1:4", "R2:1:0", "R3:2:1")) == RateLimit(
        {"R1": 4, "R2": 1}
    )  # device 1 is none
    assert rate_limit(limited(f"R:{MAX_RESOURCE_COUNT}")) == RateLimit({"R": MAX_RESOURCE_COUNT})


@pytest.mark.parametrize(
    ("scheduling", "words"),
    [
        (limited("R"), "--rate-limit-resource: got 'R', want NAME:COUNT with 1 to 1073741824"),
        (limited("R:0"), "got 'R:0', want"),
        (limited(f"R:{MAX_RESOURCE_COUNT + 1}"), "want NAME:COUNT"),
        (limited("R:1:x"), "want NAME:COUNT"),
        (limited("R:1", "R:2:0"), "'R' is given twice"),
        (Scheduling(rate_limit_resource=("R:1",)), "needs --rate-limit execution_count"),
    ],
)
def test_resources_that_are_none(scheduling: Scheduling, words: str) -> None:
    with pytest.raises(StartError) as raised:
        rate_limit(scheduling)
    assert words in str(raised.value)


def test_defaults_for_models(tmp_path: Path) -> None:
    file = tmp_path / "batching.pbtxt"
    file.write_text("num_batch_threads { value: 2 }")
    found = model_defaults(
        Scheduling(target_p99_ms=5, host_policy=("cpu,cpu-cores=0",), batching_parameters_file=file)
    )
    assert (found.target_p99_ms, found.host_policies) == (5, {"cpu": (0,)})
    assert found.batching is not None
    assert found.batching.instances == 2
    with pytest.raises(StartError, match="--host-policy: got 'cpu'"):
        model_defaults(Scheduling(host_policy=("cpu",)))
    file.write_text("\nfoo: 1")
    with pytest.raises(
        StartError, match=r"--batching-parameters-file: .*batching.pbtxt:2: unknown field 'foo'"
    ):
        model_defaults(Scheduling(batching_parameters_file=file))


def test_the_size_of_the_response_cache() -> None:
    assert response_cache_bytes(Scheduling()) == 0
    assert response_cache_bytes(Scheduling(response_cache_bytes=7)) == 7
    assert response_cache_bytes(Scheduling(cache_config=("local,size=1048576",))) == 1 << 20
    assert (
        response_cache_bytes(Scheduling(cache_config=(f"local,size={MAX_CACHE_BYTES}",))) == MAX_CACHE_BYTES
    )


@pytest.mark.parametrize(
    ("scheduling", "words"),
    [
        (Scheduling(cache_config=("redis,host=here",)), "got 'redis,host=here', want local,size=BYTES"),
        (Scheduling(cache_config=("local",)), "got 'local', want"),
        (Scheduling(cache_config=("local,size=-1",)), "got 'local,size=-1', want"),
        (Scheduling(cache_config=(f"local,size={MAX_CACHE_BYTES + 1}",)), "up to"),
        (Scheduling(cache_config=("local,size=1", "local,size=2")), "got 2 of them, want one"),
        (Scheduling(cache_config=("local,size=1",), response_cache_bytes=1), "beside --response-cache-bytes"),
    ],
)
def test_what_is_no_response_cache(scheduling: Scheduling, words: str) -> None:
    with pytest.raises(StartError) as caught:
        response_cache_bytes(scheduling)
    assert words in str(caught.value)


# --- polls and lists


@pytest.mark.parametrize(
    ("repository", "poll_s"),
    [
        (Repository(), None),
        (explicit(), None),
        (Repository(model_control_mode="poll"), 15.0),
        (Repository(model_control_mode="poll", poll_s=0.1), 0.1),
        (Repository(model_control_mode="poll", model_config_file_poll_s=2.0), 2.0),
        (Repository(model_config_file_poll_s=2.0), 2.0),
    ],
)
def test_who_polls(repository: Repository, poll_s: float | None) -> None:
    poller = poller_of(repository, Repositories())
    assert (poller.poll_s if poller is not None else None) == poll_s
    if poller is not None:
        assert poller.settle_s == max(poller.poll_s, 1.0)


def test_lists_are_not_polled_where_clients_load() -> None:
    repository = Repository(model_control_mode="explicit", model_config_file_poll_s=1.0)
    with pytest.raises(StartError, match="does not go with --model-control-mode explicit"):
        poller_of(repository, Repositories())


def test_lists_are_read_before_a_port_is_opened(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text("model_config_list {\n config { nam: 'x' } }")
    with pytest.raises(InvalidArgument, match=r"models.config:2: unknown field 'config.nam'"):
        model_lists(Repository(model_config_file=file))
    with pytest.raises(NotFound, match=r"none.yaml: does not exist"):
        model_lists(Repository(models_file=tmp_path / "none.yaml"))
    assert model_lists(Repository()) == ()
