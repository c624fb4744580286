"""Workers that cannot start: those that serve go on, and a router without any ends and says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.wait import until

from fleet.config import FleetConfig
from fleet.failure import ServiceError
from fleet.memory_store import MemoryStore
from router.config import RouterConfig
from router.workers import child, crew
from router.workers.parent import ParentRouter


@contextlib.asynccontextmanager
async def parent_router(workers: int) -> AsyncIterator[ParentRouter]:
    """A parent in this process, its workers in theirs."""
    config = RouterConfig(port=0, operations_port=0, workers=workers, shutdown_grace_seconds=1)
    router = ParentRouter(FleetConfig(), config, MemoryStore())
    await router.start()
    try:
        yield router
    finally:
        await router.stop()


def texts(router: ParentRouter) -> list[str]:
    return [event["text"] for event in router.events.recent() if event["kind"] == "worker"]


async def test_a_router_whose_workers_crash_at_start_ends(monkeypatch: pytest.MonkeyPatch):
    """With the error that its command prints; a client that has waited in the backlog is let go."""
    monkeypatch.setattr(crew, "NO_WORKER_SECONDS", 0.3)
    monkeypatch.setattr(crew, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(child.sys, "executable", "/bin/false")
    async with parent_router(2) as router:
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        await until(lambda: router.failed_task() is not None, what="the router has failed")
        error = router.failed_task()
        assert isinstance(error, ServiceError)
        assert "no worker has served" in str(error)
        assert "worker 0 ended (exit status 1): it is started again" in texts(router)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_worker_that_cannot_be_made_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    """The machine has no memory for a moment: that ends neither the router nor the other worker."""
    make = asyncio.create_subprocess_exec
    failures = iter([None, OSError(12, "Cannot allocate memory"), OSError(12, "Cannot allocate memory")])

    async def now_and_then(*arguments: Any, **options: Any) -> Any:
        if (error := next(failures, None)) is not None:
            raise error
        return await make(*arguments, **options)

    monkeypatch.setattr(child.asyncio, "create_subprocess_exec", now_and_then)
    async with parent_router(2) as router:
        await until(lambda: router.crew.ready == 2, what="both workers serve", seconds=60)
        assert router.failed_task() is None
        assert texts(router) == ["worker 1 cannot be started (Cannot allocate memory): it is tried again"] * 2
        assert router.crew.restarts == 2
