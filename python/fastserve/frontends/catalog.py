"""What the server has, in the words of the Open Inference Protocol and Triton's extensions, as plain data.

Field names are those of protos/ and of Triton's REST bodies alike, so that gRPC builds messages and REST
builds JSON from the same dictionaries. Reads relaxed counters and short lists: cheap enough for the loop's
thread; the index also lists folders, on another thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastserve import _core
from fastserve.errors import NotFound
from fastserve.frontends.names import check_model, check_version
from fastserve.frontends.served import Served
from fastserve.lifecycle import ModelState, completed_config

# Of Triton's extension names (core/src/server.cc), those that are really served.
EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)

# Engine's states as RepositoryIndex has them.
_INDEX_STATE = {
    "NEW": "LOADING",
    "LOADING": "LOADING",
    "WARMING": "LOADING",
    "READY": "READY",
    "DRAINING": "UNLOADING",
    "UNLOADED": "UNAVAILABLE",
    "FAILED": "UNAVAILABLE",
}

Json = dict[str, Any]


def server_metadata(served: Served) -> Json:
    return {"name": "fastserve", "version": served.version, "extensions": _extensions(served)}


def _extensions(served: Served) -> list[str]:
    if not served.core.shared_memory()["allowed"]:
        return [*EXTENSIONS]
    # Whether there is a GPU is known when one is in use; asking the driver for it takes a second and memory.
    cuda = ("cuda_shared_memory",) if _core.pinned_memory()["active"] else ()
    return [*EXTENSIONS, "system_shared_memory", *cuda]


def model_ready(served: Served, model: str, version: str) -> bool:
    """False for unknown models too: what Triton's clients of all versions understand (contracts §2.2)."""
    return served.core.ready(check_model(model), check_version(version))


def model_metadata(served: Served, model: str, version: str) -> Json:
    status = resolve(served, model, version)
    # By a label: the one that it stands for, and that is described here.
    ready = [str(s.version) for s in ([status] if version else ready_versions(served, model))]
    return {
        "name": status.model,
        "versions": ready,
        "platform": status.platform,
        "inputs": _tensors(status.inputs),
        "outputs": _tensors(status.outputs),
        "properties": dict(status.properties),
    }


def statistics(served: Served, model: str, version: str) -> Json:
    """Of all ready versions, of one model's, or of one version; raises as `resolve` does."""
    if model:
        status = resolve(served, model, version)
        wanted = [status] if version else ready_versions(served, model)
    else:
        wanted = [s for s in served.core.status() if s.state == "READY"]
    return {"model_stats": [_statistics(served.core, s) for s in wanted]}


async def index(served: Served, ready_only: bool) -> list[Json]:
    """Every version that is wanted, served or unloaded, what failed with the reason, and the names alone of models that were
    never loaded; by name and version."""
    entries = [_index_entry(state) for state in await served.control.states()]
    return [e for e in entries if not ready_only or e.get("state") == "READY"]


def resolve(served: Served, model: str, version: str) -> _core.VersionStatus:
    """The version that a request would get now; NotFound or Unavailable in the words of the contract."""
    return served.core.resolve(check_model(model), check_version(version))


def ready_versions(served: Served, model: str) -> list[_core.VersionStatus]:
    ready = [s for s in served.core.status() if s.model == model and s.state == "READY"]
    return sorted(ready, key=lambda s: s.version)


def completed_model_config(served: Served, model: str, version: str) -> Any:
    """inference.ModelConfig of the version that a request would get now; raises as `resolve` does."""
    status = resolve(served, model, version)
    spec = served.reconciler.spec(status.model, status.version)
    if spec is None:  # unloaded since
        raise NotFound(f"Request for unknown model: '{model}' is not found")
    return completed_config(spec, status)


def _index_entry(state: ModelState) -> Json:
    if not state.state:
        return {"name": state.model}
    entry = {"name": state.model, "state": _INDEX_STATE[state.state]}
    if state.version is not None:
        entry["version"] = str(state.version)
    if state.state in ("FAILED", "UNLOADED") or state.reason:
        entry["reason"] = state.reason or "unloaded"
    return entry


def _tensors(specs: Sequence[_core.TensorSpec]) -> list[Json]:
    return [{"name": s.name, "datatype": s.datatype, "shape": list(s.shape)} for s in specs]


def _total(total: _core.StageTotal) -> Json:
    return {"count": total.count, "ns": total.ns}


def _statistics(core: _core.Engine, status: _core.VersionStatus) -> Json:
    stats = core.statistics(status.model, status.version)
    # Triton's `fail` holds refused and cancelled requests as well.
    failed = (stats.fail, stats.rejected, stats.cancel)
    return {
        "name": status.model,
        "version": str(status.version),
        "last_inference": stats.last_inference_ms,
        "inference_count": stats.inference_count,
        "execution_count": stats.execution_count,
        "inference_stats": {
            "success": _total(stats.success),
            "fail": {"count": sum(t.count for t in failed), "ns": sum(t.ns for t in failed)},
            "queue": _total(stats.queue),
            "compute_input": _total(stats.compute_input),
            "compute_infer": _total(stats.compute_infer),
            "compute_output": _total(stats.compute_output),
            "cache_hit": _total(stats.cache_hit),
            "cache_miss": _total(stats.cache_miss),
        },
        "batch_stats": [
            {
                "batch_size": batch.rows,
                "compute_input": _total(batch.compute_input),
                "compute_infer": _total(batch.compute_infer),
                "compute_output": _total(batch.compute_output),
            }
            for batch in stats.batches
        ],
    }
