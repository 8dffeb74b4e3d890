"""`fastserve manifest` and what `check` makes of manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastserve.cli.main import main


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for version in ("1", "2"):
        (tmp_path / "digits" / version).mkdir(parents=True)
        (tmp_path / "digits" / version / "weights.bin").write_bytes(version.encode())
    (tmp_path / "digits" / "config.pbtxt").write_text('backend: "identity"')
    return tmp_path


def test_write_and_verify(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifest", "--verify", "--all", str(models)]) == 1
    assert main(["manifest", "--all", str(models)]) == 0
    written = json.loads((models / "digits/1/fastserve-manifest.json").read_text())
    assert written["files"]["weights.bin"]["size"] == 1
    assert main(["manifest", "--verify", "--all", str(models / "digits")]) == 0
    (models / "digits/2/weights.bin").write_bytes(b"3")
    capsys.readouterr()
    assert main(["manifest", "--verify", "--all", str(models)]) == 1
    assert "digits/2: fastserve-manifest.json: 'weights.bin' has sha256 4e07408562be, want d4735e3a265e" in (
        capsys.readouterr().out
    )
    assert main(["manifest", str(models / "nowhere")]) == 2
    assert main(["manifest", "--all", str(models / "digits/1")]) == 1


def test_an_index_names_everything(models: Path) -> None:
    assert main(["manifest", "--index", str(models)]) == 0
    assert list(json.loads((models / "fastserve-manifest.json").read_text())["files"]) == [
        "digits/1/weights.bin",
        "digits/2/weights.bin",
        "digits/config.pbtxt",
    ]


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, list[str]]]:
    capsys.readouterr()
    code = main(["check", "--json", *arguments])
    shown = json.loads(capsys.readouterr().out)
    return code, {
        model["name"]: [problem["text"] for problem in model["problems"]] for model in shown["models"]
    }


def test_check_looks_at_every_version_and_every_file(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys, str(models)) == (0, {"digits": []})
    main(["manifest", "--all", str(models)])
    (models / "digits/1/weights.bin").write_bytes(b"x")  # not served: the policy takes the latest
    (models / "digits/2/fastserve-manifest.json").write_text(
        '{"files": {"a": {"size": 1}, "b": {}, "weights.bin": {"size": 9}}}'
    )
    code, problems = check(capsys, str(models))
    assert code == 1
    text = "\n".join(problems["digits"])
    for said in (
        "digits/1/fastserve-manifest.json: 'weights.bin' has sha256",
        "'a' is missing",
        "'b' is missing",
        "want 9",
    ):
        assert said in text
    (models / "digits/config.pbtxt").write_text("nonsense: 1\nmore_nonsense: 2\n")
    code, problems = check(capsys, str(models))
    text = "\n".join(problems["digits"])
    for said in ("nonsense", "more_nonsense", "digits/1/fastserve-manifest.json", "'b' is missing"):
        assert said in text
    text = "\n".join(check(capsys, "--no-checksums", str(models))[1]["digits"])
    assert "sha256" not in text
    assert "want 9" in text


def test_check_with_require_manifest(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, problems = check(capsys, "--require-manifest", str(models))
    assert (code, len(problems["digits"])) == (1, 2)
    main(["manifest", "--all", str(models)])
    (models / "digits/1/stranger").write_bytes(b"")
    assert check(capsys, "--require-manifest", str(models)) == (
        1,
        {"digits": ["digits/1/fastserve-manifest.json: does not name 'stranger'"]},
    )


def test_check_goes_on_behind_a_repository_that_cannot_be_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys, str(models), str(models / "nowhere")) == (2, {"digits": []})
    other = tmp_path / "other" / "digits" / "1"
    other.mkdir(parents=True)
    code, problems = check(capsys, str(models), str(tmp_path / "other"))
    assert code == 1
    assert "in two repositories" in problems["digits"][0]


def test_check_of_encrypted_models(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "secret/1").mkdir(parents=True)
    (models / "secret/1/model.onnx.enc").write_bytes(b"?")
    capsys.readouterr()
    assert main(["check", str(models)]) == 0
    assert (
        "version 1 is encrypted: `serve` takes it with --model-decrypt-hook only" in capsys.readouterr().out
    )
    (models / "key").write_bytes(bytes(32))
    code, problems = check(capsys, "--model-decrypt-hook", f"aes-gcm:file={models}/key", str(models))
    assert code == 1
    assert problems["secret"] == [
        "secret/1: 'model.onnx.enc' cannot be decrypted: it does not begin like a file of aes-gcm"
    ]
