"""The parts of tools/demo that need no server."""

from pathlib import Path

import numpy as np
import pytest

import demo_digits


def result(logits: np.ndarray, batched: np.ndarray | None = None, way: str = "a") -> demo_digits.Result:
    return demo_digits.Result(way, logits, logits if batched is None else batched, np.ones(len(logits)), 1.0)


def test_exported_model_computes_what_the_classifier_does(tmp_path: Path):
    reference = pytest.importorskip("onnx.reference")
    classifier, held_out = demo_digits.train()
    demo_digits.export(classifier, tmp_path / "model.onnx")
    session = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))
    (logits,) = session.run(None, {"image": held_out.images})
    expected = classifier.predict(held_out.images.reshape(len(held_out.images), -1) / 16)
    assert (logits.argmax(axis=1) == expected).all()
    assert (expected == held_out.labels).mean() >= demo_digits.LEAST_ACCURACY


def test_one_differing_bit_is_a_disagreement():
    logits = np.eye(10, dtype=np.float32)
    other = logits.copy()
    other[3, 3] = np.nextafter(other[3, 3], np.float32(2))
    assert demo_digits.disagreements([result(logits), result(logits.copy(), way="b")]) == []
    assert demo_digits.disagreements([result(logits), result(other, way="b")]) == [
        "a and b differ in the logits of 1 images"
    ]


def test_a_prediction_that_changes_under_load_is_a_disagreement():
    logits = np.eye(10, dtype=np.float32)
    assert len(demo_digits.disagreements([result(logits, batched=np.roll(logits, 1, axis=1))])) == 1


def test_a_mistake_is_among_the_shown_digits():
    labels = np.arange(10).repeat(2)
    predicted = labels.copy()
    predicted[19] = 0
    shown = demo_digits.choose_shown(predicted, labels)
    assert len(shown) == 6
    assert 19 in shown


@pytest.mark.parametrize(("colour", "rows"), [(True, 4), (False, 8)])
def test_terminal_picture_has_one_line_per_row_and_the_captions(colour: bool, rows: int):
    images = np.full((2, 8, 8), 16, dtype=np.float32)
    lines = demo_digits.terminal_picture(images, ["is 1, said 1", "is 2, said 2"], colour).splitlines()
    assert len(lines) == rows + 1
    assert "is 2, said 2" in lines[-1]
    assert ("\x1b[" in lines[0]) == colour
