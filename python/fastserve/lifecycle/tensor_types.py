"""inference.DataType <-> OIP's names, and bytes of one element."""

from __future__ import annotations

from fastserve import protos

# Fixed sizes; BYTES has none.
ELEMENT_BYTES = {
    **dict.fromkeys(("BOOL", "INT8", "UINT8"), 1),
    **dict.fromkeys(("INT16", "UINT16", "FP16", "BF16"), 2),
    **dict.fromkeys(("INT32", "UINT32", "FP32"), 4),
    **dict.fromkeys(("INT64", "UINT64", "FP64"), 8),
}
DATATYPES = (*ELEMENT_BYTES, "BYTES")


def datatype_of(data_type: int) -> str:
    """inference.DataType -> OIP name: TYPE_FP32 -> FP32, TYPE_STRING -> BYTES; TYPE_INVALID -> ""."""
    name: str = protos.enum_type("inference.DataType").values_by_number[data_type].name
    return {"TYPE_STRING": "BYTES", "TYPE_INVALID": ""}.get(name, name.removeprefix("TYPE_"))


def data_type_of(datatype: str) -> int:
    """The reverse of `datatype_of`; KeyError when Triton has no such type."""
    name = "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
    number: int = protos.enum_type("inference.DataType").values_by_name[name].number
    return number
