"""A worker process with a model that does what its requests say: tests of the machinery around models, not of models.

Started instead of `python -m fastserve.worker`. Input "x" (FP32) comes back as "y"; the first value says what else happens.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time

import numpy as np

from fastserve.worker import model, process

(
    SEGFAULT,
    EXIT,
    OS_EXIT,
    HANG,
    RAISE,
    OUT_OF_MEMORY,
    PRINT,
    SLEEP,
    WRONG_COUNT,
    WRONG_DTYPE,
    LARGE,
    BUSY,
    CALL,
    OUT_OF_GROUP_MEMORY,
) = (*range(101, 114), 120)  # what is asked of another model is one more than CALL


class FaultyModel:
    def __init__(self, spec: model.ModelSpec, calls: model.Calls | None) -> None:
        self.spec = spec
        self.calls = calls
        self.rows = int(spec.parameters.get("rows", "0"))
        match spec.parameters.get("initialize", ""):
            case "raise":
                raise ValueError("no such weights")
            case "exit":
                sys.exit("nothing to do")
            case "hang":
                time.sleep(1000)
            case "once":  # a second process of the same model does not start
                marker = spec.parameters["marker"]
                if os.path.exists(marker):
                    raise ValueError("started before")
                open(marker, "w").close()
        print(f"threads={os.environ['OMP_NUM_THREADS']} spec={spec.threads}")

    def describe(self) -> model.Description:
        shape = [-1, -1] if self.rows else [-1]
        return model.Description(
            self.rows,
            [model.TensorSpec("x", "FP32", shape)],
            [model.TensorSpec("y", "FP32", shape)],
            {"colour": "blue"},
        )

    def execute(self, requests: list[model.Request]) -> list[model.Answer]:
        answers = [self.answer(request) for request in requests]
        return answers[:-1] if WRONG_COUNT in [_order(r) for r in requests] else answers

    def answer(self, request: model.Request) -> model.Answer:
        x = request.inputs["x"]
        match _order(request):
            case 101:
                ctypes.string_at(0)
            case 102:
                sys.exit(3)
            case 103:
                os._exit(4)
            case 104:
                time.sleep(1000)
            case 105:
                raise ValueError("this request is bad")
            case 106:
                resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
                np.ones(1 << 28)
            case 107:
                print("a line on stdout")
                print("a line on stderr", file=sys.stderr)
            case 108:
                time.sleep(float(x.flat[1]))
            case 110:
                return model.Answer({"y": x.astype(np.float64)})
            case 111:
                return model.Answer({"y": np.resize(x, (*x.shape[:-1], 3_000_000))})
            case 112:
                until = time.monotonic() + float(x.flat[1])
                while time.monotonic() < until:
                    pass
            case 113:
                assert self.calls is not None
                return model.Answer(self.calls.infer(self.spec.parameters["calls"], 0, {"x": x + 1}, ()))
            case 120:  # until the kernel kills this process
                with open(os.path.join(self.spec.parameters["group"], "cgroup.procs"), "w") as procs:
                    procs.write("0")
                held = []
                while True:
                    held.append(np.ones(1 << 20))
        return model.Answer({"y": x})

    def finalize(self) -> None:
        if self.spec.parameters.get("finalize") == "hang":
            time.sleep(1000)
        if child := self.spec.parameters.get("child"):
            subprocess.Popen(["sleep", child])
        print("finalized")


def _order(request: model.Request) -> int:
    x = request.inputs["x"]
    return int(x.flat[0]) if x.size else 0


if __name__ == "__main__":
    model.open_model = FaultyModel  # type: ignore[assignment]
    process.main()
