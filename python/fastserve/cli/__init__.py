"""The command `fastserve`. Only what a command needs is imported, and only when it runs."""

from fastserve.cli.main import main

__all__ = ["main"]
