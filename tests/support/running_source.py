"""A source of a configuration, running on its own, for tests against real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from power_feed.config import FeedConfig
from power_feed.sources.interface import FaultKind
from power_feed.sources.live import Live
from power_feed.sources.registry import LiveSources, build_sources
from support.wait import until

NAMEPLATE_WATTS = 1000.0
QUICK = {"period_seconds": 0.1, "timeout_seconds": 1.0, "max_retry_seconds": 0.1}
"""A real farm's are a second and more; tests have better things to do than wait."""


class RunningSource:
    """What a test asks of it."""

    def __init__(self, source: Live) -> None:
        self.source = source
        self.seen: list[float | None] = []
        """Every value that was ever the newest, in turn."""

    def changed(self) -> None:
        self.seen.append(self.watts)

    def connected(self) -> None:
        """As a watcher."""

    def failed(self, kind: FaultKind) -> None:
        """As a watcher."""

    @property
    def watts(self) -> float | None:
        return self.source.measurement(time.time()).watts

    async def until_watts(self, watts: float | None) -> None:
        await self._until(lambda: self.watts == watts, f"{watts} W")

    async def until_fault(self, kind: FaultKind, *, more_than: int = 0) -> str:
        """The message of the latest, once there are more than so many of the kind."""
        faults = self.source.status.faults
        await self._until(lambda: faults.get(kind, 0) > more_than, kind)
        last = self.source.status.last_fault
        assert last is not None
        return last[1]

    async def until_connected(self, *, connections: int = 1) -> None:
        status = self.source.status
        await self._until(
            lambda: status.is_connected and status.connections >= connections, f"connection {connections}"
        )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            await until(condition, seconds=20, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.describe()}") from None

    def describe(self) -> str:
        status = self.source.status
        return f"{self.watts} W, {status.connections} connections, {status.faults}, {status.last_fault}"


@asynccontextmanager
async def running_source(config: dict[str, Any]) -> AsyncIterator[RunningSource]:
    """The source of a farm of 1,000 W whose `source` table is `config`, over QUICK."""
    farm = {"farm_id": "farm", "site_id": "site", "nameplate_watts": NAMEPLATE_WATTS}
    feed = FeedConfig.model_validate({"farms": [farm | {"source": QUICK | config}]})
    lives = LiveSources()
    build_sources(feed, start_unix_seconds=None, lives=lives)
    (source,) = lives.of("farm")
    assert isinstance(source, Live)
    subject = RunningSource(source)
    source.watch(subject)
    task = asyncio.create_task(source.run())
    try:
        yield subject
    finally:
        assert not task.done(), "a live source runs for ever"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
