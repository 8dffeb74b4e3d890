"""`run(config)`: a server from start to exit, as `fastserve serve` has it. Owns signals, the ready file and
exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvloop

import fastserve
from fastserve import Engine, _core, config
from fastserve.gpu.backends import TENSORRT
from fastserve.lifecycle import Repositories, Scan
from fastserve.lifecycle.poller import Poller
from fastserve.lifecycle.saved_state import SavedState
from fastserve.server import cpu, gpu_fault, gpu_memory
from fastserve.server.banner import banner, describe
from fastserve.server.client_shm import allow_client_shm
from fastserve.server.example_request import curl
from fastserve.server.listeners import StartError
from fastserve.server.progress import progress_display
from fastserve.server.ready_file import ReadyFile
from fastserve.server.reload import Reload
from fastserve.server.server import Server
from fastserve.server.start_checks import (
    check_tracing,
    mirror_of,
    model_defaults,
    model_lists,
    poller_of,
    rate_limit,
    response_cache_bytes,
    startup_models,
)
from fastserve.server.systemd import Systemd
from fastserve.server.tls import Certificates, open_certificates

log = logging.getLogger("fastserve.server")

EXIT_UNFINISHED = 1  # requests in flight were given up when the exit timeout passed


def run(configuration: config.Config) -> int:
    """Serves until SIGTERM or SIGINT; the exit code. Raises StartError (or another FastserveError), whose text is one
    line that says what to do, when it cannot start."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload: all is read just now
    repositories = _prepare(configuration)
    tls = open_certificates(configuration.tls)
    state_file = configuration.repository.state_file
    saved = SavedState.open(state_file) if state_file is not None else None
    names = startup_models(
        configuration.repository, repositories, saved.models if saved is not None else None
    )
    poller = poller_of(configuration.repository, repositories)
    scan = poller.first() if poller is not None else repositories.scan(names)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(configuration, repositories, scan, tls, saved, poller))


def _prepare(configuration: config.Config) -> Repositories:
    """Everything that can be wrong before a port is opened."""
    lists = model_lists(configuration.repository)
    if not configuration.repository.model_repository and not lists:
        raise StartError("there is nothing to serve: name a folder of models with --model-repository")
    cache_dir = configuration.openvino.cache_dir
    if cache_dir is not None:
        _check_writable(cache_dir)
    cpu.apply(configuration.cpu)
    gpu_memory.apply(configuration.limits)
    if _core.has_gpu_lane:
        # Read by the driver when it starts: its queues for streams, 8 otherwise, so that a ninth lane would wait behind another.
        os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    check_tracing(configuration.tracing)
    plans = configuration.tensorrt
    kept = plans.plan_cache if plans.plan_cache in {"auto", "none"} else os.path.abspath(plans.plan_cache)
    parameters = {TENSORRT: {"plan_cache": kept, "plan_cache_bytes": str(plans.plan_cache_bytes)}}
    if cache_dir is not None:
        parameters["openvino"] = {"CACHE_DIR": os.fspath(cache_dir)}
    ReadyFile(configuration.server.ready_file).clear()
    defaults = replace(
        model_defaults(configuration.scheduling, configuration.repository), backend_parameters=parameters
    )
    for note in defaults.batching.notes if defaults.batching is not None else ():
        log.warning("--batching-parameters-file: %s", note)
    return Repositories(
        configuration.repository.model_repository, defaults, lists=lists, mirror=mirror_of(configuration)
    )


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StartError(
            f"cannot write to the cache folder {folder}: {os.strerror(error.errno or 0)}; choose another with "
            "--openvino-cache-dir or change its rights"
        ) from None


async def _serve(
    configuration: config.Config,
    repositories: Repositories,
    scan: Scan,
    tls: Certificates | None,
    saved: SavedState | None,
    poller: Poller | None,
) -> int:
    stop = _Stop()
    systemd = Systemd()
    with progress_display() as on_progress:
        server = Server(
            configuration.server,
            configuration.limits,
            configuration.repository,
            Engine(
                max_queue_requests=configuration.limits.max_queue_requests,
                rate_limit=rate_limit(configuration.scheduling),
                response_cache_bytes=response_cache_bytes(configuration.scheduling),
                allow_python_models=configuration.repository.allow_python_models,
            ),
            repositories=repositories,
            tracing=configuration.tracing,
            tls=tls,
            saved=saved,
            poller=poller,
            on_progress=on_progress,
        )
        logging.getLogger("fastserve.access").setLevel(
            logging.INFO if configuration.logging.access_log else logging.WARNING
        )
        if configuration.logging.access_log:
            log.warning("the access log has every request but inference, which is not written there yet")
        reload = Reload(server.control, tls, systemd, server.summary)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.ask)
        allow_client_shm(server.engine.core, configuration)
        await server.start(scan)
        gpu_watch = _watch_gpus(server, configuration.limits.gpu_loss_exit_s)
        log.info("listening", extra=server.addresses)
        systemd.loading(server.summary)
        loading = asyncio.create_task(server.loaded())
        await stop.or_done(loading)
    ready_file = ReadyFile(configuration.server.ready_file)
    if loading.done():
        loading.result()
        systemd.ready(server.summary())
        _announce(server, _is_human(configuration.logging))
        ready_file.write(server.addresses)
        gc.collect()
        gc.freeze()  # what is there now stays: later collections need not look at it
    await stop.wait()
    log.info(
        "stopping: answering what is in flight", extra={"exit_timeout_s": configuration.limits.exit_timeout_s}
    )
    systemd.stopping("answering what is in flight")
    ready_file.remove()
    loading.cancel()
    gpu_watch.cancel()
    stopped = await server.stop(configuration.limits.exit_timeout_s)
    await reload.close()
    systemd.close()
    if stopped:
        log.info("stopped")
        if server.reconciler.hung:
            _exit_now(0)  # a load that was given up still runs: it must not see destructors
        return 0
    log.error(
        "requests were still unfinished after %g s: ending without them", configuration.limits.exit_timeout_s
    )
    _exit_now(EXIT_UNFINISHED)
    raise AssertionError("not reached")


def _watch_gpus(server: Server, grace_s: float) -> asyncio.Task[None]:
    return asyncio.create_task(
        gpu_fault.watch(lambda: server.served.ready.set(False), _exit_now, grace_s=grace_s), name="gpu faults"
    )


def _announce(server: Server, human: bool) -> None:
    """A banner for people, log lines for machines."""
    statuses = server.engine.core.status()
    ready = [s for s in statuses if s.state == "READY"]
    if human:
        states = server.reconciler.model_states()
        color = sys.stderr.isatty()
        sys.stderr.write(
            banner(
                fastserve.__version__,
                server.addresses,
                statuses,
                states,
                http_url=server.http_url,
                curl_options=_curl_options(server),
                gpus=_core.gpu_memory(),
                color=color,
            )
        )
        return
    for status in ready:
        log.info(
            "%s %s", status.model, describe(status), extra={"model": status.model, "version": status.version}
        )
    command = curl(_curl_address(server), ready, _curl_options(server))
    log.info("ready; try: %s", command, extra=server.addresses)


def _curl_options(server: Server) -> str:
    return server.tls.curl_options if server.tls and server.tls.http else ""


def _curl_address(server: Server) -> str:
    """As short as curl takes it."""
    return server.http_url.removeprefix("http://")


def _is_human(logs: config.Logging) -> bool:
    return logs.format == "human" or (logs.format == "auto" and sys.stderr.isatty())


class _Stop:
    """SIGTERM and SIGINT: the first asks to stop, the second ends the process at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    async def wait(self) -> None:
        await self._asked.wait()

    async def or_done(self, task: asyncio.Task[None]) -> None:
        """Returns when the task is done or somebody asks to stop."""
        asked = asyncio.create_task(self._asked.wait())
        await asyncio.wait([asked, task], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set():
            log.error("second signal: ending at once")
            _exit_now(128 + number)
        self._asked.set()


def _exit_now(code: int) -> None:
    """Without destructors: an engine that still works would wait for its work."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
