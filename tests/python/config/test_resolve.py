"""Precedence, sources and every way in which a value can be wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fastserve.config import Config, options
from fastserve.config.resolve import ConfigError, Flag, as_plain, resolve

# A good value other than the default for every field, as text (environment, flag) and as the value it means.
GOOD = {
    "server.host": ("0.0.0.0", "0.0.0.0"),
    "server.http_port": ("9000", 9000),
    "server.grpc_port": ("0", 0),
    "server.metrics_port": ("65535", 65535),
    "server.metrics_host": ("::1", "::1"),
    "server.http_unix_socket": ("unix:/run/h", "unix:/run/h"),
    "server.grpc_unix_socket": ("/run/g", "/run/g"),
    "server.local": ("/run/l", "/run/l"),
    "server.local_uids": ("1000", ("1000",)),
    "server.io_threads": ("3", 3),
    "server.allow_client_shm": ("true", True),
    "server.grpc_reflection": ("true", True),
    "server.ready_file": ("ready.json", Path("ready.json")),
    "tls.cert": ("cert.pem", Path("cert.pem")),
    "tls.key": ("key.pem", Path("key.pem")),
    "tls.client_ca": ("ca.pem", Path("ca.pem")),
    "tls.min_version": ("1.3", "1.3"),
    "tls.ports": ("grpc", "grpc"),
    "tls.handshake_timeout_s": ("2.5", 2.5),
    "repository.model_repository": ("models", (Path("models"),)),
    "repository.model_control_mode": ("explicit", "explicit"),
    "repository.poll_s": ("0.5", 0.5),
    "repository.models_file": ("models.yaml", Path("models.yaml")),
    "repository.model_config_file": ("models.config", Path("models.config")),
    "repository.model_config_file_poll_s": ("1.5", 1.5),
    "repository.model_name": ("digits", "digits"),
    "repository.model_base_path": ("/models/digits", "/models/digits"),
    "repository.ovms_config_file": ("config.json", Path("config.json")),
    "repository.load_model": ("digits", ("digits",)),
    "repository.allow_python_models": ("true", True),
    "repository.require_manifest": ("true", True),
    "repository.model_decrypt_hook": ("keys:decrypt", "keys:decrypt"),
    "repository.state_file": ("state.json", Path("state.json")),
    "repository.strict_readiness": ("true", True),
    "repository.loader_threads": ("3", 3),
    "repository.version_transition": ("resource", "resource"),
    "repository.load_timeout_s": ("90.5", 90.5),
    "repository.load_retries": ("0", 0),
    "remote.cache_dir": ("cache", Path("cache")),
    "remote.cache_bytes": ("10GiB", 10 << 30),
    "remote.cache_keep_s": ("60", 60.0),
    "remote.offline_start": ("false", False),
    "remote.max_version_files": ("7", 7),
    "remote.max_version_bytes": ("1GiB", 1 << 30),
    "remote.request_timeout_s": ("2.5", 2.5),
    "remote.parallel": ("3", 3),
    "limits.max_message_bytes": ("128MiB", 128 << 20),
    "limits.max_streams": ("7", 7),
    "limits.max_stream_requests": ("9", 9),
    "limits.compress_grpc_answers": ("true", True),
    "limits.max_queue_requests": ("5", 5),
    "limits.load_files": ("9", 9),
    "limits.load_file_bytes": ("2MiB", 2 << 20),
    "limits.client_shm_regions": ("7", 7),
    "limits.client_shm_bytes": ("1GiB", 1 << 30),
    "limits.client_pinned_bytes": ("2GiB", 2 << 30),
    "limits.pinned_memory_pool_byte_size": ("64MiB", 64 << 20),
    "limits.gpu_memory_fraction": ("0.5", 0.5),
    "limits.gpu_loss_exit_s": ("-1", -1.0),
    "limits.exit_timeout_s": ("1.5", 1.5),
    "scheduling.target_p99_ms": ("25", 25.0),
    "scheduling.rate_limit": ("execution_count", "execution_count"),
    "scheduling.rate_limit_resource": ("R1:4", ("R1:4",)),
    "scheduling.host_policy": ("cpu,cpu-cores=0-3", ("cpu,cpu-cores=0-3",)),
    "scheduling.response_cache_bytes": ("64MiB", 64 << 20),
    "scheduling.cache_config": ("local,size=1048576", ("local,size=1048576",)),
    "scheduling.batching_parameters_file": ("batching.pbtxt", Path("batching.pbtxt")),
    "cpu.threads": ("3", 3),
    "cpu.tune": ("off", "off"),
    "cpu.tune_cache": ("none", "none"),
    "logging.format": ("json", "json"),
    "logging.level": ("debug", "debug"),
    "logging.access_log": ("true", True),
    "tracing.file": ("trace.json", Path("trace.json")),
    "tracing.level": ("TIMESTAMPS", "TIMESTAMPS"),
    "tracing.rate": ("1", 1),
    "tracing.count": ("10", 10),
    "tracing.log_frequency": ("50", 50),
    "repository.memory_budget_bytes": ("8GB", 8 * 10**9),
    "repository.unload_idle_s": ("90", 90.0),
    "repository.load_on_demand": ("true", True),
    "repository.on_asleep": ("refuse", "refuse"),
    "tracing.max_bytes": ("1GB", 10**9),
    "openvino.cache_dir": ("cache", Path("cache")),
    "tensorrt.plan_cache": ("plans", "plans"),
    "tensorrt.plan_cache_bytes": ("1MiB", 1 << 20),
}


def value_at(config: Config, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(config, section), name)


def write(folder: Path, text: str, name: str = "fastserve.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(**layers: Any) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(**layers)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults() -> None:
    result = resolve()
    assert result.config == Config()
    assert {str(setting.source) for setting in result.settings.values()} == {"default"}
    assert result.config.limits.max_message_bytes == 64 << 20
    assert result.config.server.host == "127.0.0.1"


def test_the_table_of_good_values_is_complete() -> None:
    assert set(GOOD) == set(options())


@pytest.mark.parametrize("path", GOOD)
def test_every_field_from_the_environment(path: str) -> None:
    text, meant = GOOD[path]
    result = resolve(environ={options()[path].env: text})
    assert value_at(result.config, path) == meant
    assert result.settings[path].source == ("environment", "FASTSERVE_" + path.replace(".", "_").upper())


@pytest.mark.parametrize("path", GOOD)
def test_every_field_from_a_flag(path: str) -> None:
    text, meant = GOOD[path]
    result = resolve(flags={path: Flag("--x", [text] if options()[path].is_list else text)})
    assert value_at(result.config, path) == meant
    assert result.settings[path].source == ("flag", "--x")


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize("kind", ["yaml", "toml"])
def test_every_field_from_a_file(path: str, kind: str, tmp_path: Path) -> None:
    import json

    section, name = path.split(".")
    plain = json.dumps(as_plain(GOOD[path][1]))
    text = f"{section}:\n  {name}: {plain}\n" if kind == "yaml" else f"[{section}]\n{name} = {plain}\n"
    file = write(tmp_path, text, f"c.{kind}")
    result = resolve(file=file)
    assert value_at(result.config, path) == GOOD[path][1]
    assert str(result.settings[path].source) == f"{file}:2"


def test_precedence(tmp_path: Path) -> None:
    file = write(tmp_path, "server:\n  http_port: 1\n  grpc_port: 1\n  metrics_port: 1\n")
    environ = {"FASTSERVE_SERVER_GRPC_PORT": "2", "FASTSERVE_SERVER_METRICS_PORT": "2", "PATH": "/bin"}
    result = resolve(file=file, environ=environ, flags={"server.metrics_port": Flag("--metrics-port", "3")})
    server = result.config.server
    assert (server.http_port, server.grpc_port, server.metrics_port) == (1, 2, 3)
    kinds = [
        result.settings[f"server.{name}"].source.kind
        for name in ("host", "http_port", "grpc_port", "metrics_port")
    ]
    assert kinds == ["default", "file", "environment", "flag"]


def test_a_list_is_replaced_not_extended() -> None:
    result = resolve(
        environ={"FASTSERVE_REPOSITORY_MODEL_REPOSITORY": "a:b"},
        flags={"repository.model_repository": Flag("--model-repository", ["c", "d:e"])},
    )
    assert result.config.repository.model_repository == (Path("c"), Path("d:e"))
    assert resolve(
        environ={"FASTSERVE_REPOSITORY_MODEL_REPOSITORY": "a:b"}
    ).config.repository.model_repository == (
        Path("a"),
        Path("b"),
    )


def test_an_empty_text_unsets_an_optional_value() -> None:
    assert resolve(environ={"FASTSERVE_OPENVINO_CACHE_DIR": ""}).config.openvino.cache_dir is None
    assert "got ''" in refused(environ={"FASTSERVE_SERVER_HTTP_PORT": ""})


def test_the_tree_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().server.host = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1024", 1024), ("1KiB", 1024), ("2 kB", 2000), ("1.5MiB", 3 << 19), ("1G", 1 << 30), ("1gb", 10**9)],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert (
        resolve(environ={"FASTSERVE_LIMITS_MAX_MESSAGE_BYTES": text}).config.limits.max_message_bytes
        == bytes_
    )


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("server.http_port", "x", "an integer from 0 to 65535"),
        ("server.http_port", "65536", "an integer from 0 to 65535"),
        ("server.http_port", "-1", "an integer from 0 to 65535"),
        ("server.http_port", "80.5", "an integer from 0 to 65535"),
        ("repository.loader_threads", "0", "an integer from 1 to 64"),
        ("repository.load_retries", "-1", "an integer from 0 to 1000000"),
        ("repository.load_timeout_s", "-1", "a number from 0 to 604800"),
        ("repository.version_transition", "both", "one of availability, resource"),
        ("repository.strict_readiness", "perhaps", "true or false"),
        ("logging.level", "loud", "one of debug, info, warning, error"),
        ("limits.exit_timeout_s", "nan", "a number from 0 to 86400"),
        ("limits.exit_timeout_s", "soon", "a number from 0 to 86400"),
        ("limits.max_message_bytes", "64XB", "a number of bytes"),
        ("limits.max_message_bytes", "8GiB", "to 2147483647"),
    ],
)
def test_a_wrong_value_names_key_source_and_expectation(path: str, text: str, expected: str) -> None:
    env = options()[path].env
    message = refused(environ={env: text})
    assert message.startswith(f"{env}: {path}: got '{text}', expected ")
    assert expected in message
    assert refused(flags={path: Flag("--flag", text)}).startswith(f"--flag: {path}: got '{text}'")


def test_a_wrong_value_is_an_error_even_if_a_later_source_would_win() -> None:
    message = refused(
        environ={"FASTSERVE_SERVER_HTTP_PORT": "x"}, flags={"server.http_port": Flag("--http-port", "1")}
    )
    assert message.startswith("FASTSERVE_SERVER_HTTP_PORT")


def test_a_mode_of_a_later_version() -> None:
    message = refused(flags={"tracing.level": Flag("--trace-level", "TENSORS")})
    assert "'TENSORS' is not supported yet, expected one of OFF, TIMESTAMPS" in message


def test_an_unknown_environment_variable() -> None:
    message = refused(environ={"FASTSERVE_SERVER_HTTP_PROT": "1"})
    assert message == (
        "unknown environment variable FASTSERVE_SERVER_HTTP_PROT (did you mean FASTSERVE_SERVER_HTTP_PORT?)"
    )


def test_service_links_of_kubernetes_are_not_ours() -> None:
    resolve(
        environ={
            "FASTSERVE_SERVICE_HOST": "10.0.0.1",
            "FASTSERVE_SERVICE_PORT": "8000",
            "FASTSERVE_SERVICE_PORT_HTTP": "8000",
            "FASTSERVE_METRICS_SERVICE_HOST": "10.0.0.1",
            "FASTSERVE_PORT": "tcp://10.0.0.1:8000",
            "FASTSERVE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "FASTSERVE_PORT_8000_TCP_PROTO": "tcp",
            "FASTSERVE_PORT_8000_TCP_ADDR": "10.0.0.1",
        }
    )


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("server:\n  http_prt: 1", 2, "unknown key 'server.http_prt' (did you mean server.http_port?)"),
        ("\nsrever:\n  http_port: 1", 3, "unknown key 'srever.http_port'"),
        ("server: 3", 1, "server: got 3, expected a section"),
        ("verbose: true", 1, "unknown key 'verbose'"),
        ("server:\n  host: a\n  http_port: true", 3, "server.http_port: got True"),
        ("server:\n  http_port: 8:30", 2, "got '8:30'"),
        ("server:\n  http_port: 0x50", 2, "got '0x50'"),
        ("server:\n  http_port: 1\n  http_port: 2", 3, "'http_port' is given twice (first in line 2)"),
        ("server:\n  host: [a]", 2, "server.host: got ['a'], expected a text"),
        ("logging:\n  access_log: 1", 2, "logging.access_log: got 1, expected true or false"),
        ("repository:\n  model_repository: {a: 1}", 2, "expected a path or a list of paths"),
        ("repository:\n  model_repository: [1]", 2, "expected a path or a list of paths"),
        ("- a", 1, "has to be a mapping"),
        ("server: {", 1, "is not YAML"),
        ("server:\n  host: !!python/name:os.system", 2, "could not determine a constructor for the tag"),
    ],
)
def test_wrong_yaml(text: str, line: int, fragment: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    message = refused(file=file)
    assert message.startswith(f"{file}:{line}: ")
    assert fragment in message


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("[server]\nhost = 'a'\nhttp_prt = 1", 3, "unknown key 'server.http_prt'"),
        ("[limits]\nmax_streams = 1\n\n[server]\nhttp_port = 'x'", 5, "server.http_port: got 'x'"),
        ("server.http_port = 'x'", 1, "server.http_port: got 'x'"),
        ("\nserver = 3", 2, "server: got 3, expected a section"),
        ("[server]\nhttp_port = 1\ngrpc_port = ,", 3, "is not TOML"),
    ],
)
def test_wrong_toml(text: str, line: int, fragment: str, tmp_path: Path) -> None:
    file = write(tmp_path, text, "fastserve.toml")
    message = refused(file=file)
    assert message.startswith(f"{file}:{line}: ")
    assert fragment in message


def test_toml_that_says_a_thing_twice(tmp_path: Path) -> None:
    assert "is not TOML" in refused(
        file=write(tmp_path, "[server]\nhttp_port = 1\nhttp_port = 2", "fastserve.toml")
    )


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "No such file" in refused(file=tmp_path / "missing.yaml")
    assert "expected .yaml, .yml or .toml" in refused(file=write(tmp_path, "", "fastserve.ini"))
    assert "Is a directory" in refused(file=tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in refused(file=binary)
    assert resolve(file=write(tmp_path, "# nothing\n")).config == Config()


@pytest.mark.parametrize(
    ("name", "text"), [("f.yaml", "tls:\n  min_version: 1.3\n"), ("f.toml", "[tls]\nmin_version = 1.3\n")]
)
def test_a_version_that_the_file_spells_as_a_number(tmp_path: Path, name: str, text: str) -> None:
    assert resolve(file=write(tmp_path, text, name)).config.tls.min_version == "1.3"


def test_a_list_whose_texts_have_commas() -> None:
    values = {"FASTSERVE_SCHEDULING_HOST_POLICY": "cpu,cpu-cores=0,2;far,numa-node=1"}
    policies = resolve(environ=values).config.scheduling.host_policy
    assert policies == ("cpu,cpu-cores=0,2", "far,numa-node=1")


def test_a_remote_repository_stays_as_it_is_written() -> None:
    urls = ("s3://bucket/models", "http://me@host:8080/a//b?sig=x", "http://host:80")
    flag = Flag("--model-repository", [*urls, "folder"])
    assert resolve(flags={"repository.model_repository": flag}).config.repository.model_repository == (
        *urls,
        Path("folder"),
    )
    joined = ":".join([*urls, "folder"])
    environ = {"FASTSERVE_REPOSITORY_MODEL_REPOSITORY": joined}
    assert resolve(environ=environ).config.repository.model_repository == (*urls, Path("folder"))
