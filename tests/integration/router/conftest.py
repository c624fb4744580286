"""Stores for the router's integration tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.redis_server import RedisServer

from fleet.keys import Keys
from fleet.memory_store import MemoryStore
from fleet.redis_store import RedisStore


@pytest.fixture
def store() -> Any:
    """A store in memory."""
    return MemoryStore()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def redis_store(redis_server: RedisServer) -> AsyncIterator[Any]:
    """The store on it."""
    made = RedisStore(redis_server.url, Keys())
    yield made
    await made.aclose()
