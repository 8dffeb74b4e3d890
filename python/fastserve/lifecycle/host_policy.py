"""Host policies: which CPUs the threads of an instance group may use, as Triton's --host-policy names them.

    --host-policy=numa0,numa-node=0 --host-policy=left,cpu-cores=0-3

An instance group that names none, and a model that has no groups, have the policy "cpu", when there is one. A host_policy
"cpu-cores=0-3" is one by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fastserve.scheduling import parse_cpus

INLINE = "cpu-cores="
CPU_POLICY = "cpu"  # of groups that name none
NODES = Path("/sys/devices/system/node")


def inline_cpus(text: str) -> tuple[int, ...]:
    """Of "cpu-cores=0-3". ValueError."""
    return parse_cpus(text.removeprefix(INLINE))


def unknown_policy(field: str, name: str) -> str:
    """For a note: Triton takes a name that it does not know as well."""
    return f"{field} '{name}' is without effect: no --host-policy={name},... is given"


def read_host_policies(texts: Sequence[str], nodes: Path = NODES) -> dict[str, tuple[int, ...]]:
    """Policy -> CPUs. ValueError says which text is wrong and why. Both settings given: the CPUs that are in both."""
    policies: dict[str, dict[str, tuple[int, ...]]] = {}
    for text in texts:
        found = re.fullmatch(r"([^,=\s]+),([\w-]+)=(\S+)", text)
        if found is None:
            raise ValueError(f"got '{text[:80]}', want NAME,cpu-cores=0-3 or NAME,numa-node=0")
        name, setting, value = found.groups()
        settings = policies.setdefault(name, {})
        if setting in settings:
            raise ValueError(f"got '{text[:80]}', but {setting} of '{name}' is given twice")
        try:
            settings[setting] = _cpus(setting, value, nodes)
        except ValueError as error:
            raise ValueError(f"{name},{setting}: {error}") from None
    return {name: _both(name, settings) for name, settings in policies.items()}


def _cpus(setting: str, value: str, nodes: Path) -> tuple[int, ...]:
    if setting == "cpu-cores":
        return parse_cpus(value)
    if setting != "numa-node":
        raise ValueError("is not known, want cpu-cores or numa-node")
    if not re.fullmatch(r"\d{1,4}", value):
        raise ValueError(f"got '{value[:60]}', want a node's number")
    try:
        text = (nodes / f"node{int(value)}" / "cpulist").read_text().strip()
    except OSError:
        raise ValueError(f"this machine has no NUMA node {int(value)}") from None
    if not text:
        raise ValueError(f"NUMA node {int(value)} has no CPUs")
    return parse_cpus(text)


def _both(name: str, settings: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    sets = [set(cpus) for cpus in settings.values()]
    common = tuple(sorted(set.intersection(*sets)))
    if not common:
        raise ValueError(f"{name}: cpu-cores and numa-node have no CPU in common")
    return common
