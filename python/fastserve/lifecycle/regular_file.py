"""Opening files that somebody else put into a repository: a pipe there would keep whoever opens it waiting for ever, and a device
may have no end."""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO


class NotRegular(OSError):
    """A pipe, a socket, a device."""


def open_regular(path: str | os.PathLike[str]) -> FileIO:
    """For reading, unbuffered. Never waits. NotRegular; OSError as open() has it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotRegular(errno.EINVAL, "is not a regular file", os.fspath(path))
    return FileIO(fd, "rb")
