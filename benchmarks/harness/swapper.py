"""Puts one version after the other into a repository while somebody asks: each answers with its own number."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16
ROWS = 8
HIDDEN = 768  # 7 MB of weights; so that the peak is the model's, and not that of the sockets


@functools.cache
def _model(hidden: int) -> Any:
    """Of number 0: all but the number is the same in every version, and random weights take a while."""
    nodes, weights, at, width = [], [], "INPUT0", WIDTH
    for layer, wide in enumerate((hidden, hidden, hidden, WIDTH) if hidden else ()):
        values = np.random.default_rng(layer).standard_normal((width, wide), np.float32) / np.sqrt(
            width, dtype=np.float32
        )
        weights.append(numpy_helper.from_array(values, f"weight{layer}"))
        nodes.append(helper.make_node("MatMul", [at, f"weight{layer}"], [f"sum{layer}"]))
        nodes.append(helper.make_node("Relu", [f"sum{layer}"], [f"out{layer}"]))
        at, width = f"out{layer}", wide
    # A product, so that no compiler sees a constant.
    nodes.append(helper.make_node("Mul", [at, "nothing"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "number"], ["OUTPUT0"]))
    weights.append(helper.make_tensor("nothing", TensorProto.FLOAT, [1], [0.0]))
    weights.append(helper.make_tensor("number", TensorProto.FLOAT, [1], [0.0]))
    graph = helper.make_graph(
        nodes,
        "version",
        [helper.make_tensor_value_info("INPUT0", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("OUTPUT0", TensorProto.FLOAT, ["N", WIDTH])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def version_model(number: int, hidden: int = HIDDEN) -> bytes:
    """ONNX, FP32 [N,16] -> [N,16]: the number of the version in every place, whatever comes in. `hidden`: of the dense layers
    in between, whose sums are multiplied by 0; 0: there are none."""
    model = _model(hidden)
    model.graph.initializer[-1].float_data[0] = float(number)
    return bytes(model.SerializeToString())


def write_version(model: Path, number: int, hidden: int = HIDDEN) -> None:
    """Atomically: the folder is there with all that is in it, or not at all."""
    os.rename(_write_part(model, number, hidden), model / str(number))


def _write_part(model: Path, number: int, hidden: int) -> Path:
    """A version beside the repository."""
    part = Path(tempfile.mkdtemp(dir=model.parent.parent, prefix=".part-"))
    (part / "model.onnx").write_bytes(version_model(number, hidden))
    (part / ".ready").touch()  # else a poll waits until it has been the same for a second
    part.chmod(0o755)
    return part


def write_repository(folder: Path, name: str = "swap", hidden: int = HIDDEN) -> Path:
    """-> the model's folder, with version 1."""
    model = folder / "models" / name
    model.mkdir(parents=True)
    (model / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "openvino"\nmax_batch_size: {ROWS}\ninstance_group [ {{ count: 1 kind: KIND_CPU }} ]\n'
        # A batch of two threads waits for both: on CPUs that client and I/O thread share, whoever waits spins.
        'parameters { key: "INFERENCE_NUM_THREADS" value { string_value: "1" } }\n'
    )
    write_version(model, 1, hidden)
    return model


class Asking:
    """One REST connection to a server."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, data)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")

    def version(self, model: str) -> int:
        """That answers a request which names none; -1 where content and name differ, or it fails."""
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, WIDTH], "data": [1.0] * WIDTH}
        status, answer = self.call("POST", f"/v2/models/{model}/infer", {"inputs": [tensor]})
        if status != 200:
            return -1
        number = int(answer["model_version"])
        return number if set(answer["outputs"][0]["data"]) == {float(number)} else -1

    def ready(self, model: str, number: int) -> bool:
        return self.call("GET", f"/v2/models/{model}/versions/{number}/ready")[0] == 200

    def close(self) -> None:
        self._connection.close()


@dataclass
class Swaps:
    """What happened, in seconds."""

    took_s: list[float] = field(default_factory=list)  # from the new folder to the end of the load
    visible_s: list[float] = field(
        default_factory=list
    )  # from the end of the load to the first answer of the new version
    failed: list[str] = field(default_factory=list)


class Swapper:
    """`way`: "api" (a load by request, which ends when the version serves) or "poll" (the server finds the folder)."""

    LIMIT_S = 60.0

    def __init__(self, model: Path, address: str, way: str, hidden: int = HIDDEN) -> None:
        self._model, self._way, self._hidden = model, way, hidden
        self._address = address
        self.number = max(int(path.name) for path in model.iterdir() if path.name.isdigit())
        self._staged: dict[int, Path] = {}

    def stage(self, count: int) -> None:
        """The next versions are written now, beside the repository: a swap only moves its own into place."""
        for number in range(self.number + 1, self.number + 1 + count):
            if number not in self._staged:
                self._staged[number] = _write_part(self._model, number, self._hidden)
        os.sync()  # not while somebody measures

    def run(
        self, count: int, every_s: float, until: float = float("inf"), swaps: Swaps | None = None
    ) -> Swaps:
        """`count` swaps, one each `every_s` where they are that fast; none begins after `until` (time.monotonic()).
        -> what happened, added to `swaps` where it is given."""
        swaps = swaps or Swaps()
        asking = Asking(self._address)
        for _ in range(count):
            began = time.monotonic()
            if began >= until:
                break
            self._swap(asking, swaps)
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))
        asking.close()
        return swaps

    def _bring(self, number: int) -> None:
        staged = self._staged.pop(number, None)
        if staged is None:
            write_version(self._model, number, self._hidden)
        else:
            os.rename(staged, self._model / str(number))

    def _swap(self, asking: Asking, swaps: Swaps) -> None:
        name = self._model.name
        began = time.monotonic()
        self.number += 1
        self._bring(self.number)
        if self._way == "api":
            status, answer = asking.call("POST", f"/v2/repository/models/{name}/load")
            if status != 200:
                swaps.failed.append(str(answer))
                return
        else:
            while not asking.ready(name, self.number):
                if time.monotonic() - began > self.LIMIT_S:
                    swaps.failed.append(f"version {self.number} was not loaded within {self.LIMIT_S:.0f} s")
                    return
                time.sleep(0.03)  # seldom: the server shares its CPUs with whoever asks
        loaded = time.monotonic()
        while (got := asking.version(name)) != self.number:
            if got == -1 or time.monotonic() - loaded > self.LIMIT_S:
                swaps.failed.append(f"version {self.number}: got {got}")
                return
            time.sleep(0.001)
        swaps.took_s.append(loaded - began)
        swaps.visible_s.append(time.monotonic() - loaded)
        for old in self._model.iterdir():
            if old.name.isdigit() and int(old.name) < self.number - 1:
                shutil.rmtree(old)


def percentile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None
