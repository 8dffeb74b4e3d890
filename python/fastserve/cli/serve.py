"""Serves the models of a repository over gRPC and REST until SIGTERM or SIGINT.

Every setting can be given as a flag (--SECTION.FIELD as well), as FASTSERVE_SECTION_FIELD in the environment, or in
the file that --config names; the flag wins, then the environment. `fastserve config show` lists them.
"""

from __future__ import annotations

import argparse

from fastserve.cli.settings import add_flags, resolved

EXAMPLES = """\
examples:
  fastserve serve --model-repository models
  fastserve serve --model-repository models --http-port 0 --grpc-port 0 --metrics-port 0 --ready-file addresses.json
  fastserve serve --model-repository models --model-control-mode explicit --load-model digits
  fastserve serve --model-repository models --target-p99-ms 25
  fastserve serve --config fastserve.yaml --log-level debug
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    config = resolved(args).config
    from fastserve import log

    log.setup(config.logging.format, config.logging.level)
    from fastserve.server import run as run_server

    return run_server(config)
