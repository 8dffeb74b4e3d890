"""The command as a user runs it: a process of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import simulated_cuda

from fastserve import _core

FASTSERVE = [sys.executable, "-m", "fastserve.cli"]
HEAVY = (
    "numpy",
    "asyncio",
    "pydantic",
    "yaml",
    "google",
    "uvloop",
    "starlette",
    "rich",
    "openvino",
    "fastserve._core",
)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTSERVE_")}
    return subprocess.run(
        [*FASTSERVE, *arguments], capture_output=True, text=True, timeout=60, env=clean | environ, check=False
    )


def error_line(*arguments: str, code: int = 2, **environ: str) -> str:
    """The one line on stderr of a command that ends with `code`."""
    done = run(*arguments, **environ)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastserve: error: ")
    return line.removeprefix("fastserve: error: ")


def cpu_seconds(*command: str) -> float:
    """The least of several runs: other processes cost time, they do not save any."""
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


@pytest.mark.parametrize(
    "command",
    [
        *([], ["serve"], ["check"], ["infer"], ["bench"], ["config"]),
        *(["models"], ["load"], ["unload"], ["reload"]),
    ],
)
def test_help_has_examples_and_imports_little(command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "examples:\n  fastserve " in done.stdout
    program = (
        "import sys; from fastserve.cli import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    bare = cpu_seconds(sys.executable, "-c", "pass")
    assert cpu_seconds(*FASTSERVE, "serve", "--help") - bare < 0.15


def test_without_a_command_there_is_help() -> None:
    assert "serve" in run().stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = " ".join(FASTSERVE)
    done = subprocess.run(
        ["bash", "-c", f"{command} config show --json | true; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in {0, 1}  # 0: it had written everything before the reader went


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("fastserve ")


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["srve"], "invalid choice: 'srve'"),
        (["serve", "--http-prot", "1"], "unknown argument --http-prot (see fastserve serve --help)"),
        (["check"], "there is nothing to check: name a folder of models, or a file that lists models"),
        (
            ["config", "show", "--http-port", "x"],
            "--http-port: server.http_port: got 'x', expected an integer from 0",
        ),
        (["config", "show", "--http", "1"], "unknown argument --http"),  # no guessing of abbreviations
        (["config", "show", "--config", "missing.yaml"], "--config missing.yaml: No such file or directory"),
        (["check", "missing-folder"], "model repository 'missing-folder' does not exist"),
        (["check", "s3://bucket/models"], "DIR: got a URL (s3://...), want a folder"),
        (["infer", "m", "--input", "x=zeros", "--repeat", "0"], "--repeat and --batch start at 1"),
        (["infer", "m", "--url", "ftp://a"], "--url: got 'ftp://a', expected grpc://host:port"),
        (["models", "--url", "http://a:b"], "--url: 'http://a:b' has no good port"),
        (["models", "--watch", "--interval", "0"], "--interval: got 0, want 0.1 to 3600"),
        (["load", "m", "--config", "missing.json"], "--config missing.json: No such file or directory"),
        (
            ["load", "m", "--config", "/dev/null", "--file", "1/m"],
            "--file: got '1/m', want VERSION/NAME=FILE",
        ),
        (
            ["load", "m", "--config", "/dev/null", "--file", "1/m=missing"],
            "--file 1/m: missing: No such file",
        ),
        (["load", "m", "--file", "1/m=/dev/null"], "--file: --config is missing"),
        (["load"], "the following arguments are required: MODEL"),
        (["reload", "--pid", "0"], "--pid: got 0, want a process id"),
        (["reload", "--url", "grpc://127.0.0.1:1"], "want the REST port"),
    ],
)
def test_errors_are_one_line(arguments: list[str], fragment: str) -> None:
    assert fragment in error_line(*arguments)


def test_a_wrong_environment() -> None:
    line = error_line("serve", "--model-repository", ".", FASTSERVE_SERVER_HTTP_PROT="1")
    assert (
        line
        == "unknown environment variable FASTSERVE_SERVER_HTTP_PROT (did you mean FASTSERVE_SERVER_HTTP_PORT?)"
    )


def test_nobody_answers() -> None:
    line = error_line("models", "--url", "http://127.0.0.1:1", code=1)
    assert line.startswith("no server answers at http://127.0.0.1:1: start one with `fastserve serve`")


def test_debug_shows_where() -> None:
    done = run("--debug", "check", "missing-folder")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("form", [["--json"], []])
def test_config_show_keeps_the_secrets_of_urls(form: list[str]) -> None:
    url = "s3://me:secret@bucket/models?X-Amz-Signature=abc"
    done = run("config", "show", "--model-repository", url, *form)
    assert (done.returncode, done.stderr) == (0, "")
    assert "s3://***@bucket/models?***" in done.stdout
    assert "secret" not in done.stdout
    assert "abc" not in done.stdout


def test_config_show(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("limits:\n  max_streams: 5\n")
    arguments = [
        "config",
        "show",
        "--config",
        str(file),
        "--model-repository",
        "a",
        "--model-repository",
        "b",
    ]
    done = run(
        *arguments, "--access-log", "--server.grpc_port", "0", "--json", FASTSERVE_LOGGING_LEVEL="debug"
    )
    shown = json.loads(done.stdout)
    picked = {path: (entry["value"], entry["source"], entry["where"]) for path, entry in shown.items()}
    assert picked["limits.max_streams"] == (5, "file", f"{file}:2")
    assert picked["repository.model_repository"] == (["a", "b"], "flag", "--model-repository")
    assert picked["logging.access_log"] == (True, "flag", "--access-log")
    assert picked["server.grpc_port"] == (0, "flag", "--server.grpc_port")
    assert picked["logging.level"] == ("debug", "environment", "FASTSERVE_LOGGING_LEVEL")
    assert picked["server.host"] == ("127.0.0.1", "default", "")
    assert all(
        entry["description"] and entry["environment"].startswith("FASTSERVE_") for entry in shown.values()
    )
    text = run(*arguments).stdout
    assert re.search(rf"^limits\.max_streams +5 +{re.escape(str(file))}:2 ", text, re.MULTILINE)


def test_a_switch_can_be_turned_off_again() -> None:
    done = run("config", "show", "--no-access-log", "--json", FASTSERVE_LOGGING_ACCESS_LOG="true")
    assert json.loads(done.stdout)["logging.access_log"]["value"] is False


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "good/1").mkdir(parents=True)
    (tmp_path / "good/config.pbtxt").write_text('backend: "identity"')
    return tmp_path


def test_check_of_a_good_repository(repository: Path) -> None:
    done = run("check", str(repository))
    assert done.returncode == 0
    assert done.stdout == (
        "good  ok       version 1         identity (the configuration says identity)\n1 model, no problem found\n"
    )


def test_check_of_a_python_model_says_that_it_needs_a_flag(repository: Path) -> None:
    (repository / "code/1").mkdir(parents=True)
    (repository / "code/1/model.py").write_text("raise SystemExit(9)\n")
    done = run("check", str(repository))
    assert done.returncode == 0
    assert "code  ok       version 1         python (model.py goes to it)" in done.stdout
    assert (
        "note: runs code of the repository: `serve` takes it with --allow-python-models only" in done.stdout
    )
    loaded = run("check", "--load", str(repository))
    assert loaded.returncode == 1
    assert 'backend: got "python", which is off' in loaded.stdout


@pytest.mark.skipif(not _core.has_gpu_lane, reason="built without the GPU lane")
def test_check_of_a_gpu_model_says_what_is_missing(repository: Path) -> None:
    (repository / "net/1").mkdir(parents=True)
    (repository / "net/1/model.pt2").write_bytes(b"never read")
    (repository / "net/config.pbtxt").write_text('backend: "pytorch" instance_group [{ kind: KIND_GPU }]')
    done = run("check", str(repository), **simulated_cuda.environment(devices=0))
    assert (
        "note: needs a GPU, and here is none: no GPU: the NVIDIA driver (libcuda.so.1) finds no device"
        in done.stdout
    )
    assert done.stdout.count("needs a GPU") == 1
    assert "needs a GPU" not in run("check", str(repository), **simulated_cuda.environment()).stdout


def test_check_of_an_empty_repository(tmp_path: Path) -> None:
    done = run("check", str(tmp_path))
    assert (done.returncode, done.stdout.startswith("no models")) == (0, True)


def test_check_shows_every_problem(repository: Path) -> None:
    (repository / "bad/1").mkdir(parents=True)
    (repository / "bad/config.pbtxt").write_text('name: "bed"\n\nsequence_batching { }\n')
    (repository / "empty").mkdir()
    done = run("check", str(repository))
    assert done.returncode == 1
    assert [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")] == [
        "bad/config.pbtxt:1: name: got 'bed', but the folder is named 'bad'",
        "bad/config.pbtxt:3: sequence_batching is not supported yet",
        "empty: has no version folder (a folder named 1, 2, ...)",
    ]
    assert done.stdout.endswith("3 models, 3 problems\n")
    shown = json.loads(run("check", "--json", str(repository)).stdout)
    assert shown["ok"] is False
    assert [(p["file"], p["line"]) for p in shown["models"][0]["problems"]] == [
        ("bad/config.pbtxt", 1),
        ("bad/config.pbtxt", 3),
    ]


def test_check_with_load(repository: Path) -> None:
    tensors = (
        'input { name: "x" data_type: TYPE_FP32 dims: 3 } output { name: "y" data_type: TYPE_FP32 dims: 3 }'
    )
    (repository / "good/config.pbtxt").write_text(f'backend: "identity" max_batch_size: 4 {tensors}')
    (repository / "cut/1").mkdir(parents=True)
    (repository / "cut/1/model.onnx").write_bytes(b"\x08\x07 not a model")
    done = run("check", "--load", "--json", str(repository))
    assert done.returncode == 1, done.stderr
    cut, good = json.loads(done.stdout)["models"]
    assert good["problems"] == []
    assert good["versions"][0]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert good["versions"][0]["max_batch_size"] == 4
    assert [(p["file"], p["version"]) for p in cut["problems"]] == [("cut/1", 1)]


def test_serve_without_models_says_what_to_do() -> None:
    done = run("serve")
    assert done.returncode == 2
    assert "--model-repository" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check_of_lists(repository: Path, tmp_path: Path) -> None:
    models = sorted(path.name for path in repository.iterdir() if path.is_dir())
    listed = tmp_path / "models.yaml"
    listed.write_text(json.dumps({"models": [{"name": models[0], "path": str(repository / models[0])}]}))
    done = run("check", "--json", "--models-file", str(listed))
    assert [model["name"] for model in json.loads(done.stdout)["models"]] == [models[0]]
    refused = tmp_path / "config.json"
    refused.write_text(
        '{"model_config_list": [\n{"config": {"name": "a", "base_path": "/x",\n"shape": "auto"}}]}'
    )
    done = run("check", "--ovms-config-file", str(refused))
    assert done.returncode == 1
    assert f'{refused}:3: shape: got "auto", which is not supported' in done.stdout
    broken = tmp_path / "models.config"
    broken.write_text("model_config_list {\n config { nam: 'x' } }")
    done = run("check", "--model-config-file", str(broken))
    assert done.returncode != 0
    assert f"{broken}:2: unknown field 'config.nam' (did you mean name?)" in done.stderr
