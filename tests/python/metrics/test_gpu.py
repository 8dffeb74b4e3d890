"""Metrics of GPUs, with an object in NVML's place: nothing here has seen a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fastserve.metrics.exposition import exposition
from fastserve.metrics.gpu import PERIOD_S, STALE_S, GpuCollector, Gpus, open_gpus, visible

FIRST, SECOND = "GPU-aaaa0000-0000-0000-0000-000000000001", "GPU-bbbb0000-0000-0000-0000-000000000002"


class FakeNvml:
    """The part of pynvml that is used; test_names_are_those_of_nvml looks whether the real one has it."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(self, uuids: tuple[str, ...] = (FIRST,), refused: frozenset[str] = frozenset()) -> None:
        self.uuids = uuids
        self.refused = refused
        self.init_error: type[Exception] | None = None
        self.energy_mj = 5_000_000
        self.calls = 0

    def nvmlInit(self) -> None:
        if self.init_error:
            raise self.init_error("no")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def _answer(self, name: str, value: object) -> object:
        self.calls += 1
        if name in self.refused:
            raise self.NVMLError_NotSupported(name)
        return value

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> object:
        return self._answer("utilization", SimpleNamespace(gpu=37))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> object:
        return self._answer("memory", SimpleNamespace(total=143771 << 20, used=1 << 30))

    def nvmlDeviceGetPowerUsage(self, handle: str) -> object:
        return self._answer("power", 123_456)

    def nvmlDeviceGetPowerManagementLimit(self, handle: str) -> object:
        return self._answer("limit", 700_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> object:
        return self._answer("energy", self.energy_mj)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def at_once(target: Callable[[], None]) -> None:
    target()


def collector(nvml: FakeNvml, clock: Clock | None = None) -> GpuCollector:
    return GpuCollector(lambda: open_gpus(nvml), clock=clock or Clock(), run=at_once)


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_names_units_and_labels_are_those_of_triton() -> None:
    text = exposition(collector(FakeNvml()).collect()).decode()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == [
        f'nv_gpu_utilization{{gpu_uuid="{FIRST}"}} 0.37',
        f'nv_gpu_memory_total_bytes{{gpu_uuid="{FIRST}"}} {143771 << 20}',
        f'nv_gpu_memory_used_bytes{{gpu_uuid="{FIRST}"}} {1 << 30}',
        f'nv_gpu_power_usage{{gpu_uuid="{FIRST}"}} 123.456',
        f'nv_gpu_power_limit{{gpu_uuid="{FIRST}"}} 700.0',
        f'nv_energy_consumption{{gpu_uuid="{FIRST}"}} 0.0',
    ]
    assert "# TYPE nv_energy_consumption counter" in text
    assert "# TYPE nv_gpu_utilization gauge" in text


def test_energy_counts_from_the_start_of_the_server() -> None:
    nvml, clock = FakeNvml(), Clock()
    gpus = collector(nvml, clock)
    gpus.start()
    nvml.energy_mj += 2_500
    clock.now += PERIOD_S
    assert f'nv_energy_consumption{{gpu_uuid="{FIRST}"}} 2.5' in exposition(gpus.collect()).decode()
    nvml.energy_mj = 10  # the driver was reloaded
    clock.now += PERIOD_S
    assert f'nv_energy_consumption{{gpu_uuid="{FIRST}"}} 0.0' in exposition(gpus.collect()).decode()


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    nvml = FakeNvml((FIRST, SECOND), refused=frozenset({"power", "energy", "utilization", "limit"}))
    text = exposition(collector(nvml).collect()).decode()
    assert f'nv_gpu_memory_total_bytes{{gpu_uuid="{SECOND}"}}' in text
    assert "power" not in text
    assert "energy" not in text
    assert "utilization" not in text


def test_readings_are_kept_for_a_period() -> None:
    nvml, clock = FakeNvml(), Clock()
    gpus = collector(nvml, clock)
    list(gpus.collect())
    calls = nvml.calls
    clock.now += PERIOD_S * 0.99
    list(gpus.collect())
    assert nvml.calls == calls
    clock.now += PERIOD_S * 0.02
    list(gpus.collect())
    assert nvml.calls > calls


def test_a_scrape_never_waits_and_a_hanging_nvml_is_not_asked_twice() -> None:
    clock = Clock()
    waiting: list[Callable[[], None]] = []
    gpus = GpuCollector(lambda: Gpus(FakeNvml(), None), clock=clock, run=waiting.append)
    assert list(gpus.collect()) == []
    assert len(waiting) == 1
    clock.now += 10 * PERIOD_S
    assert list(gpus.collect()) == []
    assert len(waiting) == 1, "one that is under way is enough"
    waiting.pop()()
    assert len(list(gpus.collect())) == 6


def test_old_readings_are_not_shown() -> None:
    clock = Clock()
    waiting: list[Callable[[], None]] = []
    gpus = GpuCollector(lambda: Gpus(FakeNvml(), None), clock=clock, run=waiting.append)
    gpus.start()
    waiting.pop()()
    clock.now += STALE_S - 0.1
    assert list(gpus.collect())
    clock.now += 0.2
    assert list(gpus.collect()) == []


@pytest.mark.parametrize("error", ["NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"])
def test_a_machine_without_a_gpu_says_nothing(error: str, caplog: pytest.LogCaptureFixture) -> None:
    nvml, opened = FakeNvml(), 0
    nvml.init_error = getattr(FakeNvml, error)

    def open_() -> Gpus | None:
        nonlocal opened
        opened += 1
        return open_gpus(nvml)

    gpus = GpuCollector(open_, run=at_once)
    with caplog.at_level(logging.DEBUG):
        assert list(gpus.collect()) == []
        assert list(gpus.collect()) == []
    assert opened == 1
    assert caplog.records == []


def test_an_nvml_that_does_not_start_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    nvml = FakeNvml()
    nvml.init_error = FakeNvml.NVMLError
    gpus = collector(nvml)
    with caplog.at_level(logging.DEBUG):
        assert list(gpus.collect()) == []
        assert list(gpus.collect()) == []
    assert [record.getMessage() for record in caplog.records] == ["no GPU metrics: NVML does not start: no"]


def test_what_breaks_later_is_one_line_and_no_metrics(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeNvml):
        def nvmlDeviceGetPowerUsage(self, handle: str) -> object:
            raise RuntimeError("a bug")

    gpus = collector(Broken())
    with caplog.at_level(logging.DEBUG):
        assert list(gpus.collect()) == []
        assert list(gpus.collect()) == []
    assert [record.getMessage() for record in caplog.records] == ["no GPU metrics any more"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [FIRST, SECOND]),
        ("", []),
        ("1", [SECOND]),
        ("1,0", [SECOND, FIRST]),
        ("0,-1,1", [FIRST]),
        ("0,2,1", [FIRST]),
        (FIRST, [FIRST]),
        ("GPU-bbbb", [SECOND]),
        ("GPU-", []),
        ("MIG-cccc", ["MIG-cccc"]),
        ("NoDevFiles", []),
    ],
)
def test_hidden_gpus_have_no_metrics(text: str | None, expected: list[str]) -> None:
    assert visible([FIRST, SECOND], text) == expected


def test_names_are_those_of_nvml() -> None:
    pynvml = pytest.importorskip("pynvml")
    for name in dir(FakeNvml):
        if name.startswith(("nvml", "NVML")):
            assert hasattr(pynvml, name), name
