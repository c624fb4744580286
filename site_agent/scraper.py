"""Reads `/metrics` of every engine that is ready, once a second. A page that cannot be had is unknown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from gateway.upstream import Origin, UpstreamError, UpstreamPool
from site_agent import engine_metrics
from site_agent.engine_metrics import MetricsWindow
from site_agent.instance import Instance
from site_agent.progress import Progress

logger = logging.getLogger(__name__)

SCRAPE_SECONDS = 1.0
SCRAPE_TIMEOUT_SECONDS = 5.0
"""As a health probe: a busy engine's page is late, not wrong."""


class Scraper:
    """One window of pages per instance."""

    def __init__(
        self,
        *,
        instances: Sequence[Instance],
        upstream: UpstreamPool,
        unanswered: Callable[[str], int] = lambda _instance_id: 0,
    ) -> None:
        """`unanswered(instance_id)`: our own requests there without a byte yet."""
        self._instances = instances
        self._by_id = {one.instance_id: one for one in instances}
        self._upstream = upstream
        self._unanswered = unanswered
        self._ready_at: dict[str, float | None] = {}
        self.progress = {one.instance_id: Progress() for one in instances}
        self.windows = {one.instance_id: MetricsWindow() for one in instances}
        self.failures = 0

    def loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """One per engine, by name; each runs as long as the agent does."""
        return {f"scraper {one.instance_id}": partial(self._follow, one) for one in self._instances}

    async def _follow(self, instance: Instance) -> None:
        while True:
            await self._scrape(instance)
            await asyncio.sleep(SCRAPE_SECONDS)

    async def _scrape(self, instance: Instance) -> None:
        window = self.windows[instance.instance_id]
        asked = instance.ready_at
        is_another = self._ready_at.get(instance.instance_id) != asked
        if is_another or not instance.is_serving:
            window.clear()
            self.progress[instance.instance_id].forget()
            self._ready_at[instance.instance_id] = asked
        if not instance.is_serving or instance.origin is None:
            return
        try:
            async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS):
                page = await self._read(instance.origin)
        except (UpstreamError, TimeoutError) as error:
            self.failures += 1
            logger.debug(
                "no metrics", extra={"instance": instance.instance_id, "error": str(error) or "timeout"}
            )
            return
        if instance.ready_at != asked:
            return  # of an engine that is gone
        metrics = engine_metrics.parse(page)
        now = asyncio.get_running_loop().time()
        window.add(metrics, now)
        unanswered = self._unanswered(instance.instance_id)
        self.progress[instance.instance_id].observe(metrics, now, unanswered=unanswered)

    def stalled_seconds(self, instance_id: str) -> float:
        """How long an engine has had work and made no token."""
        if self._ready_at.get(instance_id) != self._by_id[instance_id].ready_at:
            return 0.0  # an earlier engine's
        return self.progress[instance_id].stalled_seconds

    async def _read(self, origin: Origin) -> str:
        response = await self._upstream.send(
            origin, "GET", "/metrics", [], b"", first_byte_timeout_seconds=SCRAPE_TIMEOUT_SECONDS
        )
        try:
            body = await response.read(engine_metrics.MAX_PAGE_BYTES)
            if response.status != 200:
                raise UpstreamError("protocol", f"{origin}/metrics: status {response.status}")
            return body.decode("utf-8", "replace")
        finally:
            response.close()
