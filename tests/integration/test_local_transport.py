"""The local transport against real servers: the Python clients, the C client, and clients that die.

TEST_LOCAL_KILLS: how many clients are killed (50; the long form is 1000).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fault_figures import write_killed_clients
from running_server import RunningServer

import fastserve
from fastserve.client.local import AsyncLocalClient, LocalClient
from fastserve.errors import DeadlineExceeded, InvalidArgument, NotFound, ResourceExhausted, Unavailable

KILLS = int(os.environ.get("TEST_LOCAL_KILLS", "50"))
PACKAGE = Path(fastserve.__file__).parent

CONFIG = """name: "{name}"
backend: "identity"
max_batch_size: 8
input [ {{ name: "IN", data_type: {dtype}, dims: [ {dims} ] }} ]
output [ {{ name: "OUT", data_type: {dtype}, dims: [ {dims} ] }} ]
{more}
"""
SLOW = 'parameters { key: "execute_delay_us" value { string_value: "200000" } }'


def write_repository(root: Path) -> Path:
    for name, dtype, dims, more in (
        ("echo", "TYPE_FP32", "4", ""),
        ("any", "TYPE_FP32", "-1", ""),
        ("strings", "TYPE_STRING", "2", ""),
        ("half", "TYPE_BF16", "4", ""),
        ("image", "TYPE_FP32", "3, 224, 224", ""),
        ("slow", "TYPE_FP32", "4", SLOW),
    ):
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(CONFIG.format(name=name, dtype=dtype, dims=dims, more=more))
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("local")
    repository = write_repository(folder / "models")
    with RunningServer(repository, folder, "--local", f"unix:{folder}/local.sock") as running:
        yield running


@pytest.fixture
def address(server: RunningServer) -> str:
    return server.addresses["local"]


@pytest.fixture
def client(address: str) -> Iterator[LocalClient]:
    with LocalClient(address) as opened:
        yield opened


def test_infer_with_every_kind_of_tensor(client: LocalClient) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(client.infer("echo", {"IN": rows})["OUT"], rows)
    wide = np.arange(10, dtype=np.float32).reshape(1, 10)
    np.testing.assert_array_equal(client.infer("any", {"IN": wide}, room={"OUT": 40})["OUT"], wide)
    texts = np.array([[b"", "grüße".encode()]], object)
    assert client.infer("strings", {"IN": texts})["OUT"].tolist() == texts.tolist()
    bits = client.infer("half", {"IN": np.ones((1, 4), np.float32)})["OUT"]
    assert bits.view(np.uint16).tolist() == [[0x3F80] * 4]


def test_the_answer_is_the_callers_own(client: LocalClient) -> None:
    first = client.infer("echo", {"IN": np.ones((1, 4), np.float32)})["OUT"]
    client.infer("echo", {"IN": np.zeros((1, 4), np.float32)})
    assert first.tolist() == [[1, 1, 1, 1]]


def test_connections_at_the_limit(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "models")
    with RunningServer(repository, tmp_path, "--local", f"unix:{tmp_path}/local.sock") as running:
        address = running.addresses["local"]
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(LocalClient(address)) for _ in range(256)]
            with pytest.raises(ResourceExhausted, match="connections: there are 256 already"):
                LocalClient(address)
            rows = np.ones((1, 4), np.float32)
            np.testing.assert_array_equal(clients[-1].infer("echo", {"IN": rows})["OUT"], rows)


def test_slot_is_memory_of_both(client: LocalClient, server: RunningServer) -> None:
    copied = 'fastserve_copied_bytes_total{model="image",version="1"}'
    before = server.scrape()[copied]
    with client.slot("image") as slot:
        for value in range(3):
            slot.inputs["IN"][:] = value
            out = slot.run()["OUT"]
            assert out.shape == (1, 3, 224, 224)
            assert out.min() == out.max() == value
    assert server.scrape()[copied] == before, "600 KB went through without a copy"


def test_slot_with_open_shapes_and_strings(client: LocalClient) -> None:
    with client.slot("any", rows=2, shapes={"IN": [2, 6]}, room={"OUT": 48}) as slot:
        slot.inputs["IN"][:] = 7
        assert slot.run()["OUT"].tolist() == [[7.0] * 6] * 2
    with client.slot("strings", room={"IN": 100, "OUT": 100}) as slot:
        slot.set_strings("IN", [["a", "bc"]])
        assert slot.run()["OUT"].tolist() == [[b"a", b"bc"]]
        with pytest.raises(InvalidArgument, match="room for 100"):
            slot.set_strings("IN", [["a" * 100, ""]])


def test_views_outlive_slot_and_client(address: str) -> None:
    with LocalClient(address) as opened, opened.slot("echo") as slot:
        slot.inputs["IN"][:] = 3
        out = slot.run()["OUT"]
    assert out.tolist() == [[3, 3, 3, 3]]


def test_errors_name_the_field_and_leave_the_client_usable(
    client: LocalClient, server: RunningServer
) -> None:
    refused = 'fastserve_local_control_refused_total{code="NOT_FOUND"}'
    before = server.scrape().get(refused, 0)
    with pytest.raises(NotFound, match="nobody"):
        client.infer("nobody", {})
    assert server.scrape()[refused] == before + 1, "the model could not be opened"
    with pytest.raises(InvalidArgument) as caught:
        client.infer("echo", {"IN": np.zeros((1, 3), np.float32)})
    assert caught.value.field == 'inputs["IN"].shape[1]'
    with pytest.raises(InvalidArgument, match="dtype float64"):
        client.infer("echo", {"IN": np.zeros((1, 4))})
    with pytest.raises(InvalidArgument, match="the model has IN"):
        client.infer("echo", {"X": np.zeros((1, 4), np.float32)})
    with pytest.raises(InvalidArgument, match="batch-size must be <= 8"):
        client.infer("echo", {"IN": np.zeros((9, 4), np.float32)})
    assert client.infer("echo", {"IN": np.ones((1, 4), np.float32)})["OUT"].sum() == 4


def test_parameters_that_cannot_be_sent_name_themselves(client: LocalClient) -> None:
    rows = np.ones((1, 4), np.float32)
    for value in (2**64, -(2**63) - 1, [1], None):
        with pytest.raises(InvalidArgument, match=r'parameters\["p"\]: got'):
            client.infer("echo", {"IN": rows}, parameters={"p": value})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgument, match="parameters: got 65, want 64 or fewer"):
        client.infer("echo", {"IN": rows}, parameters={f"p{i}": 1 for i in range(65)})
    assert client.infer("echo", {"IN": rows}, parameters={"p": "x" * 100})["OUT"].sum() == 4
    with pytest.raises(ResourceExhausted, match="larger cells"):
        client.infer("echo", {"IN": rows}, parameters={"p": "x" * 2000})


def test_timeout(client: LocalClient) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.infer("slow", {"IN": np.zeros((1, 4), np.float32)}, timeout=0.02)
    assert time.monotonic() - began < 1


def test_threads_take_turns(client: LocalClient) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        rows = np.full((1, 4), number, np.float32)
        for _ in range(200):
            if client.infer("echo", {"IN": rows})["OUT"][0, 0] != number:
                failures.append("crossed")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


async def test_asyncio(address: str) -> None:
    async with AsyncLocalClient(address, cells=16) as client:
        rows = [np.full((1, 4), n, np.float32) for n in range(100)]
        answers = await asyncio.gather(*(client.infer("echo", {"IN": row}) for row in rows))
        assert [a["OUT"][0, 0] for a in answers] == list(range(100))
        slot = client.slot("echo")
        slot.inputs["IN"][:] = 5
        assert (await slot.run())["OUT"].sum() == 20
        with pytest.raises(InvalidArgument):
            await client.infer("echo", {"IN": np.zeros((1, 3), np.float32)})
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.infer("slow", {"IN": rows[0]}), 0.02)
        assert (await client.infer("echo", {"IN": rows[3]}))["OUT"][0, 0] == 3


async def test_asyncio_client_hears_of_the_servers_end(tmp_path: Path) -> None:
    with own_server(tmp_path) as running:
        client = await AsyncLocalClient.connect(running.addresses["local"])
        running.process.kill()
        running.process.wait()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(client.infer("slow", {"IN": np.zeros((1, 4), np.float32)}), 5)
        await client.close()


def test_killed_server_is_unavailable_at_once(tmp_path: Path) -> None:
    with own_server(tmp_path) as running:
        client = LocalClient(running.addresses["local"])
        killer = threading.Timer(0.05, running.process.kill)
        killer.start()
        with pytest.raises(Unavailable, match="gone"):
            client.infer("slow", {"IN": np.zeros((1, 4), np.float32)})
        assert client.gone
        killer.join()
        running.process.wait()
        # The file stays behind; the next server takes it over.
        with own_server(tmp_path, again=True) as next_one, LocalClient(next_one.addresses["local"]) as fresh:
            assert fresh.infer("echo", {"IN": np.ones((1, 4), np.float32)})["OUT"].sum() == 4


def test_keyboard_interrupt(address: str) -> None:
    program = (
        "import sys, numpy as np\n"
        "from fastserve.client.local import LocalClient\n"
        f"client = LocalClient({address!r})\n"
        "client.model('slow')\n"
        "print('ready', flush=True)\n"
        "try:\n"
        "    while True: client.infer('slow', {'IN': np.zeros((1, 4), np.float32)})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "print(client.infer('echo', {'IN': np.ones((1, 4), np.float32)})['OUT'].sum())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert out.splitlines() == ["interrupted", "4.0"]


def test_socket_file(server: RunningServer, address: str) -> None:
    path = Path(address.removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.log_records()  # JSON log
    assert any(record.get("local") == address for record in server.log_records())


def test_other_users_are_refused(address: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("wants root, to become somebody else")
    path = Path(address.removeprefix("unix:"))
    for folder in (path.parent, *path.parent.parents):  # the file's mode guards too: open everything
        with contextlib.suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o011)
    path.chmod(0o666)
    program = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "os.setuid(65534)\n"
        f"s.connect({str(path)!r})\n"
        "print(s.recv(4096)[12:].decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    path.chmod(0o600)
    assert "this user may not connect" in done.stdout, done.stderr


def test_bad_messages_close_only_their_connection(server: RunningServer, client: LocalClient) -> None:
    path = client_path(server)
    before = server.scrape()["fastserve_local_connections_broken_total"]
    generator = random.Random(5)
    junk = [b"x", b"\0" * 8, b"\1\0\0\0" * 4, bytes(range(64)), *(generator.randbytes(20) for _ in range(20))]
    for message in junk:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            sock.connect(path)
            sock.send(message)
            assert sock.recv(100) == b"", message
    assert server.scrape()["fastserve_local_connections_broken_total"] == before + len(junk)
    assert client.infer("echo", {"IN": np.ones((1, 4), np.float32)})["OUT"].sum() == 4


def test_c_client(address: str, tmp_path: Path) -> None:
    archive, header = PACKAGE / "lib" / "libfastserve_local.a", PACKAGE / "include" / "fastserve_local.h"
    compiler = shutil.which("gcc")
    if compiler is None or not archive.exists():
        pytest.skip("wants gcc and the installed archive")
    program = tmp_path / "example"
    source = Path(__file__).parents[1] / "csrc" / "client" / "local_example.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", f"-I{header.parent}"]
    subprocess.run([compiler, *flags, source, archive, "-lstdc++", "-lpthread", "-o", program], check=True)
    path = address.removeprefix("unix:")
    for model in ("echo", "image"):
        subprocess.run(
            [program, path, model, "1000", "64" if model == "echo" else "4"], check=True, timeout=60
        )
    failed = subprocess.run([program, path, "nobody"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "unknown model: 'nobody'" in failed.stderr


VICTIM = """
import sys, threading, numpy as np, random
from fastserve.client.local import LocalClient
client = LocalClient(sys.argv[1])
print("ready", flush=True)
generator = random.Random(int(sys.argv[2]))
while True:
    model = generator.choice(["echo", "slow", "image", "strings"])
    shape = {"image": (1, 3, 224, 224), "strings": (1, 2)}.get(model, (1, 4))
    value = np.full(shape, b"text", object) if model == "strings" else np.ones(shape, np.float32)
    client.infer(model, {"IN": value})
"""


def test_killed_clients_leave_nothing_behind(server: RunningServer, address: str) -> None:
    """kill -9 at random points: no descriptor, no region, no request is left, and another client sees no error."""
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    eventually(lambda: server.scrape()["fastserve_local_connections"] == 0)
    base = len(list(descriptors.iterdir()))
    generator = random.Random(1)
    answered = 0
    with LocalClient(address) as canary:
        victims: list[subprocess.Popen[str]] = []
        for number in range(KILLS):
            words = [sys.executable, "-c", VICTIM, address, str(number)]
            victims.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            if len(victims) == 4 or number == KILLS - 1:
                for victim in victims:
                    assert victim.stdout is not None
                    victim.stdout.readline()
                    time.sleep(generator.random() * 0.05)
                    victim.kill()
                    assert canary.infer("echo", {"IN": np.ones((1, 4), np.float32)})["OUT"].sum() == 4
                    answered += 1
                for victim in victims:
                    victim.communicate()
                victims.clear()
    ended = time.monotonic()
    names = [
        f"fastserve_local_{what}" for what in ("connections", "regions", "region_bytes", "requests_in_flight")
    ]
    eventually(lambda: all(server.scrape()[name] == 0 for name in names))
    eventually(lambda: len(list(descriptors.iterdir())) <= base)
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "memfd:fastserve" not in maps
    figures = {
        "clients_killed": KILLS,
        "another_client_answered": answered,
        "another_client_failed": 0,  # it would have ended the test
        "all_released_s": round(time.monotonic() - ended, 3),  # after the last death
        "descriptors_before": base,
        "descriptors_after": len(list(descriptors.iterdir())),
        **{f"{name.removeprefix('fastserve_local_')}_after": server.scrape()[name] for name in names},
    }
    write_killed_clients("local transport", figures)


@contextlib.contextmanager
def own_server(folder: Path, *, again: bool = False) -> Iterator[RunningServer]:
    repository = folder / "models" if again else write_repository(folder / "models")
    own = folder / ("second" if again else "first")
    own.mkdir()
    with RunningServer(repository, own, "--local", str(folder / "local.sock")) as running:
        yield running


def client_path(server: RunningServer) -> str:
    return server.addresses["local"].removeprefix("unix:")


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within 5 s"
        time.sleep(0.02)
