"""Every limit that a client can meet: name, default, where it is set, what is said beyond it, and what counts it.

    python tools/limits.py            the table of csrc/README.md, section Limits

The list is checked: defaults against the sources that define them, the README against the list, and each row names its test
(tests/tools/test_limits.py). How each behaves at limit - 1, limit, limit + 1: tests/conformance/test_limits.py.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What counts refusals, in short.
REJECTED = "`fastserve_requests_rejected_total`"
TLS_FAILURES = "`fastserve_tls_failures_total`"
HELD = "none: nothing is refused, the client waits"
LIBRARY = "none: libnghttp2 does it by itself"

CALM = "GOAWAY ENHANCE_YOUR_CALM"
HEAD, BODY = "csrc/codec/http1_head.h", "csrc/codec/rest_infer.h"
FLOOD, IO = "csrc/codec/http2_flood.h", "csrc/frontend/io_loop.h"
OIP, TREE = "csrc/codec/oip_infer.h", "python/fastserve/config/tree.py"
LIMIT_TESTS = "tests/conformance/test_limits.py"
SHM_TESTS = "tests/conformance/shared_memory/test_registering.py"
LOCAL, LOCAL_TESTS = "csrc/frontend/local_loop.h", "tests/csrc/frontend/local_server_test.cc"
LOCAL_REFUSED = "`fastserve_local_requests_refused_total`"
LOCAL_CONNECTIONS = "`fastserve_local_connections_refused_total`"
LOCAL_SOCKET = "none: the client is told over its socket"

ENGINE, LABEL = "csrc/engine/engine.h", "csrc/model/version_label.h"
ROOM_TESTS, LABEL_TESTS = "tests/csrc/engine/waiting_rooms_test.cc", "tests/csrc/model/version_label_test.cc"
ASLEEP = "`fastserve_asleep_requests_refused_total`"


@dataclass(frozen=True)
class Limit:
    what: str
    name: str  # where it is defined: the constant or field, `Struct::field` where others have the name
    file: str
    default: int  # bytes, a count, or seconds (`unit`)
    beyond: str  # code and words
    test: str
    flag: str = ""
    metric: str = REJECTED
    unit: str = ""
    more: str = ""  # what may be more than the default


LIMITS: dict[str, list[Limit]] = {
    "Both protocols": [
        Limit(
            "a REST body or gRPC message, also when it is unpacked",
            "max_message_bytes",
            TREE,
            64 << 20,
            "RESOURCE_EXHAUSTED, 413 `request body of N bytes, want M or fewer`",
            LIMIT_TESTS,
            "--max-message-bytes",
            unit="bytes",
        ),
        Limit(
            "requests waiting for a model",
            "kDefaultMaxQueueRequests",
            "csrc/engine/load.cc",
            1024,
            "UNAVAILABLE, 503 `Exceeds maximum queue size`",
            "tests/conformance/test_load.py",
            "--max-queue-requests",
            more="as many as are served within 1 s",
            metric='`nv_inference_request_failure{reason="REJECTED"}`',
        ),
        Limit(
            "dimensions of a tensor",
            "kMaxRank",
            "csrc/tensor/shape.h",
            16,
            "INVALID_ARGUMENT, 400 `want 16 or fewer`",
            LIMIT_TESTS,
        ),
        Limit(
            "elements of a tensor",
            "kMaxElements",
            "csrc/tensor/shape.h",
            1 << 40,
            "INVALID_ARGUMENT, 400",
            "tests/conformance/test_bad_input.py",
        ),
        Limit(
            "streams of a connection, and calls of it in work",
            "max_streams",
            TREE,
            1024,
            "RST_STREAM REFUSED_STREAM; once our SETTINGS are acknowledged GOAWAY PROTOCOL_ERROR. Work of streams that were"
            " reset counts: RESOURCE_EXHAUSTED, 503 `calls in work`",
            "tests/conformance/http2/test_5_streams.py",
            "--max-streams",
            metric=f"{REJECTED} for calls in work; streams: {LIBRARY}",
        ),
        Limit(
            "the handshake of TLS",
            "handshake_timeout_s",
            TREE,
            10,
            "closed",
            "tests/conformance/test_tls.py",
            "--tls-handshake-timeout",
            TLS_FAILURES,
            "s",
        ),
        Limit(
            "bytes until the handshake of TLS is complete",
            "handshake_bytes",
            "csrc/codec/tls_session.h",
            64 << 10,
            "closed",
            "tests/csrc/codec/tls_session_test.cc",
            metric=TLS_FAILURES,
            unit="bytes",
        ),
        Limit(
            "loads and unloads that run or wait, of all clients",
            "MAX_OPERATIONS",
            "python/fastserve/lifecycle/model_control.py",
            256,
            "UNAVAILABLE, 503",
            "tests/python/lifecycle/test_model_control.py",
        ),
        Limit(
            "regions of shared memory, registered or still in use",
            "client_shm_regions",
            TREE,
            1024,
            "RESOURCE_EXHAUSTED, 429 `regions are registered or in use`",
            SHM_TESTS,
            "--client-shm-regions",
            metric="`fastserve_shared_memory_refused_total`",
        ),
        Limit(
            "bytes of these regions together",
            "client_shm_bytes",
            TREE,
            16 << 30,
            "RESOURCE_EXHAUSTED, 429 `byte_size: got N`",
            SHM_TESTS,
            "--client-shm-bytes",
            metric="`fastserve_shared_memory_refused_total`",
            unit="bytes",
        ),
        Limit(
            "bytes of clients' regions that are page-locked while a GPU is in use",
            "client_pinned_bytes",
            TREE,
            4 << 30,
            "none: the region works, its copies to the GPU are staged",
            "tests/csrc/memory/pinned_test.cc",
            "--client-pinned-bytes",
            metric="`fastserve_pinned_regions_refused_total`",
            unit="bytes",
        ),
        Limit(
            "page-locked memory of the batches of GPU models",
            "pinned_memory_pool_byte_size",
            TREE,
            512 << 20,
            "none: batches use pageable memory, whose copies are synchronous",
            "tests/csrc/memory/pinned_test.cc",
            "--pinned-memory-pool-byte-size",
            metric="`fastserve_pinned_memory_fallbacks_total`",
            unit="bytes",
        ),
        Limit(
            "BYTES inputs of a request in shared memory, which are copied (follows `--max-message-bytes`)",
            "most_copied_bytes",
            "csrc/memory/region_quota.h",
            64 << 20,
            "RESOURCE_EXHAUSTED, 429 `want BYTES inputs of N bytes or fewer together`",
            f"{SHM_TESTS}, tests/csrc/engine/shared_places_test.cc",
            unit="bytes",
        ),
        Limit(
            "a region's name",
            "kMaxRegionNameBytes",
            "csrc/memory/region.h",
            256,
            "INVALID_ARGUMENT, 400 `want 256 or fewer`",
            f"{SHM_TESTS}, tests/csrc/memory/region_test.cc",
            metric="`fastserve_shared_memory_refused_total`",
            unit="bytes",
        ),
        Limit(
            "a region's key, with the slash",
            "kMaxRegionKeyBytes",
            "csrc/memory/region.h",
            255,
            "INVALID_ARGUMENT, 400 `want 255 or fewer`",
            f"{SHM_TESTS}, tests/csrc/memory/region_test.cc",
            metric="`fastserve_shared_memory_refused_total`",
            unit="bytes",
        ),
    ],
    "Local transport (`--local`)": [
        Limit(
            "connections",
            "max_connections",
            LOCAL,
            256,
            "RESOURCE_EXHAUSTED `connections: there are N already`",
            "tests/integration/test_local_transport.py",
            metric=LOCAL_CONNECTIONS,
        ),
        Limit(
            "requests in flight of a connection: the cells of its ring, a power of two",
            "max_cells",
            LOCAL,
            1024,
            "INVALID_ARGUMENT `cells: got N, want a power of two of at most 1024`",
            LOCAL_TESTS,
            metric=LOCAL_SOCKET,
        ),
        Limit(
            "bytes of a cell, in which a request's names and shapes must fit",
            "kMostCellBytes",
            "csrc/local/local_frame.h",
            32768,
            "INVALID_ARGUMENT `cell_bytes: got N`",
            "tests/csrc/local/local_handshake_test.cc",
            metric=LOCAL_SOCKET,
            unit="bytes",
        ),
        Limit(
            "regions of a connection",
            "max_regions",
            LOCAL,
            64,
            "RESOURCE_EXHAUSTED `regions: a connection may have 64`",
            LOCAL_TESTS,
            metric=LOCAL_SOCKET,
        ),
        Limit(
            "bytes of a connection's regions",
            "max_region_bytes",
            LOCAL,
            1 << 30,
            "INVALID_ARGUMENT `shared memory: got N bytes`",
            LOCAL_TESTS,
            metric=LOCAL_SOCKET,
            unit="bytes",
        ),
        Limit(
            "bytes of all connections' regions",
            "max_total_region_bytes",
            LOCAL,
            4 << 30,
            "RESOURCE_EXHAUSTED `regions: their bytes are used up`, INVALID_ARGUMENT for one that is larger than what is left",
            LOCAL_TESTS,
            metric=LOCAL_SOCKET,
            unit="bytes",
        ),
        Limit(
            "models that a connection opened",
            "max_models",
            LOCAL,
            256,
            "RESOURCE_EXHAUSTED `models: a connection may open 256`",
            LOCAL_TESTS,
            metric=LOCAL_SOCKET,
        ),
        Limit(
            "BYTES inputs of a request, which are copied",
            "max_string_bytes",
            LOCAL,
            64 << 20,
            "RESOURCE_EXHAUSTED",
            LOCAL_TESTS,
            metric=LOCAL_REFUSED,
            unit="bytes",
        ),
        Limit(
            "inputs, and outputs, of a request",
            "kMostLocalInputs",
            "csrc/local/local_frame.h",
            64,
            "INVALID_ARGUMENT `inputs: got N, want 64 or fewer`",
            "tests/csrc/local/local_frame_test.cc",
            metric=LOCAL_REFUSED,
        ),
        Limit(
            "parameters of a request",
            "kMostLocalParameters",
            "csrc/local/local_frame.h",
            64,
            "INVALID_ARGUMENT `parameters: got N, want 64 or fewer`",
            "tests/csrc/local/local_frame_test.cc",
            metric=LOCAL_REFUSED,
        ),
        Limit(
            "time for the HELLO of a connection",
            "handshake_timeout_ns",
            LOCAL,
            5,
            "closed",
            LOCAL_TESTS,
            metric="`fastserve_local_connections_broken_total`",
            unit="s",
        ),
    ],
    "Models that sleep: requests that wait until theirs is loaded": [
        Limit(
            "requests of a model",
            "ParkingLimits::requests_per_model",
            ENGINE,
            256,
            "UNAVAILABLE, 503 `model 'm' is asleep, and too many requests wait until it is loaded (requests of the model)`",
            ROOM_TESTS,
            metric=ASLEEP,
        ),
        Limit(
            "requests of all models",
            "ParkingLimits::requests",
            ENGINE,
            1024,
            "the same",
            ROOM_TESTS,
            metric=ASLEEP,
        ),
        Limit(
            "bytes of a model's requests",
            "ParkingLimits::bytes_per_model",
            ENGINE,
            64 << 20,
            "the same",
            ROOM_TESTS,
            metric=ASLEEP,
            unit="bytes",
        ),
        Limit(
            "bytes of all models' requests",
            "ParkingLimits::bytes",
            ENGINE,
            256 << 20,
            "the same",
            ROOM_TESTS,
            metric=ASLEEP,
            unit="bytes",
        ),
    ],
    "Labels of versions": [
        Limit("labels of a model", "kMaxLabels", LABEL, 64, "RESOURCE_EXHAUSTED, 429", LABEL_TESTS),
        Limit(
            "versions of a label",
            "kMaxLabelVersions",
            LABEL,
            16,
            "INVALID_ARGUMENT, 400 `got 17 versions, want 16 or fewer`",
            LABEL_TESTS,
        ),
        Limit(
            "weight of a version",
            "kMaxLabelWeight",
            LABEL,
            1_000_000,
            "INVALID_ARGUMENT, 400 `want a whole number from 0 to 1000000`",
            LABEL_TESTS,
        ),
        Limit("characters of a label", "kMaxLabelChars", LABEL, 64, "INVALID_ARGUMENT, 400", LABEL_TESTS),
    ],
    "gRPC": [
        Limit(
            "inputs of a request",
            "kMaxInputs",
            OIP,
            64,
            "INVALID_ARGUMENT `got more than 64 inputs`",
            LIMIT_TESTS,
        ),
        Limit(
            "requested outputs",
            "kMaxRequestedOutputs",
            OIP,
            256,
            "INVALID_ARGUMENT `got more than 256 outputs`",
            LIMIT_TESTS,
        ),
        Limit(
            "parameters of a request",
            "kMaxParameters",
            OIP,
            64,
            "INVALID_ARGUMENT `parameters: got more than 64`",
            LIMIT_TESTS,
        ),
        Limit(
            "digits of `grpc-timeout`",
            "kMaxDigits",
            "csrc/codec/grpc_framing.cc",
            8,
            "INVALID_ARGUMENT `want up to 8 digits`",
            LIMIT_TESTS,
        ),
        Limit(
            "requests in work of one ModelStreamInfer",
            "max_stream_requests",
            TREE,
            256,
            "the stream is held by flow control",
            "tests/csrc/frontend/grpc_stream_test.cc",
            "--max-stream-requests",
            HELD,
        ),
        Limit(
            "answers of one ModelStreamInfer that the client does not read",
            "kMaxQueuedBytes",
            "csrc/frontend/grpc_stream.h",
            1 << 20,
            "the stream is held by flow control",
            "tests/csrc/frontend/grpc_stream_test.cc",
            metric=HELD,
            unit="bytes",
        ),
        Limit(
            "messages of another client-streaming call that the server has not looked at",
            "kMostUnread",
            "csrc/frontend/grpc_connection.cc",
            16,
            "the stream is held by flow control",
            "tests/conformance/test_reflection.py",
            metric=HELD,
        ),
        Limit(
            "time for the client's preface and first SETTINGS",
            "preface_timeout_ns",
            IO,
            120,
            "closed; counted as `deadline`",
            "tests/csrc/frontend/grpc_connection_test.cc",
            unit="s",
        ),
        Limit(
            "silence before a PING",
            "keepalive_time_ns",
            IO,
            7200,
            "a PING",
            "tests/csrc/frontend/grpc_connection_test.cc",
            metric="none",
            unit="s",
        ),
        Limit(
            "time for the answer to it",
            "keepalive_timeout_ns",
            IO,
            20,
            "closed",
            "tests/csrc/frontend/grpc_connection_test.cc",
            metric="none",
            unit="s",
        ),
    ],
    "REST: HTTP/1.1": [
        Limit(
            "the request line",
            "line_bytes",
            HEAD,
            8 << 10,
            "414 `request line longer than 8192 bytes`",
            LIMIT_TESTS,
            unit="bytes",
        ),
        Limit(
            "headers, 4 bytes added to each",
            "header_bytes",
            HEAD,
            16 << 10,
            "431 `headers larger than 16384 bytes`",
            LIMIT_TESTS,
            unit="bytes",
        ),
        Limit(
            "number of headers, trailers too", "headers", HEAD, 64, "431 `more than 64 headers`", LIMIT_TESTS
        ),
        Limit("chunks of a body", "chunks", HEAD, 65_536, "413 `more than 65536 chunks`", LIMIT_TESTS),
        Limit(
            "chunk extensions of a body",
            "chunk_extension_bytes",
            HEAD,
            256,
            "400 `chunk extensions longer than 256 bytes`",
            LIMIT_TESTS,
            unit="bytes",
        ),
        Limit(
            "pipelined requests that wait",
            "held_bytes",
            HEAD,
            256 << 10,
            "the socket is not read",
            "tests/csrc/codec/http1_session_test.cc",
            metric=HELD,
            unit="bytes",
        ),
        Limit(
            "answers that the client does not read",
            "write_high_water_bytes",
            HEAD,
            1 << 20,
            "no further request is looked at",
            "tests/csrc/codec/http1_session_test.cc, tests/conformance/test_slow_clients.py",
            metric=HELD,
            unit="bytes",
        ),
        Limit(
            "time for a head, from its first byte",
            "head_timeout_ns",
            HEAD,
            10,
            "408",
            "tests/conformance/test_slow_clients.py",
            unit="s",
        ),
        Limit(
            "time between two pieces of a body",
            "body_timeout_ns",
            HEAD,
            30,
            "408",
            "tests/csrc/codec/http1_session_test.cc",
            unit="s",
        ),
        Limit(
            "time between requests",
            "idle_timeout_ns",
            HEAD,
            120,
            "closed",
            "tests/csrc/codec/http1_session_test.cc",
            metric="none",
            unit="s",
        ),
    ],
    "REST: JSON": [
        Limit("depth", "kRestJsonDepth", BODY, 32, "400", LIMIT_TESTS),
        Limit("keys of the whole document", "kRestJsonKeys", BODY, 1000, "400", LIMIT_TESTS),
        Limit("characters of a number", "kRestNumberChars", BODY, 64, "400", LIMIT_TESTS),
        Limit("inputs, and outputs", "kRestInputs", BODY, 64, "400 `inputs: got more than 64`", LIMIT_TESTS),
        Limit(
            "parameters of the request",
            "kRestParameters",
            BODY,
            64,
            "400 `parameters: got more than 64`",
            LIMIT_TESTS,
        ),
    ],
    "HTTP/2, gRPC and REST: what one connection may cause": [
        Limit(
            "header list, 32 bytes added to each field",
            "max_header_list_bytes",
            FLOOD,
            16 << 10,
            f"{CALM} `header_list_too_large`",
            LIMIT_TESTS,
            unit="bytes",
        ),
        Limit(
            "fields of a header list",
            "max_headers",
            FLOOD,
            64,
            f"{CALM} `header_list_too_large`",
            LIMIT_TESTS,
        ),
        Limit(
            "CONTINUATION frames of a block",
            "max_continuations",
            FLOOD,
            8,
            f"{CALM} `too_many_continuations`",
            LIMIT_TESTS,
        ),
        Limit(
            "RST_STREAM received at once, and caused",
            "reset_burst",
            FLOOD,
            200,
            f"{CALM} `too_many_resets`, `too_many_stream_errors`",
            LIMIT_TESTS,
        ),
        Limit(
            "... and per second", "reset_per_s", FLOOD, 33, "the same", "tests/csrc/codec/http2_flood_test.cc"
        ),
        Limit(
            "PING, SETTINGS, PRIORITY, empty and unknown frames at once, each",
            "control_burst",
            FLOOD,
            100,
            f"{CALM} `too_many_pings`, ...",
            LIMIT_TESTS,
        ),
        Limit(
            "... and per second; answers earn a PING",
            "control_per_s",
            FLOOD,
            10,
            "the same",
            "tests/csrc/codec/http2_flood_test.cc",
        ),
        Limit(
            "WINDOW_UPDATE beyond those that requests and answers earn, at once",
            "window_update_burst",
            FLOOD,
            10_000,
            f"{CALM} `too_many_window_updates`",
            LIMIT_TESTS,
        ),
        Limit(
            "... and per second",
            "window_update_per_s",
            FLOOD,
            100,
            "the same",
            "tests/csrc/codec/http2_flood_test.cc",
        ),
        Limit(
            "frames that we would have to answer, in the queue",
            "max_outbound_frames",
            FLOOD,
            1000,
            f"{CALM} `too_many_frames_to_answer`",
            "tests/csrc/codec/http2_attack_test.cc",
        ),
        Limit(
            "receive window of a stream",
            "stream_window_bytes",
            FLOOD,
            1 << 20,
            "RST_STREAM or GOAWAY FLOW_CONTROL_ERROR",
            "tests/conformance/http2/test_6_9_windows.py",
            metric=LIBRARY,
            unit="bytes",
        ),
        Limit(
            "receive window of a connection",
            "connection_window_bytes",
            FLOOD,
            4 << 20,
            "GOAWAY FLOW_CONTROL_ERROR",
            "tests/conformance/http2/test_6_9_windows.py",
            metric=LIBRARY,
            unit="bytes",
        ),
        Limit(
            "output that the client does not read",
            "write_high_water_bytes",
            FLOOD,
            1 << 20,
            "the socket is not read",
            "tests/csrc/codec/http2_session_test.cc",
            metric=HELD,
            unit="bytes",
        ),
    ],
}


def shown(limit: Limit) -> str:
    if limit.unit == "bytes":
        for name, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
            if limit.default % size == 0:
                return f"{limit.default // size} {name}"
    number = "2^40" if limit.default == 1 << 40 else f"{limit.default:,}"
    return f"{number} {limit.unit}".rstrip() + (f", or {limit.more}" if limit.more else "")


def table() -> str:
    """Markdown."""
    out = []
    for section, limits in LIMITS.items():
        out += [
            f"### {section}",
            "",
            "| limit | default | set by | beyond it | counted by |",
            "|---|---|---|---|---|",
        ]
        for limit in limits:
            where = f"`{limit.flag}`" if limit.flag else f"`{limit.name}` ({limit.file.rpartition('/')[2]})"
            out.append(f"| {limit.what} | {shown(limit)} | {where} | {limit.beyond} | {limit.metric} |")
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def value_of(limit: Limit, root: Path = ROOT) -> int | None:
    """The default that the source says, in the unit of the list; None when the name is not there."""
    text = (root / limit.file).read_text()
    if limit.file.endswith(".py"):
        found = re.search(
            rf"\n(?:    {limit.name}: Annotated\[.*?\n    \]|{limit.name}) = ([^\n#]+)", text, re.S
        )
    else:
        struct, _, name = limit.name.rpartition("::")
        if struct:
            text = text[text.index(f"struct {struct} {{") :]
        found = re.search(rf"\b{name}\s*=\s*([^;]+);", text)
    return None if found is None else _number(found[1])


def _number(expression: str) -> int:
    """Of C++ or Python: `std::int64_t{1} << 40`, `16 * 1024`, `10 * kSecond`, `10'000`, `30.0`."""
    plain = (
        re.sub(r"\bstd::\w+\{(\w+)\}|\b(\d+)U\b", r"\1\2", expression)
        .replace("'", "")
        .replace("kSecond", "1")
    )
    return int(_evaluated(ast.parse(plain.strip(), mode="eval").body))


def _evaluated(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _evaluated(node.left), _evaluated(node.right)
        if isinstance(node.op, ast.LShift):
            return int(left) << int(right)
        if isinstance(node.op, ast.Mult):
            return left * right
    raise ValueError(ast.dump(node))


if __name__ == "__main__":
    print(table(), end="")
