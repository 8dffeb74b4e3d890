"""What a scenario gets from the runner: options, tools, and servers ready to be asked."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.processes import BenchError, Server, run_tool, serving

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("loadgen", "grpc_callback_server", "grpc_client_cpp", "openvino_limit")


@dataclass
class Bench:
    tools: Path  # folder of the C++ tools
    fastserve: Path  # the command
    models: Path  # cache of models.py
    rounds: int
    seconds: float
    warmup_s: float
    server_cpus: list[int]
    client_cpu: int
    serve_args: list[str]
    echo_requests: int
    precision: str
    streams: int  # OpenVINO's, of ResNet-50
    remarks: list[str] = field(default_factory=list)  # of the scenario that runs

    @property
    def all_cpus(self) -> list[int]:
        return sorted(os.sched_getaffinity(0))

    def tool(self, name: str) -> Path:
        path = self.tools / name
        if not path.exists():
            raise BenchError(f"{path} is missing: run without --no-build")
        return path

    def start_fastserve(
        self, stack: contextlib.ExitStack, repository: Path, cpus: list[int] | None = None
    ) -> Server | None:
        """None, with a remark, where fastserve is missing or does not come up: the rivals are measured all the same."""
        command: list[str | Path] = [self.fastserve, "serve", "--model-repository", repository]
        for listener in ("http", "grpc", "metrics"):
            command += [f"--{listener}-port", "0"]
        command += self.serve_args
        if not self.fastserve.exists():
            self.remark(f"fastserve not measured: {self.fastserve.name} is not installed in .venv")
            return None
        try:
            return stack.enter_context(serving("fastserve", command, cpus or self.server_cpus))
        except BenchError as error:
            self.remark(f"fastserve not measured: {error}")
            return None

    def start_rival(self, stack: contextlib.ExitStack, name: str) -> Server:
        script = ROOT / "benchmarks" / "rivals" / "grpc_aio_server.py"
        command: list[str | Path] = [self.tool("grpc_callback_server")]
        if name == "grpc.aio":
            command = [sys.executable, script]
        return stack.enter_context(serving(name, command, self.server_cpus))

    def load(
        self, server: Server, connections: int, in_flight: int, *extra: str | Path, client: str = "loadgen"
    ) -> dict[str, Any]:
        """One block of the load client against a server, over gRPC unless `extra` says otherwise."""
        words: list[str | Path] = [self.tool(client)]
        if not {"--rest", "--mix"} & set(extra):
            words += ["--grpc", server.addresses["grpc"]]
        words += ["--connections", str(connections), "--in-flight", str(in_flight)]
        words += ["--seconds", str(self.seconds), "--warmup", str(self.warmup_s), "--server-pid", server.pids]
        return run_tool([*words, *extra], None, limit_s=self.seconds + self.warmup_s + 120)

    def on_client_cpu(self) -> list[str]:
        return ["--cpu", str(self.client_cpu)]

    def remark(self, text: str) -> None:
        self.remarks.append(text)
        print(f"  {text}", file=sys.stderr)
