"""The configuration: one frozen typed tree, resolved once from defaults < file < environment < flags.

tree.py is the tree (plain data, quick to import); resolve.py fills it and remembers where each value came from.
Components are given the section or the values that they need, never the tree.
"""

from fastserve.config.tree import (
    Config,
    Cpu,
    Limits,
    Logging,
    OpenVino,
    Option,
    Remote,
    Repository,
    Scheduling,
    Server,
    Tls,
    Tracing,
    options,
)

__all__ = [
    "Config",
    "Cpu",
    "Limits",
    "Logging",
    "OpenVino",
    "Option",
    "Remote",
    "Repository",
    "Scheduling",
    "Server",
    "Tls",
    "Tracing",
    "options",
]
