"""fastserve.client in its two forms behind one face: `call` a method, `collect` a stream."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from fastserve.client import AsyncClient, Client

FORMS = ("blocking", "asyncio")


class OwnClient:
    """`form`: one of FORMS."""

    def __init__(self, form: str, url: str, **arguments: Any) -> None:
        self._loop = asyncio.new_event_loop() if form == "asyncio" else None
        self._client: Any = self._run(self._made(url, arguments)) if self._loop else Client(url, **arguments)

    async def _made(self, url: str, arguments: dict[str, Any]) -> AsyncClient:
        return AsyncClient(url, **arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._run(getattr(self._client, method)(*args, **kwargs))

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        return self.call("infer", *args, **kwargs)

    def collect(self, method: str, *args: Any, limit: int = 1_000_000, **kwargs: Any) -> list[Any]:
        """At most `limit` items of a stream; what is left of it is given up."""
        items = getattr(self._client, method)(*args, **kwargs)
        if self._loop:
            return self._run(self._taken(items, limit))
        taken = []
        for item in items:
            taken.append(item)
            if len(taken) == limit:
                items.close()
                break
        return taken

    async def _taken(self, items: Any, limit: int) -> list[Any]:
        taken = []
        async for item in items:
            taken.append(item)
            if len(taken) == limit:
                await items.aclose()
                break
        return taken

    def _run(self, value: Any) -> Any:
        return self._loop.run_until_complete(value) if self._loop else value

    def close(self) -> None:
        self.call("close")
        if self._loop:
            self._loop.close()
