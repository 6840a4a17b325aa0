"""The dev agent's blocking queries."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from starlette.requests import Request

from meshsdk_registry.agent.blocking import Blocking, Found, News


async def test_a_change_right_behind_the_look_wakes_the_query() -> None:
    """It lies in the loop's queue before anything that the query can put there."""
    news, index = News(), 1

    def change() -> None:
        nonlocal index
        index = 2
        news.wake()

    def look() -> Found:
        if index == 1:
            asyncio.get_running_loop().call_soon(change)
        return Found(index, None)

    async def connected() -> Any:
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"index=1&wait=60s", "headers": []}
    async with asyncio.timeout(5):
        found = await Blocking(Request(scope, connected), random.Random(1)).run(look, news)
    assert found.index == 2
