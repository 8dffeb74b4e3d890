"""register_backend: Python code as a model."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastserve
from fastserve import BackendLoad, Batch, Engine, FastserveError, Internal, InvalidArgument, Tensor

X = Tensor("x", "FP32", (-1, 4))
Y = Tensor("y", "FP32", (-1, 4))
ROWS = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def serve(engine: Engine, code: Any, name: str = "m", **settings: Any) -> None:
    engine.register_backend("mine", code, inputs=[X], outputs=[Y], max_batch_rows=8)
    engine.load(name, backend="mine", **settings)


def test_a_function(engine: Engine) -> None:
    seen: list[Batch] = []

    def double(batch: Batch) -> dict[str, np.ndarray]:
        seen.append(batch)
        return {"y": batch.inputs["x"] * 2}

    serve(engine, double)
    np.testing.assert_array_equal(engine.infer("m", ROWS)["y"], ROWS["x"] * 2)
    batch = seen[-1]
    assert (batch.rows, batch.requests) == (2, 1)
    assert not batch.inputs["x"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        batch.inputs["x"][0] = 1
    assert engine.model("m").backend == "mine"


def test_inputs_may_be_kept(engine: Engine) -> None:
    kept: list[np.ndarray] = []

    def keep(batch: Batch) -> dict[str, np.ndarray]:
        kept.append(batch.inputs["x"][0, 1:])
        return {"y": batch.inputs["x"]}

    serve(engine, keep)
    kept.clear()
    for i in range(20):
        engine.infer("m", {"x": np.full((1, 4), i, np.float32)})
    assert [k.tolist() for k in kept] == [[i] * 3 for i in range(20)]
    engine.close()
    assert kept[3].tolist() == [3, 3, 3]


def test_a_class_has_an_object_for_each_instance(engine: Engine) -> None:
    loads: list[BackendLoad] = []
    closed: list[int] = []

    class Scale:
        def __init__(self, load: BackendLoad) -> None:
            loads.append(load)
            self.by = float(load.parameters["by"])
            self.instance = load.instance

        def execute(self, batch: Batch) -> dict[str, np.ndarray]:
            return {"y": batch.inputs["x"] * np.float32(self.by)}

        def close(self) -> None:
            closed.append(self.instance)

    serve(engine, Scale, parameters={"by": "3"}, instances=2, version=7)
    assert [(load.model, load.version, load.instance) for load in loads] == [("m", 7, 0), ("m", 7, 1)]
    assert (loads[0].inputs, loads[0].outputs, loads[0].max_batch_rows) == ((X,), (Y,), 8)
    np.testing.assert_array_equal(engine.infer("m", ROWS)["y"], ROWS["x"] * 3)
    engine.unload("m")
    assert sorted(closed) == [0, 1]


def test_requests_are_batched(engine: Engine) -> None:
    sizes: list[tuple[int, int]] = []
    gate = threading.Event()

    def slow(batch: Batch) -> dict[str, np.ndarray]:
        if sizes:
            gate.wait(0.05)
        sizes.append((batch.rows, batch.requests))
        return {"y": batch.inputs["x"]}

    serve(engine, slow)
    sizes.clear()
    sizes.append((0, 0))
    futures = [engine.submit("m", {"x": np.full((1, 4), i, np.float32)}) for i in range(16)]
    assert [future.result(10)["y"][0, 0] for future in futures] == list(range(16))
    assert sum(requests for _, requests in sizes) == 16
    assert max(rows for rows, _ in sizes) > 1


@pytest.mark.parametrize(
    "error", [c for c in FastserveError.__subclasses__() if c.__module__ == "fastserve.errors"]
)
def test_errors_of_ours_keep_their_code(engine: Engine, error: type[FastserveError]) -> None:
    armed = False

    def fail(batch: Batch) -> dict[str, np.ndarray]:
        if armed:
            raise error("so it is")
        return {"y": batch.inputs["x"]}

    serve(engine, fail)
    armed = True
    with pytest.raises(error, match=r"^so it is$") as caught:
        engine.infer("m", ROWS)
    assert type(caught.value) is error
    armed = False
    assert engine.infer("m", ROWS)["y"].shape == (2, 4)


def raises_system_exit() -> None:
    raise SystemExit(3)


def raises_odd() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Odd


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: {}["key"], r"^KeyError: 'key'$"),
        (lambda: 1 / 0, r"^ZeroDivisionError: division by zero$"),
        (raises_system_exit, r"^SystemExit: 3$"),
        (raises_odd, r"^Odd"),
    ],
)
def test_other_errors_are_internal(engine: Engine, action: Callable[[], Any], words: str) -> None:
    armed = False

    def fail(batch: Batch) -> dict[str, np.ndarray]:
        if armed:
            action()
        return {"y": batch.inputs["x"]}

    serve(engine, fail)
    armed = True
    with pytest.raises(Internal, match=words):
        engine.infer("m", ROWS)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "execute returned NoneType, want a dict of outputs"),
        ({}, r'outputs\["y"\]: execute did not return it'),
        ({"y": np.zeros((2, 4))}, r'outputs\["y"\].dtype: execute returned float64, want float32'),
        (
            {"y": np.zeros((2, 5), np.float32)},
            r'outputs\["y"\].shape: execute returned \[2,5\], want \[-1,4\]',
        ),
        ({"y": np.zeros((4), np.float32)}, r'outputs\["y"\].shape: execute returned \[4\]'),
        ({"y": np.zeros((3, 4), np.float32)}, r'outputs\["y"\].shape: got \[3,4\], want 2 rows'),
        ({"y": "text"}, r'outputs\["y"\].dtype: execute returned <U4'),
    ],
)
def test_answers_that_are_not_what_was_declared(engine: Engine, answer: Any, words: str) -> None:
    armed = False
    serve(engine, lambda batch: answer if armed else {"y": batch.inputs["x"]})
    armed = True
    with pytest.raises(Internal, match=words):
        engine.infer("m", ROWS)


def test_answers_with_gaps_and_lists_are_copied(engine: Engine) -> None:
    serve(engine, lambda batch: {"y": np.repeat(batch.inputs["x"], 2, 1)[:, ::2]})
    np.testing.assert_array_equal(engine.infer("m", ROWS)["y"], ROWS["x"])


def test_strings(engine: Engine) -> None:
    engine.register_backend(
        "upper",
        lambda batch: {"y": np.array([[cell.upper() for cell in row] for row in batch.inputs["x"]], object)},
        inputs=[Tensor("x", "BYTES", (-1, -1))],
        outputs=[Tensor("y", "BYTES", (-1, -1))],
        max_batch_rows=4,
    )
    engine.load("u", backend="upper")
    assert engine.infer("u", {"x": np.array([["ab", "c"]], object)})["y"].tolist() == [[b"AB", b"C"]]


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"outputs": [Y]}, "inputs: got none"),
        ({"inputs": [X]}, "outputs: got none"),
        (
            {"inputs": [Tensor("x", "FP32", (4,))], "outputs": [Y], "max_batch_rows": 2},
            r'inputs\["x"\].shape: got \[4\], want -1',
        ),
        ({"inputs": [Tensor("x", "F", (-1,))], "outputs": [Y]}, 'datatype: got "F"'),
    ],
)
def test_declarations_are_checked(engine: Engine, declared: dict[str, Any], words: str) -> None:
    def register_and_load() -> None:
        engine.register_backend("mine", lambda batch: {}, **declared)
        engine.load("m", backend="mine")

    with pytest.raises(InvalidArgument, match=words):
        register_and_load()


def test_what_cannot_be_registered(engine: Engine) -> None:
    with pytest.raises(InvalidArgument, match='name: got ""'):
        engine.register_backend("", lambda batch: {})
    with pytest.raises(InvalidArgument, match="code: got int, want a function or a class"):
        engine.register_backend("mine", 3)  # type: ignore[arg-type]


def test_a_class_that_cannot_be_made_fails_the_load(engine: Engine) -> None:
    class Broken:
        def __init__(self, load: BackendLoad) -> None:
            raise fastserve.NotFound(f"no weights in {load.path}")

        def execute(self, batch: Batch) -> dict[str, np.ndarray]:
            raise AssertionError

    with pytest.raises(fastserve.NotFound, match="no weights"):
        serve(engine, Broken, path="/nowhere")


def test_it_may_call_other_models(engine: Engine) -> None:
    serve(engine, lambda batch: {"y": engine.infer("echo", {"x": np.array(batch.inputs["x"])})["y"] + 1})
    np.testing.assert_array_equal(engine.infer("m", ROWS)["y"], ROWS["x"] + 1)
    futures = [engine.submit("m", ROWS) for _ in range(20)]
    assert all(future.result(10) for future in futures)


def test_waiting_for_itself_is_refused(engine: Engine) -> None:
    actions: list[Callable[[], None]] = []

    def act(batch: Batch) -> dict[str, np.ndarray]:
        for action in actions:
            action()
        return {"y": batch.inputs["x"]}

    serve(engine, act)
    for action in (engine.close, lambda: engine.unload("m")):
        actions[:] = [action]
        with pytest.raises(fastserve.FailedPrecondition, match="would wait for itself"):
            engine.infer("m", ROWS)


def test_close_and_unload_while_it_runs_and_others_call(engine: Engine) -> None:
    """The lock is wanted by the model, by whoever unloads and by eight callers."""
    serve(engine, lambda batch: {"y": batch.inputs["x"]}, instances=2)
    stop = threading.Event()
    errors: list[BaseException] = []

    def calls() -> None:
        while not stop.is_set():
            try:
                engine.infer("m", ROWS)
                engine.submit("m", ROWS).result(10)
            except (fastserve.NotFound, fastserve.Unavailable):
                pass
            except BaseException as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=calls) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        engine.unload("m")
        engine.load("m", backend="mine")
    engine.close()
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_its_objects_are_let_go() -> None:
    class Weights:
        pass

    weights = Weights()
    gone = weakref.ref(weights)

    def code(batch: Batch, weights: Weights = weights) -> dict[str, np.ndarray]:
        return {"y": batch.inputs["x"]}

    with Engine() as engine:
        serve(engine, code)
        engine.infer("m", ROWS)
    del code, weights
    gc.collect()
    assert gone() is None


def test_two_engines_have_their_own(engine: Engine) -> None:
    with Engine() as other:
        serve(engine, lambda batch: {"y": batch.inputs["x"] + 1})
        serve(other, lambda batch: {"y": batch.inputs["x"] + 2})
        assert engine.infer("m", ROWS)["y"][0, 0] == 1
        assert other.infer("m", ROWS)["y"][0, 0] == 2


def test_code_sees_nothing_but_real_requests(engine: Engine) -> None:
    """Zeros need not mean anything to it, though the shapes would allow them."""

    def picky(batch: Batch) -> dict[str, np.ndarray]:
        if not batch.inputs["x"].any():
            raise InvalidArgument("zeros")
        return {"y": batch.inputs["x"]}

    serve(engine, picky)
    np.testing.assert_array_equal(engine.infer("m", ROWS)["y"], ROWS["x"])
    with pytest.raises(InvalidArgument, match="zeros"):
        engine.infer("m", {"x": np.zeros((1, 4), np.float32)})
