"""What a scenario gets from the runner: options, tools, and servers ready to be asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import observe
from harness.processes import BenchError, Server, run_tool, serving

ROOT = Path(__file__).resolve().parents[2]
RIVALS = ROOT / "benchmarks" / "rivals"
TOOLS = (
    "loadgen",
    "local_load",
    "open_load",
    "idle_connections",
    "kernel_echo",
    "grpc_callback_server",
    "grpc_client_cpp",
    "grpc_openvino_server",
    "openvino_limit",
)


@dataclass
class Bench:
    tools: Path  # folder of the C++ tools
    fastserve: list[str]  # the command's words
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
        self,
        stack: contextlib.ExitStack,
        repository: Path,
        cpus: list[int] | None = None,
        *extra: str | Path,
        name: str = "fastserve",
        command: Sequence[str | Path] = (),
    ) -> Server | None:
        """`extra` arguments win over those of --serve-args; `command` in place of fastserve's own. None, with a remark,
        where fastserve is missing or does not come up: the rivals are measured all the same."""
        words = [*(command or self.fastserve), "serve", "--model-repository", repository]
        for listener in ("http", "grpc", "metrics"):
            words += [f"--{listener}-port", "0"]
        words += [*self.serve_args, *extra]
        if shutil.which(words[0]) is None:
            self.remark(f"{name} not measured: there is no {words[0]}")
            return None
        try:
            server = stack.enter_context(serving(name, words, cpus or self.server_cpus))
        except BenchError as error:
            self.remark(f"{name} not measured: {error}")
            return None
        threads = observe.io_threads(server.process.pid)
        self.remark_once(
            f"{name}: driver {f'--io-threads {threads}' if threads else 'uvloop (--io-threads 0)'}"
        )
        return server

    def start_rival(
        self, stack: contextlib.ExitStack, rival: str, *extra: str | Path, name: str = ""
    ) -> Server:
        command: list[str | Path] = [self.tool("grpc_callback_server")]
        if rival == "grpc.aio":
            command = [sys.executable, RIVALS / "grpc_aio_server.py"]
        elif rival == "gRPC C++ + OpenVINO":
            command = [self.tool("grpc_openvino_server")]
        return stack.enter_context(serving(name or rival, [*command, *extra], self.server_cpus))

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

    def remark_once(self, text: str) -> None:
        if text not in self.remarks:
            self.remark(text)

    def remark(self, text: str) -> None:
        self.remarks.append(text)
        print(f"  {text}", file=sys.stderr)
