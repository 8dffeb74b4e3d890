"""Bad input that both protocols can carry: codes and words of the contract, and the next good request is served.

The words are Triton's (tests in the wild look for substrings of them); ours follow with the field and the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from wire import Infer, Refused, Rest, Tensor, fp32, grpc_infer

INVALID, NOT_FOUND, UNIMPLEMENTED = (3, 400), (5, 404), (12, 501)

GOOD = Infer("batch_fp32", (fp32("INPUT0", 2, 4),), id="good")
A, B = fp32("INPUT0", 1, 4), Tensor("INPUT1", "INT32", (1, 2), bytes(8))


def one(*shape: int, name: str = "INPUT0", datatype: str = "FP32", data: bytes | None = None) -> Infer:
    tensor = fp32(name, *shape)
    return Infer(
        "batch_fp32", (Tensor(name, datatype, shape, tensor.data if data is None else data),), id="bad"
    )


@dataclass(frozen=True)
class Case:
    name: str
    request: Infer
    codes: tuple[int, int]  # gRPC, HTTP
    words: tuple[str, ...]  # all of them are in the message


CASES = [
    Case("model", Infer("nope", (A,)), NOT_FOUND, ("Request for unknown model: 'nope' is not found",)),
    Case("model of a long name", Infer("n" * 200, (A,)), NOT_FOUND, ("Request for unknown model",)),
    Case(
        "version",
        Infer("versions", (fp32("INPUT0", 4),), version="9"),
        NOT_FOUND,
        ("Request for unknown model: 'versions' version 9 is not found",),
    ),
    Case(
        "version that is no number",
        Infer("versions", (fp32("INPUT0", 4),), version="x"),
        INVALID,
        ("version", "x"),
    ),
    Case("model that failed", Infer("broken", (A,)), NOT_FOUND, ("'broken' has no available versions",)),
    Case(
        "input",
        one(1, 4, name="wrong"),
        INVALID,
        ("unexpected inference input 'wrong' for model 'batch_fp32'",),
    ),
    Case(
        "input missing",
        Infer("pair", (A,)),
        INVALID,
        ("expected 2 inputs but got 1 inputs for model 'pair'",),
    ),
    Case("no input", Infer("batch_fp32", ()), INVALID, ("inputs", "batch_fp32")),
    Case("input too many", Infer("batch_fp32", (A, B)), INVALID, ("INPUT1",)),
    Case("input twice", Infer("pair", (A, A)), INVALID, ("INPUT0",)),
    Case(
        "dtype",
        one(1, 4, datatype="INT32"),
        INVALID,
        ("inference input 'INPUT0' data-type is 'INT32', but model 'batch_fp32' expects 'FP32'",),
    ),
    Case(
        "dtype of another size", one(1, 4, datatype="FP64", data=bytes(32)), INVALID, ("data-type is 'FP64'",)
    ),
    Case("dtype that is none", one(1, 4, datatype="FLOAT"), INVALID, ("datatype", "FLOAT")),
    Case(
        "dimension",
        one(1, 5),
        INVALID,
        (
            "unexpected shape for input 'INPUT0' for model 'batch_fp32'. Expected [-1,4], got [1,5]",
            'inputs["INPUT0"].shape[1]: got 5, want 4',
        ),
    ),
    Case("rank", one(4), INVALID, ("unexpected shape for input 'INPUT0'", "Expected [-1,4], got [4]")),
    Case("rank too high", one(1, 1, 4), INVALID, ("Expected [-1,4], got [1,1,4]",)),
    Case("rank of 40", one(*[1] * 40), INVALID, ("shape", "16 or fewer")),
    Case("negative dimension", one(-1, 4, data=bytes(16)), INVALID, ("-1",)),
    Case("shape that overflows", one(1 << 40, 1 << 40, data=bytes(16)), INVALID, ("INPUT0",)),
    Case(
        "dynamic shape that overflows",
        Infer("any_fp32", (Tensor("INPUT0", "FP32", (1 << 32, 1 << 32), b""),)),
        INVALID,
        ("INPUT0",),
    ),
    Case(
        "too few bytes",
        one(1, 4, data=bytes(12)),
        INVALID,
        ("input byte size mismatch for input 'INPUT0'", "12"),
    ),
    Case(
        "too many bytes",
        one(1, 4, data=bytes(20)),
        INVALID,
        ("input byte size mismatch for input 'INPUT0'", "20"),
    ),
    Case("no bytes", one(1, 4, data=b""), INVALID, ("input byte size mismatch for input 'INPUT0'",)),
    Case(
        "batch over the maximum",
        one(9, 4),
        INVALID,
        ("inference request batch-size must be <= 8 for 'batch_fp32'", "got 9"),
    ),
    Case("batch of nothing", one(0, 4, data=b""), INVALID, ("INPUT0",)),
    Case(
        "batches that differ",
        Infer("pair", (A, Tensor("INPUT1", "INT32", (2, 2), bytes(16)))),
        INVALID,
        ("batch size does not match",),
    ),
    Case(
        "output",
        Infer("batch_fp32", (A,), outputs=("wrong",)),
        INVALID,
        ("unexpected inference output 'wrong' for model 'batch_fp32'",),
    ),
    Case("output twice", Infer("batch_fp32", (A,), outputs=("OUTPUT0", "OUTPUT0")), INVALID, ("OUTPUT0",)),
    Case(
        "reserved parameter",
        Infer("batch_fp32", (A,), parameters={"triton_own": True}),
        INVALID,
        ("triton_",),
    ),
    *(
        Case(
            f"BYTES whose {what}",
            Infer("batch_bytes", (Tensor("INPUT0", "BYTES", (1, 4), data),)),
            INVALID,
            ("INPUT0",),
        )
        for what, data in {
            "length is beyond the end": b"\0\0\0\0" * 3 + b"\x05\0\0\0ab",
            "length is huge": b"\0\0\0\0" * 3 + b"\xff\xff\xff\xff",
            "prefix is cut": b"\0\0\0\0" * 3 + b"\0\0",
            "elements are too few": b"\0\0\0\0" * 3,
            "elements are too many": b"\0\0\0\0" * 5,
        }.items()
    ),
]


@pytest.fixture(scope="module")
def rest(server: Any) -> Iterator[Rest]:
    opened = Rest(server.http)
    yield opened
    opened.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_over_grpc(channel: grpc.Channel, case: Case) -> None:
    answer = grpc_infer(channel, case.request)
    assert isinstance(answer, Refused), answer
    assert answer.code == case.codes[0], answer
    for words in case.words:
        assert words in answer.message
    assert answer.message.startswith(f"[request id: {case.request.id or '<id_unknown>'}] ")
    assert len(answer.message) <= 1024
    good = grpc_infer(channel, GOOD)
    assert good.raw_output_contents[0] == GOOD.inputs[0].data


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_over_rest(rest: Rest, case: Case) -> None:
    status, body = rest.infer(case.request)
    assert status == case.codes[1], body
    assert list(body) == ["error"]
    for words in case.words:
        assert words in body["error"]
    assert len(body["error"]) <= 1024
    assert rest.is_same_connection, "the fault was the request's, not the connection's"
    status, good = rest.infer(GOOD)
    assert (status, good["id"]) == (200, "good")
    assert rest.is_same_connection
