"""Batch sizes that a graph is captured for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fastserve import errors

# As TensorRT's backend of Triton has them: a padded row is computed like any other, so the small sizes lie close together.
_USUAL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def sizes_for(max_rows: int, allowed: Sequence[int]) -> tuple[int, ...]:
    """Ascending, the last one `max_rows`; (1,) for a model without a batch dimension (max_rows 0).

    `allowed`: the configuration's; InvalidArgument when it does not end with max_rows."""
    if max_rows == 0:
        return (1,)
    if not allowed:
        return (*(size for size in _USUAL if size < max_rows), max_rows)
    if allowed[-1] != max_rows:
        raise errors.InvalidArgument(
            f"allowed_batch_sizes: the last one is {allowed[-1]}, want {max_rows}, the most rows of a batch"
        )
    return tuple(allowed)
