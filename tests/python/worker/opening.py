"""Opens models in this process, as a worker process does."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from fastserve.worker.model import Calls, ModelSpec, Request, WorkerModel, open_model


def spec_of(
    repository: Path, kind: str, config: dict[str, Any] | None = None, **parameters: str
) -> ModelSpec:
    return ModelSpec(
        model="m",
        version=1,
        folder=str(repository / "m" / "1"),
        repository=str(repository / "m"),
        kind=kind,
        config=config or {},
        parameters=parameters,
        instance=0,
        instance_name="m_0_0",
        threads=1,
    )


def version_folder(repository: Path) -> Path:
    folder = repository / "m" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python_model(
    repository: Path, code: str, config: dict[str, Any] | None = None, calls: Calls | None = None
) -> WorkerModel:
    (version_folder(repository) / "model.py").write_text(textwrap.dedent(code))
    return open_model(spec_of(repository, "python", config), calls)


def tensor(name: str, data_type: str, *dims: int) -> dict[str, Any]:
    return {"name": name, "data_type": data_type, "dims": list(dims)}


def request(**inputs: Any) -> Request:
    return Request("", inputs)
