"""Certificates: what is wrong with settings and files, when they are read again, when their end is near."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from certificates import Authority, Issued, install

from fastserve import config
from fastserve._io import TlsFiles
from fastserve.metrics import TlsCollector
from fastserve.server.listeners import StartError
from fastserve.server.tls import Certificates, open_certificates

DAY_S = 86400


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def issued(authority: Authority) -> dict[str, Issued]:
    return {name: authority.issue(name, days=days) for name, days in (("one", 90), ("two", 90), ("brief", 1))}


@pytest.fixture
def opened(issued: dict[str, Issued], tmp_path: Path) -> Certificates:
    return certificates(install(issued["one"], tmp_path / "mounted"))


def certificates(files: Issued, now: Callable[[], float] = time.time) -> Certificates:
    return Certificates(config.Tls(), files.cert, files.key, now=now)


def messages(caplog: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> list[str]:
    found = [r.getMessage() for r in caplog.records if r.levelno >= level]
    caplog.clear()
    return found


def test_off_by_default() -> None:
    assert open_certificates(config.Tls()) is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (config.Tls(key=Path("k")), "--tls-key is given without --tls-cert"),
        (config.Tls(client_ca=Path("k")), "--tls-client-ca is given without --tls-cert"),
        (config.Tls(cert=Path("c")), "--tls-cert is given without --tls-key"),
        (config.Tls(cert=Path("c"), key=Path("k")), "TLS: c: No such file or directory"),
        (config.Tls(cert=Path("/"), key=Path("k")), "TLS: /: Is a directory"),
    ],
)
def test_start_errors(settings: config.Tls, words: str) -> None:
    with pytest.raises(StartError, match=words):
        open_certificates(settings)


@pytest.mark.parametrize(
    ("ports", "grpc", "http"), [("both", True, True), ("grpc", True, False), ("http", False, True)]
)
def test_ports(issued: dict[str, Issued], ports: Any, grpc: bool, http: bool) -> None:
    cert, key = issued["one"]
    made = open_certificates(config.Tls(cert=cert, key=key, ports=ports))
    assert made is not None
    assert (made.grpc is not None, made.http is not None) == (grpc, http)


def test_tls_files_name_the_bad_argument(issued: dict[str, Issued]) -> None:
    with pytest.raises(ValueError, match=r"min_version: got '1.1', want '1.2' or '1.3'"):
        TlsFiles(*issued["one"], min_version="1.1")
    with pytest.raises(ValueError, match=r"handshake_timeout_s: got 0.0, want more than 0"):
        TlsFiles(*issued["one"], handshake_timeout_s=0)


def test_untouched_files_are_not_read_again(opened: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    opened.check()
    assert opened.reloads == {"success": 0, "failure": 0}
    assert messages(caplog) == []


def test_replaced_files_are(
    opened: Certificates, issued: dict[str, Issued], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = opened.files.sha256
    install(issued["two"], tmp_path / "mounted")
    opened.check()
    assert opened.files.subject == "CN=two"
    assert opened.files.sha256 != before
    assert opened.reloads == {"success": 1, "failure": 0}
    (said,) = messages(caplog)
    assert "a new certificate, CN=two of " in said
    assert "valid until 20" in said
    opened.check()
    assert opened.reloads["success"] == 1


def test_kubernetes_swaps_a_symbolic_link(issued: dict[str, Issued], tmp_path: Path) -> None:
    for name in ("one", "two"):
        install(issued[name], tmp_path / f"..{name}")
    data = tmp_path / "..data"
    data.symlink_to("..one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    made = certificates(Issued(tmp_path / "tls.crt", tmp_path / "tls.key"))
    (tmp_path / "..new").symlink_to("..two")
    (tmp_path / "..new").rename(data)
    made.check()
    assert made.files.subject == "CN=two"


def test_half_a_change_is_tried_again_and_complained_of_once(
    opened: Certificates, issued: dict[str, Issued], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mounted = tmp_path / "mounted"
    (mounted / "tls.crt").write_bytes(issued["two"].cert.read_bytes())
    opened.check()
    opened.check()
    assert opened.files.subject == "CN=one"
    assert opened.reloads == {"success": 0, "failure": 2}
    (said,) = messages(caplog, logging.ERROR)
    assert f"{mounted / 'tls.key'}: the private key does not belong to" in said
    (mounted / "tls.key").unlink()
    opened.check()
    (said,) = messages(caplog, logging.ERROR)
    assert "No such file or directory" in said
    (mounted / "tls.key").write_bytes(issued["two"].key.read_bytes())
    opened.check()
    assert opened.files.subject == "CN=two"


def test_a_signal_reads_unchanged_files_too(opened: Certificates, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    opened.reload()
    (said,) = messages(caplog)
    assert "the same certificate, CN=one" in said


@pytest.mark.parametrize(
    ("name", "days_before_end", "words"),
    [
        ("one", 14.1, None),
        ("one", 13.5, "expires in 13 days"),
        ("one", 0.5, "expires within a day"),
        ("one", -1, "has expired"),
        ("brief", 0.5, None),  # made for a day: warned of in the last third
        ("brief", 0.3, "expires within a day"),
    ],
)
def test_the_end_is_announced_once_a_day(
    issued: dict[str, Issued],
    caplog: pytest.LogCaptureFixture,
    name: str,
    days_before_end: float,
    words: str | None,
) -> None:
    now = [0.0]
    made = certificates(issued[name], now=lambda: now[0])
    now[0] = made.files.not_after - days_before_end * DAY_S
    made.check()
    made.check()
    said = messages(caplog, logging.WARNING)
    assert len(said) == (words is not None)
    assert words is None or words in said[0]
    now[0] += DAY_S
    made.check()
    assert len(messages(caplog, logging.WARNING)) == (
        words is not None or name == "brief" or days_before_end < 15
    )


def test_metrics(opened: Certificates) -> None:
    class Io:
        tls_handshakes = 3
        tls_truncated = 1
        tls_failures = {"cipher": 2, "timeout": 0}  # noqa: RUF012

    io: Any = Io()
    collector = TlsCollector(lambda: [io, io], lambda: opened.files.not_after, opened.reloads)
    samples = {
        (s.name, *s.labels.values()): s.value for family in collector.collect() for s in family.samples
    }
    assert samples == {
        ("fastserve_tls_certificate_not_after_timestamp_seconds",): opened.files.not_after,
        ("fastserve_tls_reloads_total", "success"): 0,
        ("fastserve_tls_reloads_total", "failure"): 0,
        ("fastserve_tls_handshakes_total",): 6,
        ("fastserve_tls_failures_total", "cipher"): 4,
        ("fastserve_tls_failures_total", "timeout"): 0,
        ("fastserve_tls_truncated_total",): 2,
    }
