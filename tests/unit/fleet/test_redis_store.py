"""What the Redis store adds to its client. The store itself meets a real Redis in tests/contract."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from fleet.keys import Keys
from fleet.redis_store import RedisStore


@pytest.mark.parametrize("fails", [False, True], ids=["an answer", "an error"])
async def test_a_cancellation_that_the_client_loses_still_ends_the_task(
    monkeypatch: pytest.MonkeyPatch, fails: bool
):
    """redis-py on Python 3.11 answers or fails instead, and an agent that must stop would go on reporting."""
    is_asking = asyncio.Event()

    async def ping(_self: redis.asyncio.Redis) -> bool:
        is_asking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if fails:
                raise redis.exceptions.ConnectionError("reset") from None
            return True
        raise AssertionError("not cancelled")

    monkeypatch.setattr(redis.asyncio.Redis, "ping", ping)
    store = RedisStore("redis://127.0.0.1:1/0", Keys())
    task = asyncio.create_task(store.ping())
    await is_asking.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.aclose()
