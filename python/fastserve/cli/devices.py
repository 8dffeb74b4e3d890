"""Lists the GPUs that models can run on: number and UUID (for `gpus` of an instance_group), name, memory.

Exit code 0: there are some; 1: there are none, and the reason is printed.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastserve import _core

NONE = 1

EXAMPLES = """\
examples:
  fastserve devices
  fastserve devices --json | jq -r '.devices[].uuid'
  CUDA_VISIBLE_DEVICES=1 fastserve devices         as the driver has it: what is hidden is not there
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    from fastserve import _core

    devices, reason = _core.cuda_devices()
    if args.json:
        print(json.dumps({"devices": devices, "reason": reason}, indent=2))
    elif devices:
        print("\n".join(map(line, devices)))
    else:
        print(f"no GPU can be used: {reason}")
    return 0 if devices else NONE


def line(device: _core.CudaDevice) -> str:
    """`0  NVIDIA H200  GPU-8a3b...  141 GiB  compute capability 9.0  0000:3b:00.0  NUMA node 1`."""
    parts = [
        str(device["ordinal"]),
        device["name"],
        device["uuid"],
        f"{device['memory_bytes'] / 2**30:.0f} GiB",
        f"compute capability {device['compute_capability']}",
        device["pci"],
    ]
    if device["numa_node"] is not None:
        parts.append(f"NUMA node {device['numa_node']}")
    return "  ".join(parts)
