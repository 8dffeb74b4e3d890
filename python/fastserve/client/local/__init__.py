"""A client on the server's own machine: tensors in shared memory, no copies on the server (`fastserve serve --local`).

    from fastserve.client.local import LocalClient

    with LocalClient("unix:/run/fastserve.sock") as client:
        scores = client.infer("digits", {"image": image})["scores"]         # copies in, copies out

        with client.slot("digits", rows=8) as slot:                          # memory that the server reads and writes
            slot.inputs["image"][:] = pixels
            scores = slot.run()["scores"]                                    # a view, until the next run

`AsyncLocalClient` is the same for asyncio. Errors are those of `fastserve.errors`; when the server dies, calls raise
Unavailable, `client.gone` is true from then on, and a new client has to be made: nothing connects again by itself.

Thread: a LocalClient may be used by several threads, one at a time (it has a lock); an AsyncLocalClient belongs to its loop.
A forked child must not use its parent's.
"""

from fastserve.client.local.aio import AsyncLocalClient, AsyncSlot
from fastserve.client.local.sync import LocalClient, Slot

__all__ = ["AsyncLocalClient", "AsyncSlot", "LocalClient", "Slot"]
