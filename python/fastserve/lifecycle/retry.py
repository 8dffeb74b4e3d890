"""When a load that failed is worth another try, and when. Pure: the clock and the random number come as arguments.

An error that passes by itself (no memory, no device, a disk that did not answer, too slow) is tried again, each time later. One
that lies in the files or the configuration is left alone until these change or somebody asks for the load again: no number of
tries makes a cut file whole.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from fastserve import errors

_PASSING_CODES = {4, 8, 10, 14}  # DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE
_LASTING_ERRNO = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
}


@dataclass(frozen=True)
class RetryRule:
    """By default after 1, 4, 16, 64 and 256 s: quick after a hiccup, and 5 tries in all over about the 5 minutes that TF
    Serving gives them (max_num_load_retries 5, one minute apart)."""

    limit: int = 5  # tries beside the first; 0: none
    first_s: float = 1.0
    factor: float = 4.0
    most_s: float = 300.0
    jitter: float = 0.2  # the pause is up to this share longer or shorter, so that many models do not try at the same moment

    def pause_s(self, failures: int, random: float) -> float | None:
        """Between the `failures`th failure in a row (1 ...) and the next try; None: there is none. `random`: 0 <= x < 1."""
        if failures > self.limit:
            return None
        pause = self.first_s
        for _ in range(failures - 1):
            pause = min(pause * self.factor, self.most_s)  # step by step: no overflow, however many failures
            if pause == self.most_s:
                break
        return min(pause, self.most_s) * (1 + self.jitter * (2 * random - 1))


def is_passing(error: BaseException) -> bool:
    """Whether the same load may work later with the same files."""
    if isinstance(error, errors.FastserveError):
        return error.code in _PASSING_CODES
    if isinstance(error, OSError):
        return error.errno not in _LASTING_ERRNO
    return isinstance(error, MemoryError)


def reason_label(error: BaseException) -> str:
    """For metrics: one of a few words."""
    if isinstance(error, errors.FastserveError):
        return errors.CODE_NAMES.get(error.code, "UNKNOWN").lower()
    if isinstance(error, MemoryError):
        return "out_of_memory"
    return "io" if isinstance(error, OSError) else "unknown"
