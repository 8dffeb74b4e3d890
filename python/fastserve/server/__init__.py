"""The server: an engine, its front ends, the reconciler and the metrics port on one uvloop loop."""

from fastserve.server.listeners import StartError
from fastserve.server.run import run
from fastserve.server.server import Server

__all__ = ["Server", "StartError", "run"]
