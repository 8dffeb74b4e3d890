"""The helpers of triton_python_backend_utils."""

from __future__ import annotations

import numpy as np
import pytest

from fastserve.worker.models import pb_utils
from fastserve.worker.models.tensors import NUMPY


@pytest.mark.parametrize("datatype", sorted(set(NUMPY) - {"BF16", "BYTES"}))
def test_every_datatype_of_numpy(datatype: str) -> None:
    dtype = pb_utils.triton_string_to_numpy(f"TYPE_{datatype}")
    tensor = pb_utils.Tensor("t", np.ones((2, 3), dtype))
    assert tensor.triton_dtype().name == datatype
    assert pb_utils.triton_to_numpy_type(tensor.triton_dtype()) == dtype
    assert pb_utils.numpy_to_triton_type(dtype) == tensor.triton_dtype()
    assert (tensor.name(), tensor.shape(), tensor.is_cpu()) == ("t", [2, 3], True)


def test_strings() -> None:
    assert pb_utils.triton_string_to_numpy("TYPE_STRING") is np.object_
    array = np.array([b"a", b"", "\u00e4"], object)
    encoded = pb_utils.serialize_byte_tensor(array)
    assert encoded.tobytes() == b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xc3\xa4"
    assert list(pb_utils.deserialize_bytes_tensor(encoded)) == [b"a", b"", "\u00e4".encode()]
    with pytest.raises(ValueError, match="element 0 is cut off"):
        pb_utils.deserialize_bytes_tensor(b"\x05\0\0\0a")
    with pytest.raises(ValueError, match="strings have no DLPack form"):
        pb_utils.Tensor("t", array).to_dlpack()


def test_dlpack_shares_memory_both_ways() -> None:
    source = np.arange(4, dtype=np.float32)
    tensor = pb_utils.Tensor("t", source)
    for given in (source, tensor, tensor.to_dlpack()):
        taken = pb_utils.Tensor.from_dlpack("u", given)
        assert taken.name() == "u"
        assert np.shares_memory(taken.as_numpy(), source)
    with pytest.raises(TypeError, match="want a capsule or __dlpack__"):
        pb_utils.Tensor.from_dlpack("u", 3)


def test_a_read_only_array_is_copied_for_dlpack() -> None:
    source = np.arange(4, dtype=np.float32)
    source.flags.writeable = False
    taken = pb_utils.Tensor.from_dlpack("u", pb_utils.Tensor("t", source))
    assert not np.shares_memory(taken.as_numpy(), source)
    np.testing.assert_array_equal(taken.as_numpy(), source)


def test_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="got list, want a numpy array"):
        pb_utils.Tensor("t", [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="complex64"):
        pb_utils.Tensor("t", np.ones(1, np.complex64))
    with pytest.raises(pb_utils.TritonModelException, match=r"want pb_utils\.Tensor"):
        pb_utils.InferenceResponse([np.ones(1)])  # type: ignore[list-item]


def test_errors_have_codes() -> None:
    error = pb_utils.TritonError("gone", pb_utils.TritonError.NOT_FOUND)
    assert (error.message(), error.code(), error.grpc_code()) == ("gone", pb_utils.TritonError.NOT_FOUND, 5)
    assert pb_utils.TritonError("x").grpc_code() == 13
    with pytest.raises(ValueError, match="code: got 99"):
        pb_utils.TritonError("x", 99)
    failed = pb_utils.InferenceResponse(error=error)
    assert failed.has_error()
    with pytest.raises(pb_utils.TritonModelException, match="gone"):
        pb_utils.get_output_tensor_by_name(failed, "y")


def test_configurations_are_searched_by_name() -> None:
    config = {"input": [{"name": "x", "dims": [1]}], "output": [{"name": "y"}]}
    assert pb_utils.get_input_config_by_name(config, "x") == {"name": "x", "dims": [1]}
    assert pb_utils.get_output_config_by_name(config, "x") is None
    assert not pb_utils.using_decoupled_model_transaction_policy(config)
    config["model_transaction_policy"] = {"decoupled": True}  # type: ignore[assignment]
    assert pb_utils.using_decoupled_model_transaction_policy(config)


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        ({"name": "x", "dims": [1]}, "'data_type' is missing"),
        ({"name": "x", "data_type": "TYPE_FP32"}, "'dims' is missing"),
        ({"name": "x", "data_type": "TYPE_FP32", "dims": [1], "dimz": 2}, "got \\['dimz'\\]"),
    ],
)
def test_add_input_wants_whole_tensors(tensor: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        pb_utils.ModelConfig({}).add_input(tensor)


def test_the_logger_writes_lines_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    pb_utils.Logger.log_info("one")
    pb_utils.Logger.log_warn("two")
    pb_utils.Logger.log("three", pb_utils.Logger.ERROR)
    assert capsys.readouterr().err == "INFO: one\nWARNING: two\nERROR: three\n"


def test_what_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="MetricFamily is not supported by fastserve"):
        _ = pb_utils.MetricFamily
