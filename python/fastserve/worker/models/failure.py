"""An exception of a model's -> (gRPC code, text), with the traceback on stderr, which is the server's log."""

from __future__ import annotations

import sys
import traceback

from fastserve import errors


def failure(error: BaseException) -> tuple[int, str]:
    """Fastserve's own errors keep their code and are no fault worth a traceback; everything else is INTERNAL."""
    if isinstance(error, errors.FastserveError):
        return error.code, error.message
    traceback.print_exception(error, file=sys.stderr)
    return errors.Internal.code, traceback.format_exception_only(error)[-1].strip()
