"""Encrypted models: the sample cipher, the operator's hook, and what is refused. That they run: tests/conformance."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from fastserve import Engine, errors
from fastserve.lifecycle import ModelDefaults, aes_gcm, backend_choice, protected, scan_repositories
from fastserve.lifecycle.version_spec import VersionSpec

KEY = bytes(range(32))
CHUNK = aes_gcm.CHUNK_BYTES


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5])
def test_what_was_encrypted_comes_back(size: int) -> None:
    plain = os.urandom(size)
    assert bytes(aes_gcm.decryptor(KEY)(aes_gcm.encrypt(plain, KEY))) == plain


def test_what_was_changed_does_not() -> None:
    data = aes_gcm.encrypt(os.urandom(2 * CHUNK + 5), KEY)
    step = CHUNK + 16
    head = len(aes_gcm.MAGIC) + 8
    first, second, last = (
        data[head : head + step],
        data[head + step : head + 2 * step],
        data[head + 2 * step :],
    )
    begin = data[:head]
    changed = [
        b"",
        data[:10],
        data[:-1],
        data + b"x",
        begin + first + second,  # the end cut off
        begin + second + first + last,
        begin + first + last,
        begin + last,
        data[:100] + bytes([data[100] ^ 1]) + data[101:],
        data[:8] + bytes([data[8] ^ 1]) + data[9:],
        b"plain text of some length that is no such file",
    ]
    for wrong in changed:
        with pytest.raises(errors.InvalidArgument):
            aes_gcm.decryptor(KEY)(wrong)
    with pytest.raises(errors.InvalidArgument, match="the key is another one, or the file was changed"):
        aes_gcm.decryptor(bytes(32))(data)


def test_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    for text in (KEY, KEY.hex().encode() + b"\n", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"):
        file.write_bytes(text)
        assert aes_gcm.read_key(f"file={file}") == KEY
    monkeypatch.setenv("SECRET", KEY.hex())
    assert aes_gcm.read_key("env=SECRET") == KEY
    file.write_bytes(b"short and secret")
    for where, said in [
        (f"file={file}", "is not 32 bytes"),
        (f"file={tmp_path}/none", "cannot be read"),
        ("env=NOBODY", "has no NOBODY"),
        ("pass=x", "by file=FILE or env=NAME"),
    ]:
        with pytest.raises(errors.InvalidArgument, match=said) as raised:
            aes_gcm.read_key(where)
        assert "secret" not in str(raised.value)


def spec(path: Path, hook: str = "", backend: str = "openvino") -> VersionSpec:
    return VersionSpec("m", 1, backend, str(path), decrypt_hook=hook)


def test_without_a_hook_an_encrypted_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        errors.FailedPrecondition,
        match=r"'model.onnx.enc' is encrypted: name what decrypts it with --model-decrypt",
    ):
        protected.core_spec(spec(tmp_path / "model.onnx.enc"))


def test_other_backends_take_files_only(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="backend onnxruntime does not take"):
        protected.core_spec(spec(tmp_path / "model.onnx.enc", "os:fsencode", "onnxruntime"))


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("nothing", "want MODULE:FUNCTION"),
        ("no_such_module_here:f", "cannot be imported: ModuleNotFoundError"),
        ("os:no_such_function", "cannot be imported: AttributeError"),
        ("os:sep", "is no function"),
        ("aes-gcm:env=NOBODY", "has no NOBODY"),
    ],
)
def test_a_hook_that_is_wrong(hook: str, said: str) -> None:
    with pytest.raises(errors.FastserveError, match=said):
        protected.check_hook(hook)


def test_what_a_hook_may_do_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_hook.py").write_text(
        "def fails(data): raise KeyError('the secret')\ndef text(data): return 'text'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model.onnx.enc"
    path.write_bytes(b"x")
    with pytest.raises(errors.InvalidArgument) as raised:
        protected.core_spec(spec(path, "my_hook:fails"))
    assert str(raised.value) == "'model.onnx.enc' cannot be decrypted: KeyError"
    with pytest.raises(errors.InvalidArgument, match="returned str, want bytes"):
        protected.core_spec(spec(path, "my_hook:text"))


def test_what_can_be_overwritten_is() -> None:
    for size in (0, 1, (1 << 20) + 1):
        data = bytearray(b"x" * size)
        protected._wipe(data)
        assert data == bytes(size)
    protected._wipe(b"cannot be")


FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "models"
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs OpenVINO's plug-ins"
)


def encrypted(folder: Path, source: Path, key: Path) -> Path:
    """A version folder with the files of `source`, encrypted."""
    key.write_bytes(KEY)
    version = folder / "1"
    version.mkdir(parents=True)
    for path in source.iterdir():
        (version / f"{path.name}.enc").write_bytes(aes_gcm.encrypt(path.read_bytes(), KEY))
    return version


@needs_openvino
@pytest.mark.parametrize("kind", ["onnx", "ir"])
def test_an_encrypted_model_answers_as_the_plain_one(tmp_path: Path, kind: str) -> None:
    source = FIXTURES / kind / "1"
    version = encrypted(tmp_path / "models" / "secret", source, tmp_path / "key")
    cache = tmp_path / "compiled"
    defaults = ModelDefaults(
        {"openvino": {"CACHE_DIR": str(cache)}}, decrypt_hook=f"aes-gcm:file={tmp_path / 'key'}"
    )
    spec = scan_repositories([tmp_path / "models"], defaults).wanted["secret"][1]
    assert spec.path == str(version / ("model.xml.enc" if kind == "ir" else "model.onnx.enc"))
    with Engine() as engine:
        for _ in range(2):  # a reload decrypts again
            backend_choice.load(engine.core, spec)
        engine.load("plain", str(source))
        (plain,) = [model for model in engine.models() if model.name == "plain"]
        rng = np.random.default_rng(1)
        inputs = {
            tensor.name: rng.random([max(dim, 1) for dim in tensor.shape], np.float32)
            for tensor in plain.inputs
        }
        got, want = engine.infer("secret", inputs), engine.infer("plain", inputs)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
        assert not cache.exists() or not list(cache.iterdir())  # would hold the weights
    assert sorted(path.suffix for path in version.iterdir()) == [".enc"] * len(list(version.iterdir()))


@needs_openvino
def test_an_encrypted_model_that_is_none(tmp_path: Path) -> None:
    source = tmp_path / "plain"
    source.mkdir()
    (source / "model.onnx").write_bytes(b"no model at all, and nobody is to see this")
    encrypted(tmp_path / "models" / "secret", source, tmp_path / "key")
    defaults = ModelDefaults(decrypt_hook=f"aes-gcm:file={tmp_path / 'key'}")
    spec = scan_repositories([tmp_path / "models"], defaults).wanted["secret"][1]
    with Engine() as engine, pytest.raises(errors.InvalidArgument) as raised:
        backend_choice.load(engine.core, spec)
    assert "model.onnx.enc" in str(raised.value)
    assert "nobody is to see this" not in str(raised.value)
