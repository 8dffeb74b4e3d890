"""GPUs, by Triton's names (contracts §1c), as NVIDIA's management library (NVML) tells them. It needs the extra `fastserve[gpu]`
(nvidia-ml-py) and a driver; without either there are none of these families, and at most one line in the log.

nv_gpu_utilization{gpu_uuid}          busy share since NVML's last look, 0..1
nv_gpu_memory_total_bytes, _used_bytes{gpu_uuid}   of all processes on it
nv_gpu_power_usage, nv_gpu_power_limit{gpu_uuid}   watts
nv_energy_consumption{gpu_uuid}       joules since the server started

NVML can take long to answer (a GPU that falls asleep or off the bus), so a scrape never waits for it: it shows what a thread read
last and, once that is a second old, has it read again. Readings that a GPU has not (a MIG instance has no power) are left out.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

# Between two readings. NVML's own sampling period is 1/6 s to 1 s, depending on the GPU.
PERIOD_S = 1.0
# What is older is not shown: NVML hangs, and an old value would pass for a new one.
STALE_S = 30.0

_log = logging.getLogger("fastserve.metrics")

Nvml = Any  # the module pynvml, or what a test has in its place
Reading = Callable[[Nvml, Any], float]

_FAMILIES: tuple[tuple[str, str, str, Reading], ...] = (
    (
        "nv_gpu_utilization",
        "gauge",
        "Busy share of the GPU, 0..1",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    (
        "nv_gpu_memory_total_bytes",
        "gauge",
        "Memory of the GPU",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    (
        "nv_gpu_memory_used_bytes",
        "gauge",
        "Memory of the GPU that is taken, by all processes",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "nv_gpu_power_usage",
        "gauge",
        "Power that the GPU draws, in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    (
        "nv_gpu_power_limit",
        "gauge",
        "Power that the GPU may draw, in watts",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000,
    ),
    (
        "nv_energy_consumption",
        "counter",
        "Energy that the GPU took since the server started, in joules",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
    ),
)
_ENERGY = "nv_energy_consumption"


@dataclass(frozen=True)
class GpuReadings:
    uuid: str
    values: dict[str, float] = field(default_factory=dict)  # by the family's name


def visible(uuids: Sequence[str], text: str | None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of NVML's GPUs; None: all. As the driver reads it, the first entry that names nothing ends
    the list. Numbers count in NVML's order, which is CUDA's for equal GPUs and with CUDA_DEVICE_ORDER=PCI_BUS_ID. A MIG instance
    is taken by its name."""
    if text is None:
        return list(uuids)
    found: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry.startswith("MIG-"):
            found.append(entry)
            continue
        if entry.isdecimal():
            named = [uuids[int(entry)]] if int(entry) < len(uuids) else []
        else:
            named = [uuid for uuid in uuids if entry and uuid.startswith(entry)]
        if len(named) != 1:
            break
        found += named
    return found


class Gpus:
    """What NVML tells of the GPUs of this process. Thread: one at a time."""

    def __init__(self, nvml: Nvml, visible_devices: str | None) -> None:
        """Raises nvml.NVMLError."""
        self._nvml = nvml
        nvml.nvmlInit()
        uuids = [
            _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(nvml.nvmlDeviceGetCount())
        ]
        self._gpus = [
            (uuid, nvml.nvmlDeviceGetHandleByUUID(uuid)) for uuid in visible(uuids, visible_devices)
        ]
        self._energy_before = {gpu.uuid: gpu.values[_ENERGY] for gpu in self._read() if _ENERGY in gpu.values}

    def read(self) -> list[GpuReadings]:
        readings = self._read()
        for gpu in readings:
            if _ENERGY in gpu.values:
                before = self._energy_before.setdefault(gpu.uuid, gpu.values[_ENERGY])
                gpu.values[_ENERGY] = max(
                    0.0, gpu.values[_ENERGY] - before
                )  # a driver that was reloaded counts anew
        return readings

    def _read(self) -> list[GpuReadings]:
        found = []
        for uuid, handle in self._gpus:
            gpu = GpuReadings(uuid)
            for name, _, _, reading in _FAMILIES:
                try:
                    gpu.values[name] = reading(self._nvml, handle)
                except self._nvml.NVMLError:  # not supported, not permitted, lost
                    continue
            found.append(gpu)
        return found


def open_gpus(nvml: Nvml = None) -> Gpus | None:
    """None where there is nothing to tell: no library, no driver, an old driver."""
    nvml = nvml or _library()
    if nvml is None:
        return None
    try:
        return Gpus(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return None  # a machine without a GPU
    except nvml.NVMLError as error:
        _log.warning("no GPU metrics: NVML does not start: %s", error)
        return None


def _library() -> Nvml:
    try:
        import pynvml
    except ImportError:
        if Path("/dev/nvidiactl").exists():
            _log.info("no GPU metrics: they need `pip install 'fastserve[gpu]'`")
        return None
    return pynvml


class GpuCollector:
    """A prometheus_client collector. Thread: the one that scrapes; it waits for nothing."""

    def __init__(
        self,
        open_: Callable[[], Gpus | None] = open_gpus,
        *,
        clock: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._open = open_
        self._clock = clock
        self._run = run or _in_thread
        self._gpus: Gpus | None = None
        self._reading = False  # a thread does; it alone clears it
        self._off = False
        self._latest: tuple[float, list[GpuReadings]] | None = None  # when it was asked for

    def start(self) -> None:
        """Has NVML opened and read for the first time."""
        if not self._reading and not self._off:
            self._reading = True
            self._run(self._read)

    def collect(self) -> Iterator[Metric]:
        now = self._clock()
        latest = self._latest
        if latest is None or now - latest[0] >= PERIOD_S:
            self.start()
            latest = self._latest
        if latest is None or now - latest[0] >= STALE_S:
            return
        for name, kind, text, _ in _FAMILIES:
            family = Metric(name, text, kind)
            for gpu in latest[1]:
                if name in gpu.values:
                    family.add_sample(name, {"gpu_uuid": gpu.uuid}, gpu.values[name])
            yield family

    def _read(self) -> None:
        asked = self._clock()
        try:
            self._gpus = self._gpus or self._open()
            if self._gpus is None:
                self._off = True
                return
            self._latest = (asked, self._gpus.read())
        except Exception:
            self._off = True
            _log.exception("no GPU metrics any more")
        finally:
            self._reading = False


def _in_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="fs-gpu-metrics", daemon=True).start()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name  # older nvidia-ml-py
