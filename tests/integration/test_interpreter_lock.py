"""I/O threads and the interpreter lock: while Python code holds it and does not let go, inference is answered, also by a
thread that has just written a log line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from certificates import Authority

# Holds the lock from "held" to "released" and asks from another process in between. The TLS port gets noise first, which the
# I/O thread logs; Unix sockets are plain.
SERVER = """
import socket, subprocess, sys, time
from fastserve import Engine, Tensor, _core
from fastserve._io import IoThreads, TlsFiles

cert, key, path, client = sys.argv[1:]
lines = []
_core.set_log_sink(lambda level, text: lines.append(text))
engine = Engine()
tensors = [Tensor(name, "FP32", (-1, 1)) for name in ("IN", "OUT")]
engine.load("echo", backend="identity", max_batch_rows=4, inputs=tensors[:1], outputs=tensors[1:])
io = IoThreads(engine.core, 1, on_grpc_call=print, on_http_call=print, tls_http=TlsFiles(cert, key))
tls = socket.create_server(("127.0.0.1", 0))
plain = socket.socket(socket.AF_UNIX)
plain.bind(path)
plain.listen()
io.listen_http(tls)
io.listen_http(plain)
asking = subprocess.Popen([sys.executable, "-c", client, str(tls.getsockname()[1]), path], stdout=subprocess.PIPE, text=True)
sys.setswitchinterval(3600)  # whoever waits for the lock waits until it is given back
until = time.monotonic() + 4
while time.monotonic() < until:
    pass
released = time.monotonic()
sys.setswitchinterval(0.005)
answered = float(asking.communicate(timeout=20)[0])
deadline = time.monotonic() + 10
while not lines and time.monotonic() < deadline:
    time.sleep(0.01)
print(released - answered, len(lines))
io.close()
engine.close()
"""

CLIENT = """
import socket, sys, time
noise = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
noise.sendall(b"this is no TLS record at all, " * 4)
noise.settimeout(20)
while noise.recv(4096):
    pass
body = b'{"inputs":[{"name":"IN","datatype":"FP32","shape":[1,1],"data":[1]}]}'
request = b"POST /v2/models/echo/infer HTTP/1.1\\r\\nhost: x\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body
plain = socket.socket(socket.AF_UNIX)
plain.settimeout(20)
plain.connect(sys.argv[2])
plain.sendall(request)
assert b" 200 OK" in plain.recv(4096)
print(time.monotonic())
"""


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="time.monotonic() is shared by processes on Linux")
def test_a_held_lock_holds_up_no_inference(tmp_path: Path) -> None:
    issued = Authority(tmp_path, "ca").issue("server")
    done = subprocess.run(
        [sys.executable, "-c", SERVER, issued.cert, issued.key, tmp_path / "http", CLIENT],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    before_release_s, lines = done.stdout.split()
    assert float(before_release_s) > 0
    assert int(lines) == 1
