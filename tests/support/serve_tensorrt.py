"""`fastserve serve` with the simulated module `tensorrt`, for a process on the simulated CUDA driver.

python serve_tensorrt.py ARGUMENTS
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import simulated_tensorrt

from fastserve.cli.main import main

sys.modules["tensorrt"] = simulated_tensorrt.module(launch=simulated_tensorrt.simulated_kernels())
sys.exit(main(["serve", *sys.argv[1:]]))
