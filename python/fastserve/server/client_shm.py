"""`--allow-client-shm`: what a server does when clients may name shared memory."""

from __future__ import annotations

import logging

from fastserve import _core, config

log = logging.getLogger("fastserve.server")


def allow_client_shm(core: _core.Engine, configuration: config.Config) -> None:
    """Nothing without the flag."""
    if configuration.server.allow_client_shm:
        allow(core, configuration.limits)


def allow(core: _core.Engine, limits: config.Limits) -> None:
    """For the whole process: a client that truncates its memory must not end it (SIGBUS)."""
    _core.install_sigbus_guard()
    core.allow_client_shared_memory(
        regions=limits.client_shm_regions,
        bytes=limits.client_shm_bytes,
        copied_bytes=limits.max_message_bytes,
    )
    log.warning(
        "--allow-client-shm: whoever reaches these ports may have the server read and write shared memory of /dev/shm"
    )
