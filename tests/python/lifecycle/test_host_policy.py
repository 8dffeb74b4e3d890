"""--host-policy: names, settings, and the CPUs that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.lifecycle.host_policy import inline_cpus, read_host_policies


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    for number, cpus in ((0, "0-3,8-11\n"), (1, "4-7\n"), (2, "\n")):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}/cpulist").write_text(cpus)
    return tmp_path


def test_policies(nodes: Path) -> None:
    texts = ["cpu,cpu-cores=0-1,5", "far,numa-node=1", "both,numa-node=0", "both,cpu-cores=2-4"]
    assert read_host_policies(texts, nodes) == {
        "cpu": (0, 1, 5),
        "far": (4, 5, 6, 7),
        "both": (2, 3),
    }
    assert read_host_policies([], nodes) == {}
    assert inline_cpus("cpu-cores=3") == (3,)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["cpu"], "got 'cpu', want NAME,cpu-cores=0-3 or NAME,numa-node=0"),
        (["cpu,cores=1"], "cpu,cores: is not known, want cpu-cores or numa-node"),
        (["cpu,cpu-cores=3-1"], "cpu,cpu-cores: got '3-1', want ascending CPU numbers"),
        (["cpu,cpu-cores=a"], "cpu,cpu-cores: got 'a', want CPU numbers such as 0-3,8"),
        (["cpu,cpu-cores=1,"], "got '1,', want CPU numbers"),
        (["cpu,cpu-cores=1024"], "up to 1023"),
        (["cpu,numa-node=9"], "cpu,numa-node: this machine has no NUMA node 9"),
        (["cpu,numa-node=x"], "cpu,numa-node: got 'x', want a node's number"),
        (["cpu,numa-node=2"], "NUMA node 2 has no CPUs"),
        (["cpu,cpu-cores=1", "cpu,cpu-cores=2"], "cpu-cores of 'cpu' is given twice"),
        (["cpu,cpu-cores=1", "cpu,numa-node=1"], "cpu: cpu-cores and numa-node have no CPU in common"),
    ],
)
def test_refused(texts: list[str], message: str, nodes: Path) -> None:
    with pytest.raises(ValueError) as raised:
        read_host_policies(texts, nodes)
    assert message in str(raised.value)
