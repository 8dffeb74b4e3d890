"""REST: what a model's batch policy believes and did, as data, in words, and as a picture. Ours alone; no peer has it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.frontends.openapi import operation
from fastserve.frontends.rest_parts import MODEL_PATHS, json_answer, served_of, target_of
from fastserve.frontends.scheduling_picture import picture
from fastserve.frontends.scheduling_words import sentences


@operation("models", answer="Object", errors=(400, 404, 503))
async def scheduling(request: Request) -> Response:
    """How a model's requests are batched, and why

    The learned cost of a batch by its rows, the rate of arrivals, the target, what was chosen in the last minute and
    for which reason. `words` says the same in sentences.
    """
    view = served_of(request).core.scheduling(*target_of(request))
    return json_answer({**view, "words": sentences(view)})


@operation("models", answer="image/svg+xml", errors=(400, 404, 503))
async def scheduling_picture(request: Request) -> Response:
    """Latency and throughput against batch size, as a picture"""
    view = served_of(request).core.scheduling(*target_of(request))
    return Response(picture(view), media_type="image/svg+xml", headers={"cache-control": "no-store"})


ROUTES = [
    Route(f"{path}/{name}", endpoint, methods=["GET"])
    for path in MODEL_PATHS
    for name, endpoint in (("scheduling", scheduling), ("scheduling.svg", scheduling_picture))
]
