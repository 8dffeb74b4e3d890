"""Checks a model repository without a server: every model, every version, every problem, with file and line.

Exit code 0: everything is fine; 1: there are problems with models; 2: a repository cannot be read, or a flag is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastserve.engine import Engine
    from fastserve.lifecycle import ModelDefaults, Problem, VersionSpec
    from fastserve.lifecycle.offline_check import CheckedModel

PROBLEMS, UNREADABLE = 1, 2
_ON_GPU = ("tensorrt", "pytorch_gpu")  # backends that run nowhere else

EXAMPLES = """\
examples:
  fastserve check models                 folders and every config.pbtxt or model.yaml
  fastserve check --load models          load every model as well
  fastserve check --load --allow-python-models models    Python models too: runs their code
  fastserve check --require-manifest models    every file of every version is named and has its checksum
  fastserve check --json models | jq
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "repository",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="model repository (Triton's layout); a folder, not a URL",
    )
    for flag in ("--models-file", "--model-config-file", "--ovms-config-file"):
        parser.add_argument(
            flag, type=Path, metavar="FILE", help="models of this list too, as `serve` has it"
        )
    parser.add_argument(
        "--load", action="store_true", help="load every version with the engine, one after another"
    )
    parser.add_argument(
        "--allow-python-models",
        action="store_true",
        help="with --load: run Python models' code, as `serve` has it",
    )
    parser.add_argument(
        "--host-policy", action="append", default=[], metavar="POLICY", help="as `serve` has it"
    )
    parser.add_argument("--batching-parameters-file", type=Path, metavar="FILE", help="as `serve` has it")
    parser.add_argument(
        "--no-checksums", action="store_true", help="read no file to compare it with its manifest"
    )
    parser.add_argument(
        "--require-manifest",
        action="store_true",
        help="as `serve` has it: a version without one is a problem",
    )
    parser.add_argument(
        "--model-decrypt-hook",
        metavar="HOOK",
        help="as `serve` has it: encrypted models are decrypted as well",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    from fastserve.errors import InvalidArgument
    from fastserve.lifecycle.listed.model_list import lists_of
    from fastserve.lifecycle.offline_check import check_repositories
    from fastserve.lifecycle.repository import Repositories

    _refuse_urls(args.repository)
    lists = lists_of(
        models_file=args.models_file,
        model_config_file=args.model_config_file,
        ovms_config_file=args.ovms_config_file,
    )
    if not args.repository and not lists:
        raise InvalidArgument(
            "there is nothing to check: name a folder of models, or a file that lists models"
        )
    repositories = Repositories(tuple(args.repository), _defaults(args), lists=lists)
    checked = check_repositories(repositories, checksums=not args.no_checksums)
    if checked.unreadable and not checked.models:
        raise checked.unreadable[0]
    models = checked.models
    reports = [_static(model) for model in models]
    if args.load:
        _load(models, reports, allow_python_models=args.allow_python_models)
    failed = any(report["problems"] for report in reports)
    if args.json:
        unreadable = [error.message for error in checked.unreadable]
        ok = not failed and not unreadable
        print(json.dumps({"ok": ok, "models": reports, "unreadable": unreadable}, indent=2))
    else:
        _print(reports, loaded=args.load)
        for error in checked.unreadable:
            print(f"fastserve: error: {error.message}", file=sys.stderr)
    return UNREADABLE if checked.unreadable else PROBLEMS if failed else 0


def _refuse_urls(repositories: Sequence[Path]) -> None:
    """pathlib has made one slash of two."""
    from fastserve.errors import InvalidArgument

    for path in repositories:
        if match := re.match(r"([a-z][a-z0-9+.-]*):/", str(path)):
            raise InvalidArgument(
                f"DIR: got a URL ({match[1]}://...), want a folder: remote repositories are not checked. Copy it here, and check "
                "the copy"
            )


def _defaults(args: argparse.Namespace) -> ModelDefaults:
    from fastserve import config
    from fastserve.server.start_checks import model_defaults

    return model_defaults(
        config.Scheduling(
            host_policy=tuple(args.host_policy), batching_parameters_file=args.batching_parameters_file
        ),
        config.Repository(require_manifest=args.require_manifest, model_decrypt_hook=args.model_decrypt_hook),
    )


def _wants_gpu(spec: VersionSpec) -> bool:
    return spec.backend in _ON_GPU or dict(spec.parameters).get("device", "").startswith("cuda")


def _no_gpu() -> str:
    """Why no GPU can be used on this machine; "" where there is one."""
    from fastserve import _core

    return _core.cuda_devices()[1]


def _static(model: CheckedModel) -> dict[str, Any]:
    from fastserve.gpu.backends import TENSORRT
    from fastserve.gpu.tensorrt.offline import look_at
    from fastserve.lifecycle.backend_choice import why
    from fastserve.lifecycle.version_spec import Problem

    notes = list(model.notes)
    problems = [_problem(problem) for problem in model.problems]
    for version, spec in sorted(model.versions.items()):
        if spec.backend == TENSORRT:
            wrong, told = look_at(spec.path, dict(spec.parameters))
            where = f"{model.name}/{version}"
            problems += [_problem(Problem(model.name, text, where, version=version)) for text in wrong]
            notes += [f"version {version}: {text}" for text in told]
    if any(_wants_gpu(spec) for spec in model.versions.values()) and (reason := _no_gpu()):
        notes.append(f"needs a GPU, and here is none: {reason}")
    if any(spec.backend == "python" for spec in model.versions.values()):
        notes.append("runs code of the repository: `serve` takes it with --allow-python-models only")
    return {
        "name": model.name,
        "repository": str(model.repository),
        "versions": [
            {
                "version": version,
                "served": version in model.served,
                "backend": spec.backend,
                "why": why(spec),
                "path": spec.path,
            }
            for version, spec in sorted(model.versions.items())
        ],
        "problems": problems,
        "notes": notes,
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "text": str(problem),
        "file": problem.where,
        "line": problem.line,
        "version": problem.version,
        "message": problem.message,
    }


def _load(models: list[CheckedModel], reports: list[dict[str, Any]], *, allow_python_models: bool) -> None:
    from fastserve.engine import Engine

    with Engine(allow_python_models=allow_python_models) as engine:
        for model, report in zip(models, reports, strict=True):
            for entry in report["versions"]:
                _load_version(engine, model.versions[entry["version"]], entry, report)


def _load_version(engine: Engine, spec: VersionSpec, entry: dict[str, Any], report: dict[str, Any]) -> None:
    from fastserve.errors import FastserveError
    from fastserve.lifecycle import backend_choice
    from fastserve.lifecycle.version_spec import Problem

    try:
        backend_choice.load(engine.core, spec)
        status = engine.core.resolve(spec.model, str(spec.version))
        entry["backend"] = status.backend
        entry["why"] = status.properties.get("chosen_because", entry["why"])
        entry["max_batch_size"] = status.max_batch_rows
        entry["inputs"] = [
            {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in status.inputs
        ]
        entry["outputs"] = [
            {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in status.outputs
        ]
        entry["properties"] = dict(status.properties)
        engine.core.unload(spec.model, spec.version)
    except FastserveError as error:
        where = f"{spec.model}/{spec.version}"
        report["problems"].append(_problem(Problem(spec.model, error.message, where, version=spec.version)))


def _print(reports: list[dict[str, Any]], *, loaded: bool) -> None:
    if not reports:
        print("no models: every folder of a repository is a model, with version folders 1, 2, ... in it")
        return
    width = max(len(report["name"]) for report in reports)
    for report in reports:
        backends = sorted({f"{entry['backend']} ({entry['why']})" for entry in report["versions"]})
        versions = ", ".join(str(entry["version"]) for entry in report["versions"]) or "-"
        verdict = "problem" if report["problems"] else ("loads" if loaded else "ok")
        print(
            f"{report['name']:<{width}}  {verdict:<7}  version {versions:<8}  {', '.join(backends)}".rstrip()
        )
        for problem in report["problems"]:
            print(f"    {problem['text']}")
        for note in report["notes"]:
            print(f"    note: {note}")
        for entry in report["versions"]:
            if "inputs" in entry:
                print(f"    {entry['version']}: {_tensors(entry['inputs'])} -> {_tensors(entry['outputs'])}")
                print(_how_it_runs(entry["properties"]))
    problems = sum(len(report["problems"]) for report in reports)
    found = _count(problems, "problem") if problems else "no problem found"
    print(f"{_count(len(reports), 'model')}, {found}")


def _how_it_runs(properties: dict[str, str]) -> str:
    """The precision above all: OpenVINO takes bf16 by itself where the CPU has it."""
    shown = ("device", "precision", "shape", "prepared")
    return "       " + ", ".join(f"{name}: {properties[name]}" for name in shown if properties.get(name))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _tensors(tensors: list[dict[str, Any]]) -> str:
    return ", ".join(f"{t['name']} {t['datatype']}{t['shape']}" for t in tensors)
