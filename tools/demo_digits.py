"""The body of tools/demo: train, export, serve, classify in three ways, compare.

Two passes per way, all with one image per request. One at a time: latency, and the logits that have to be
the same bit for bit. Then 16 in flight: throughput, where the server batches; batches of other sizes may
round the last bit differently, so there the predicted digits have to be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
MODELS = DEMO / "models"
READY_FILE = DEMO / "ready.json"  # addresses and pid, written by the server when it is ready
MODEL = "digits"

LEAST_ACCURACY = 0.96
IN_FLIGHT = 16
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0  # more than the 30 s that the server gives itself to drain
WARM_UP_REQUESTS = 20

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
InferOne = Callable[[Floats], Awaitable[Floats]]  # image[1, 8, 8] -> logits[1, 10]


# --- the model ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    images: Floats  # [n, 8, 8], grey values 0..16
    labels: Labels  # [n]


def train() -> tuple[Any, HeldOut]:
    """A two-layer perceptron on three quarters of scikit-learn's 1,797 scans; the rest is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits  # scikit-learn requires it

    digits = load_digits()
    images, labels = digits.images.astype(np.float32), digits.target.astype(np.int64)
    seen, held_out, seen_labels, held_out_labels = train_test_split(
        images, labels, test_size=0.25, random_state=7, stratify=labels
    )
    classifier = MLPClassifier((128,), alpha=1e-2, tol=1e-3, random_state=7)
    with threadpool_limits(1):  # small matrices: more threads only wait for one another
        classifier.fit(seen.reshape(len(seen), -1) / 16, seen_labels)
    return classifier, HeldOut(held_out, held_out_labels)


def export(classifier: Any, path: Path) -> None:
    """Writes image[batch, 8, 8] -> logits[batch, 10] as ONNX, with the scaling of grey values inside."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {"scale": np.float32(1 / 16)}
    for layer, (weights, bias) in enumerate(zip(classifier.coefs_, classifier.intercepts_, strict=True)):
        constants[f"w{layer}"] = weights.astype(np.float32)
        constants[f"b{layer}"] = bias.astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["pixels"], axis=1),
            helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
            helper.make_node("Gemm", ["scaled", "w0", "b0"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w1", "b1"], ["logits"]),
        ],
        MODEL,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


# --- the server -----------------------------------------------------------------------------------------


class Server:
    """A `fastserve serve` of our own: started, waited for, stopped by SIGTERM unless it is to stay."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.log = DEMO / "server.log"
        # When it stays up, well-known ports are nicer to type; otherwise whatever is free.
        http, grpc, metrics = (port if keep and is_free(port) else 0 for port in (8000, 8001, 8002))
        command = [str(Path(sys.executable).parent / "fastserve"), "serve", "--model-repository", str(MODELS)]
        command += ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
        command += ["--ready-file", str(READY_FILE)]
        with self.log.open("w") as log:
            # In a session of its own: Ctrl-C reaches the demo alone, which then stops the server in order.
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self.addresses = self._wait()
        except BaseException:  # Ctrl-C included: nobody else would end it
            self.stop()
            raise

    def _wait(self) -> dict[str, str]:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.failure(f"the server ended with exit code {self.process.returncode}")
            with suppress(FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
                addresses: dict[str, str] = json.loads(READY_FILE.read_text())
                return addresses
            time.sleep(0.02)
        raise self.failure(f"the server was not ready after {READY_TIMEOUT_S:.0f} s")

    def failure(self, what: str) -> SystemExit:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
        return SystemExit(f"error: {what}; its log {self.log.relative_to(ROOT)} ends with:\n{tail}")

    def stop(self) -> int:
        """SIGTERM, then the exit code; a server that does not drain in time is killed and reported as -9."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def stop_kept_server() -> None:
    """Stops what an earlier --keep left behind, as its model repository is about to be written anew."""
    with suppress(OSError, ValueError, KeyError):
        pid = int(json.loads(READY_FILE.read_text())["pid"])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if str(MODELS).encode() not in command:
            return  # the number belongs to another process by now
        print(f"→ stopping the server that an earlier --keep left running (pid {pid})", flush=True)
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# --- classify -------------------------------------------------------------------------------------------


@dataclass
class Result:
    way: str
    logits: Floats  # [n, 10] of the pass with one at a time
    batched: Floats  # [n, 10] of the pass with 16 in flight
    latencies_s: npt.NDArray[np.float64]  # [n]
    per_second: float

    def accuracy(self, labels: Labels) -> float:
        return float((self.logits.argmax(axis=1) == labels).mean())


async def measure(way: str, infer: InferOne, images: Floats) -> Result:
    for image in images[:WARM_UP_REQUESTS]:
        await infer(image[None])

    latencies, logits = [], []
    for image in images:
        started = time.perf_counter()
        logits.append(await infer(image[None]))
        latencies.append(time.perf_counter() - started)

    limit = asyncio.Semaphore(IN_FLIGHT)

    async def limited(image: Floats) -> Floats:
        async with limit:
            return await infer(image[None])

    started = time.perf_counter()
    batched = await asyncio.gather(*(limited(image) for image in images))
    elapsed = time.perf_counter() - started
    return Result(
        way, np.concatenate(logits), np.concatenate(batched), np.array(latencies), len(images) / elapsed
    )


async def over_grpc(address: str, images: Floats) -> Result:
    from tritonclient.grpc import InferInput
    from tritonclient.grpc.aio import InferenceServerClient

    async with InferenceServerClient(address) as client:

        async def infer(image: Floats) -> Floats:
            tensor = InferInput("image", list(image.shape), "FP32")
            tensor.set_data_from_numpy(image)
            answer = await client.infer(MODEL, [tensor])
            return np.asarray(answer.as_numpy("logits"))

        return await measure("gRPC", infer, images)


async def over_rest(address: str, images: Floats) -> Result:
    from tritonclient.http import InferInput
    from tritonclient.http.aio import InferenceServerClient

    async with InferenceServerClient(address, conn_limit=IN_FLIGHT) as client:

        async def infer(image: Floats) -> Floats:
            tensor = InferInput("image", list(image.shape), "FP32")
            tensor.set_data_from_numpy(image, binary_data=True)
            answer = await client.infer(MODEL, [tensor])
            return np.asarray(answer.as_numpy("logits"))

        return await measure("REST, binary tensors", infer, images)


async def in_process(images: Floats) -> Result:
    import fastserve

    with fastserve.Engine() as engine:
        engine.load(MODEL, MODELS / MODEL / "1")

        async def infer(image: Floats) -> Floats:
            answer = await engine.infer_async(MODEL, {"image": image})
            return np.asarray(answer["logits"])

        return await measure("in Python", infer, images)


# --- show -----------------------------------------------------------------------------------------------


def print_table(results: list[Result], labels: Labels) -> None:
    print(
        f"{'':<22} {'accuracy':>9} {'p50':>9} {'p99':>9} {'one at a time':>15} {f'{IN_FLIGHT} in flight':>15}"
    )
    for result in results:
        p50, p99 = np.percentile(result.latencies_s, [50, 99]) * 1e3
        alone = len(result.latencies_s) / result.latencies_s.sum()
        print(
            f"{result.way:<22} {result.accuracy(labels):>9.4f} {p50:>6.2f} ms {p99:>6.2f} ms "
            f"{alone:>9,.0f} img/s {result.per_second:>9,.0f} img/s"
        )
    print("(client and server share this machine's cores; most of the time is the Python clients')")


def choose_shown(predicted: Labels, labels: Labels, count: int = 6) -> list[int]:
    """Different digits, and the first mistake if there is one."""
    wrong = [int(i) for i in np.flatnonzero(predicted != labels)[:1]]
    first_of_each = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    return [index for index in first_of_each if index not in wrong][: count - len(wrong)] + wrong


def terminal_picture(images: Floats, captions: list[str], colour: bool) -> str:
    """The images beside each other: half blocks in 256 grey tones, or characters where there is no colour."""
    lines = []
    if colour:
        for row in range(0, 8, 2):
            cells = []
            for image in images:
                tones = 232 + np.rint(image[row : row + 2] * 23 / 16).astype(int)
                cells.append(
                    "".join(f"\x1b[38;5;{top};48;5;{low}m▀▀" for top, low in tones.T.tolist()) + "\x1b[0m"
                )
            lines.append("  ".join(cells))
    else:
        ramp = np.array(list(" .:-=+*#@"))
        for row in range(8):
            cells = ["".join(np.repeat(ramp[np.rint(image[row] / 2).astype(int)], 2)) for image in images]
            lines.append("  ".join(cells))
    lines.append("  ".join(f"{caption:^16}" for caption in captions))
    return "\n".join(lines)


def save_picture(images: Floats, captions: list[str], path: Path) -> bool:
    """The same as a PNG, if pillow is there."""
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return False
    side, caption_height, gap = 128, 20, 8
    sheet = Image.new("L", (len(images) * (side + gap) + gap, side + caption_height + 2 * gap), 255)
    draw = ImageDraw.Draw(sheet)
    for position, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = gap + position * (side + gap)
        tile = Image.fromarray(255 - np.rint(image * 255 / 16).astype(np.uint8)).resize(
            (side, side), Image.Resampling.NEAREST
        )
        sheet.paste(tile, (left, gap))
        draw.text((left, side + gap + 4), caption, fill=0)
    sheet.save(path)
    return True


def show_digits(held_out: HeldOut, result: Result) -> None:
    predicted = result.logits.argmax(axis=1)
    shown = choose_shown(predicted, held_out.labels)
    captions = [
        f"is {held_out.labels[i]}, said {predicted[i]}" + ("" if predicted[i] == held_out.labels[i] else " !")
        for i in shown
    ]
    images = held_out.images[shown]
    print(terminal_picture(images, captions, colour=sys.stdout.isatty()))
    picture = DEMO / "digits.png"
    if save_picture(images, captions, picture):
        print(f"(as a picture: {picture.relative_to(ROOT)})")


def write_request(image: Floats, path: Path) -> None:
    """A REST request that curl can send."""
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [1, 8, 8],
        "data": image.astype(int).ravel().tolist(),
    }
    path.write_text(json.dumps({"inputs": [tensor]}))


def disagreements(results: list[Result]) -> list[str]:
    first = results[0]
    found = []
    for other in results[1:]:
        differing = int((first.logits != other.logits).any(axis=1).sum())
        if differing:
            found.append(f"{first.way} and {other.way} differ in the logits of {differing} images")
    for result in results:
        differing = int((result.logits.argmax(axis=1) != result.batched.argmax(axis=1)).sum())
        if differing:
            found.append(f"{result.way}: {differing} predictions change when {IN_FLIGHT} are in flight")
    return found


def next_steps(server: Server) -> None:
    request = (DEMO / "request.json").relative_to(ROOT)
    http = server.addresses["http"] if server.keep else "127.0.0.1:8000"
    print("\nHow to go on:")
    if server.keep:
        where = ", ".join(f"{name} {server.addresses[name]}" for name in ("grpc", "http", "metrics"))
        print(f"  The server stays up: {where}; log {server.log.relative_to(ROOT)}")
        print(f"  Stop it: kill {server.process.pid}")
    else:
        print(f"  .venv/bin/fastserve serve --model-repository {MODELS.relative_to(ROOT)}")
    print(f"  curl -s http://{http}/v2/models/{MODEL}/infer -d @{request}")
    print("  Your own model: put it at DIR/<name>/1/model.onnx and serve DIR. More in README.md.")


async def classify(server: Server, images: Floats) -> list[Result]:
    return [
        await over_grpc(server.addresses["grpc"], images),
        await over_rest(server.addresses["http"], images),
        await in_process(images),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/demo")
    parser.add_argument("--keep", action="store_true", help="leave the server running")
    arguments = parser.parse_args()

    stop_kept_server()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    print("→ training a digits classifier (a few seconds)", flush=True)
    classifier, held_out = train()
    export(classifier, MODELS / MODEL / "1" / "model.onnx")
    write_request(held_out.images[0], DEMO / "request.json")

    print("→ starting fastserve", flush=True)
    server = Server(arguments.keep)
    stay = False
    try:
        print(f"→ classifying {len(held_out.labels)} held-out images in three ways\n", flush=True)
        results = asyncio.run(classify(server, held_out.images))
        print_table(results, held_out.labels)
        print()
        show_digits(held_out, results[0])
        problems = disagreements(results)
        for result in results:
            accuracy = result.accuracy(held_out.labels)
            if accuracy < LEAST_ACCURACY:
                problems.append(f"{result.way}: accuracy {accuracy:.4f} is below {LEAST_ACCURACY}")
        if not problems:
            print("\nAll three ways gave the same logits, bit for bit.")
        stay = arguments.keep and not problems
        next_steps(server)
    finally:
        exit_code = 0 if stay else server.stop()
    if exit_code != 0:
        problems.append(f"the server ended with exit code {exit_code} after SIGTERM; its log is {server.log}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
