"""What `serve` finds wrong with its settings before a port is opened: one line each that says what to do."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fastserve import config
from fastserve.errors import FastserveError
from fastserve.lifecycle import ModelDefaults, Repositories, protected
from fastserve.lifecycle.batching_parameters import read_batching_parameters
from fastserve.lifecycle.host_policy import read_host_policies
from fastserve.lifecycle.listed.model_list import ModelList, lists_of
from fastserve.lifecycle.poller import Poller
from fastserve.lifecycle.remote import Mirror, MirrorSettings, default_cache_dir, is_remote
from fastserve.lifecycle.remote.store import Patience
from fastserve.lifecycle.remote.urls import protocol_of
from fastserve.lifecycle.saved_state import SavedModel
from fastserve.scheduling import MAX_RESOURCE_COUNT, RateLimit
from fastserve.server.listeners import StartError

log = logging.getLogger("fastserve.server")

EVERY_MODEL = "*"
MAX_CACHE_BYTES = 1 << 50
_CACHE = re.compile(r"local,size=(?P<bytes>\d{1,18})")
_RESOURCE = re.compile(r"(?P<name>[^:\s]+):(?P<count>\d{1,18})(:(?P<device>\d{1,4}))?")


def startup_models(
    repository: config.Repository,
    repositories: Repositories,
    saved: Mapping[str, SavedModel] | None = None,
) -> list[str] | None:
    """The models that are loaded at start; None: all of them. `saved`: what clients changed before the restart. Raises
    StartError."""
    wanted = list(repository.load_model)
    if repository.model_control_mode != "explicit":
        if wanted:
            raise StartError("--load-model needs --model-control-mode explicit as well")
        return None
    if EVERY_MODEL in wanted and len(wanted) > 1:
        raise StartError("--load-model '*' loads every model: give it alone")
    if EVERY_MODEL in wanted and not saved:
        return None
    present = repositories.names()
    for name in wanted:
        if name not in present and name != EVERY_MODEL:
            raise StartError(f"--load-model {name[:128]!r}: no model repository has a folder of that name")
    return _with_saved(present if EVERY_MODEL in wanted else wanted, present, saved or {})


def model_lists(repository: config.Repository) -> tuple[ModelList, ...]:
    """The files that list models, read. Raises InvalidArgument, NotFound: file, line and what is wrong."""
    lists = lists_of(
        models_file=repository.models_file,
        model_config_file=repository.model_config_file,
        ovms_config_file=repository.ovms_config_file,
        model_name=repository.model_name,
        model_base_path=repository.model_base_path,
    )
    for entry in lists:
        entry.refresh()
    return lists


def poller_of(repository: config.Repository, repositories: Repositories) -> Poller | None:
    """What looks for changes; None: nobody does. Raises StartError."""
    lists_s = repository.model_config_file_poll_s
    if lists_s and repository.model_control_mode == "explicit":
        raise StartError(
            "--model-config-file-poll-wait-seconds does not go with --model-control-mode explicit"
        )
    if repository.model_control_mode == "poll":
        return Poller(repositories, min(repository.poll_s, lists_s or repository.poll_s))
    return Poller(repositories, lists_s, folders=False) if lists_s else None


def _with_saved(wanted: list[str], present: list[str], saved: Mapping[str, SavedModel]) -> list[str]:
    """What the flags say, changed by what clients did last."""
    changed = {name for name in wanted if name not in saved}
    for name, model in saved.items():
        if model.from_files:
            log.error("%s was loaded from files of a request, which are not kept: load it again", name)
        elif model.loaded and name not in present:
            log.error("%s was loaded before the restart, and no model repository has it now", name)
        elif model.loaded:
            changed.add(name)
    return sorted(changed)


def model_defaults(
    scheduling: config.Scheduling, repository: config.Repository | None = None
) -> ModelDefaults:
    """Without the backends' parameters. Raises StartError."""
    file = scheduling.batching_parameters_file
    try:
        policies = read_host_policies(scheduling.host_policy)
    except ValueError as error:
        raise StartError(f"--host-policy: {error}") from None
    try:
        batching = read_batching_parameters(file) if file is not None else None
    except ValueError as error:
        raise StartError(f"--batching-parameters-file: {error}") from None
    defaults = ModelDefaults(
        target_p99_ms=scheduling.target_p99_ms, host_policies=policies, batching=batching
    )
    if repository is None:
        return defaults
    hook = repository.model_decrypt_hook or ""
    try:
        protected.check_hook(hook)
    except FastserveError as error:
        raise StartError(f"--model-decrypt-hook: {error}") from None
    return replace(defaults, require_manifest=repository.require_manifest, decrypt_hook=hook)


def mirror_of(configuration: config.Config) -> Mirror | None:
    """Where remote repositories are kept; None: there are none. Raises what protocol_of raises."""
    urls = [str(path) for path in configuration.repository.model_repository if is_remote(path)]
    for url in urls:
        protocol_of(url)
    remote = configuration.remote
    settings = MirrorSettings(
        cache_dir=(remote.cache_dir or default_cache_dir()).absolute(),
        cache_bytes=remote.cache_bytes,
        keep_s=remote.cache_keep_s,
        offline_start=remote.offline_start,
        max_version_files=remote.max_version_files,
        max_version_bytes=remote.max_version_bytes,
        parallel=remote.parallel,
        patience=Patience(request_timeout_s=remote.request_timeout_s),
    )
    return Mirror(settings) if urls else None


def rate_limit(scheduling: config.Scheduling) -> RateLimit | None:
    """Of NAME:COUNT, or Triton's NAME:COUNT:DEVICE, where 0 is the CPU. Raises StartError."""
    counts: dict[str, int] = {}
    for text in scheduling.rate_limit_resource:
        found = _RESOURCE.fullmatch(text)
        if found is None or not 1 <= int(found["count"]) <= MAX_RESOURCE_COUNT:
            raise StartError(
                f"--rate-limit-resource: got '{text[:80]}', want NAME:COUNT with 1 to {MAX_RESOURCE_COUNT}"
            )
        if int(found["device"] or 0) != 0:
            log.warning("--rate-limit-resource %s is without effect: the CPU is device 0", text)
            continue
        if found["name"] in counts:
            raise StartError(f"--rate-limit-resource: '{found['name']}' is given twice")
        counts[found["name"]] = int(found["count"])
    if scheduling.rate_limit == "off":
        if scheduling.rate_limit_resource:
            raise StartError("--rate-limit-resource needs --rate-limit execution_count as well")
        return None
    return RateLimit(counts)


def response_cache_bytes(scheduling: config.Scheduling) -> int:
    """Of --response-cache-bytes, or Triton's --cache-config local,size=BYTES. Raises StartError."""
    if not scheduling.cache_config:
        return scheduling.response_cache_bytes
    if scheduling.response_cache_bytes:
        raise StartError("--cache-config is given beside --response-cache-bytes: want one of them")
    if len(scheduling.cache_config) > 1:
        raise StartError(f"--cache-config: got {len(scheduling.cache_config)} of them, want one")
    text = scheduling.cache_config[0]
    found = _CACHE.fullmatch(text)
    if found is None or int(found["bytes"]) > MAX_CACHE_BYTES:
        raise StartError(
            f"--cache-config: got '{text[:80]}', want local,size=BYTES with up to {MAX_CACHE_BYTES}"
        )
    return int(found["bytes"])


def check_tracing(tracing: config.Tracing) -> None:
    """Raises StartError."""
    if tracing.file is None:
        if tracing.level != "OFF":
            raise StartError(f"--trace-level {tracing.level} needs --trace-file as well")
        return
    folder = tracing.file.parent
    if tracing.file.is_dir() or not folder.is_dir() or not _writable(tracing.file, folder):
        raise StartError(f"cannot write traces to {tracing.file}: choose another file with --trace-file")


def _writable(file: Path, folder: Path) -> bool:
    return os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))
