"""Schemas of the REST API's bodies (JSON Schema 2020-12), its path parameters, headers and tags, for openapi.py."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TAGS = {
    "inference": "Answered by the C++ engine",
    "health": "For load balancers and orchestrators",
    "models": "What is served",
    "repository": "What could be served",
    "server": "About the server",
    "settings": "Tracing and logging",
    "shared memory": "Tensors in memory that client and server share",
    "documentation": "This document and its page",
    "other": "Everything else",
}

PARAMETERS: dict[str, Json] = {
    "model": {"description": "Name of a model", "schema": {"type": "string", "maxLength": 128}},
    "version": {
        "description": "Number of a version, or a label that stands for versions",
        "schema": {"type": "string", "pattern": "^([1-9][0-9]*|[A-Za-z][A-Za-z0-9._-]*)$"},
    },
    "label": {
        "description": "Label of versions; `default` is also for requests that name none",
        "schema": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9._-]{0,63}$"},
    },
    "repository": {"description": "Name of a repository", "schema": {"type": "string"}},
    "region": {"description": "Name of a region", "schema": {"type": "string", "maxLength": 256}},
}

HEADERS: dict[str, Json] = {
    "Inference-Header-Content-Length": {
        "description": "Bytes of JSON in front of binary tensor data; 0: the whole body is the one input",
        "schema": {"type": "integer", "minimum": 0},
    },
    "Content-Encoding": {
        "description": "How the body is compressed",
        "schema": {"type": "string", "enum": ["gzip", "deflate", "identity"]},
    },
    "Accept-Encoding": {
        "description": "Which compressions the answer may have",
        "schema": {"type": "string", "examples": ["gzip"]},
    },
}


def _object(properties: Json, *required: str, **more: Any) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), **more}


def _array(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_STRING: Json = {"type": "string"}
_BOOLEAN: Json = {"type": "boolean"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_SHAPE = _array({"type": "integer"})
_DATATYPE: Json = {
    "type": "string",
    "enum": [
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "BF16",
        "FP32",
        "FP64",
        "BYTES",
    ],
}
_TENSOR = {"name": _STRING, "datatype": _DATATYPE, "shape": _SHAPE}
_DATA: Json = {
    "type": "array",
    "description": "Elements in row-major order, flat or nested as the shape says. FP16 and BF16: binary only",
}
# Where a tensor stands, instead of data; in answers as the request had it.
_SHARED: Json = {
    "shared_memory_region": {**_STRING, "description": "Name of a registered region"},
    "shared_memory_byte_size": _COUNT,
    "shared_memory_offset": {**_COUNT, "description": "Bytes from the start of the region; 0 when missing"},
}
_DURATION = _object({"count": _COUNT, "ns": _COUNT}, "count", "ns")

SCHEMAS: dict[str, Json] = {
    "Error": _object({"error": _STRING}, "error"),
    "Live": _object({"live": _BOOLEAN}, "live"),
    "Ready": _object({"ready": _BOOLEAN}, "ready"),
    "Regions": _array(
        _object(
            {"name": _STRING, "key": _STRING, "offset": _COUNT, "byte_size": _COUNT},
            *("name", "key", "offset", "byte_size"),
        )
    ),
    "RegionRegistration": _object(
        {
            "key": {**_STRING, "maxLength": 255, "description": "Of the object, as for shm_open: /name"},
            "offset": {**_COUNT, "description": "Bytes from the start of the object; 0 when missing"},
            "byte_size": {"type": "integer", "minimum": 1},
        },
        *("key", "byte_size"),
    ),
    "CudaRegions": _array(
        _object(
            {"name": _STRING, "device_id": _COUNT, "byte_size": _COUNT}, *("name", "device_id", "byte_size")
        )
    ),
    "CudaRegionRegistration": _object(
        {
            "raw_handle": _object(
                {"b64": {**_STRING, "description": "A cudaIpcMemHandle_t in base64"}}, "b64"
            ),
            "device_id": {**_COUNT, "description": "Of the GPU, as the server numbers them; 0 when missing"},
            "byte_size": {"type": "integer", "minimum": 1},
        },
        *("raw_handle", "byte_size"),
    ),
    "ModelReady": _object({"name": _STRING, "ready": _BOOLEAN}, "name", "ready"),
    "Links": _object({}, additionalProperties=_STRING),
    "ServerMetadata": _object(
        {"name": _STRING, "version": _STRING, "extensions": _array(_STRING)}, "name", "version", "extensions"
    ),
    "TensorMetadata": _object(
        {**_TENSOR, "shape": {**_SHAPE, "description": "-1: any size"}}, "name", "datatype", "shape"
    ),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _array(_STRING),
            "platform": _STRING,
            "inputs": _array(_ref("TensorMetadata")),
            "outputs": _array(_ref("TensorMetadata")),
            "properties": {
                "type": "object",
                "additionalProperties": _STRING,
                "description": "How it runs: device, precision (as executed), streams, shape, ...",
            },
        },
        *("name", "versions", "platform", "inputs", "outputs"),
    ),
    "ModelConfig": {"type": "object", "description": "Triton's ModelConfig, completed from the model"},
    "Duration": _DURATION,
    "BatchStatistics": _object(
        {
            "batch_size": _COUNT,
            "compute_input": _ref("Duration"),
            "compute_infer": _ref("Duration"),
            "compute_output": _ref("Duration"),
        },
    ),
    "ModelStatistics": _object(
        {
            "name": _STRING,
            "version": _STRING,
            "last_inference": {**_COUNT, "description": "Milliseconds since the epoch; 0: never"},
            "inference_count": {**_COUNT, "description": "Rows"},
            "execution_count": {**_COUNT, "description": "Batches"},
            "inference_stats": {"type": "object", "additionalProperties": _ref("Duration")},
            "batch_stats": _array(_ref("BatchStatistics")),
        },
        *("name", "version", "inference_stats", "batch_stats"),
    ),
    "Statistics": _object({"model_stats": _array(_ref("ModelStatistics"))}, "model_stats"),
    "IndexRequest": _object({"ready": {**_BOOLEAN, "description": "Only versions that are ready"}}),
    "Index": _array(
        _object({"name": _STRING, "version": _STRING, "state": _STRING, "reason": _STRING}, "name", "state")
    ),
    "LoadRequest": _object(
        {
            "parameters": {
                "type": "object",
                "properties": {
                    "config": {
                        **_STRING,
                        "description": "A ModelConfig as JSON text, instead of the repository's",
                    }
                },
                "patternProperties": {
                    "^file:": {
                        **_STRING,
                        "contentEncoding": "base64",
                        "description": "file:VERSION/NAME: with such files the model consists of them alone; needs config",
                    }
                },
                "additionalProperties": False,
            }
        }
    ),
    "UnloadRequest": _object({"parameters": _object({"unload_dependents": _BOOLEAN})}),
    "ModelStates": _array(
        _object(
            {
                "name": _STRING,
                "version": {**_STRING, "description": "Missing: the model as a whole"},
                "state": {
                    **_STRING,
                    "description": "NEW LOADING WARMING READY DRAINING UNLOADED FAILED; empty: it was never loaded",
                },
                "reason": {**_STRING, "description": "Why it failed, or what is being done"},
                "progress": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 1,
                    "description": "Of the load that runs",
                },
                "retry_in_s": {"type": "number", "description": "When a load that failed is tried again"},
                "labels": {
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                    "description": "Label: weight",
                },
                "instances": _COUNT,
                "memory_bytes": {**_COUNT, "description": "As far as it is known"},
                "gpu_memory_bytes": {**_COUNT, "description": "Of all GPUs together, by their ledgers"},
                "requests": {**_COUNT, "description": "Answered since the version was loaded"},
                "failures": {**_COUNT, "description": "Refused, failed or cancelled since then"},
            },
            *("name", "state"),
        )
    ),
    "LabelVersions": {
        "description": "A version, versions with their weights, or null: not there",
        "type": ["integer", "string", "object", "null"],
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1_000_000},
        "examples": [3, {"3": 95, "4": 5}],
    },
    "LabelsChange": _object(
        {
            "labels": {"type": "object", "additionalProperties": _ref("LabelVersions")},
            "expected": {"type": "object", "additionalProperties": _ref("LabelVersions")},
        },
        "labels",
    ),
    "LabelAssignment": _object(
        {"versions": _ref("LabelVersions"), "expected": _ref("LabelVersions")}, "versions"
    ),
    "Label": _object(
        {
            "name": _STRING,
            "source": {**_STRING, "enum": ["configured", "assigned"]},
            "versions": _array(
                _object(
                    {
                        "version": _COUNT,
                        "weight": _COUNT,
                        "ready": {**_BOOLEAN, "description": "Versions that are not get no requests"},
                        "requests": {**_COUNT, "description": "By this label, for this version"},
                    },
                    *("version", "weight", "ready", "requests"),
                )
            ),
        },
        *("name", "source", "versions"),
    ),
    "Labels": _object({"model": _STRING, "labels": _array(_ref("Label"))}, *("model", "labels")),
    "InputTensor": _object(
        {
            **_TENSOR,
            "data": _DATA,
            "parameters": _object(
                {
                    "binary_data_size": {**_COUNT, "description": "Bytes behind the JSON, instead of data"},
                    **_SHARED,
                }
            ),
        },
        *("name", "datatype", "shape"),
    ),
    "RequestedOutput": _object(
        {
            "name": _STRING,
            "parameters": _object(
                {
                    "binary_data": _BOOLEAN,
                    "classification": {
                        "type": "integer",
                        "minimum": 1,
                        "description": 'The so many largest elements as "value:index[:label]"',
                    },
                    **_SHARED,
                }
            ),
        },
        "name",
    ),
    "InferRequest": _object(
        {
            "id": {**_STRING, "description": "Given back"},
            "inputs": _array(_ref("InputTensor")),
            "outputs": {**_array(_ref("RequestedOutput")), "description": "Absent: all"},
            "parameters": _object(
                {
                    "priority": {**_COUNT, "description": "1: highest; 0: the model's default"},
                    "timeout": {**_COUNT, "description": "Microseconds in the queue; 0: no limit"},
                    "binary_data_output": {**_BOOLEAN, "description": "All outputs as binary data"},
                }
            ),
        },
        "inputs",
    ),
    "OutputTensor": _object(
        {
            **_TENSOR,
            "data": {"type": "array"},
            "parameters": _object(
                {"binary_data_size": {**_COUNT, "description": "Bytes behind the JSON"}, **_SHARED}
            ),
        },
        *("name", "datatype", "shape"),
    ),
    "InferResponse": _object(
        {
            "id": _STRING,
            "model_name": _STRING,
            "model_version": _STRING,
            "outputs": _array(_ref("OutputTensor")),
        },
        *("model_name", "model_version", "outputs"),
    ),
    "Object": {"type": "object"},
}
