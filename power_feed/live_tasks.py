"""Runs the feed's live sources, tells its metrics how they fare and its pace when there is something new."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from power_feed.metrics import FeedMetrics
from power_feed.sources.interface import FaultKind, LiveSource
from power_feed.sources.registry import LiveSources


@dataclass(frozen=True, slots=True, kw_only=True)
class _FarmWatcher:
    """What happens to one source, by the labels of its farm."""

    metrics: FeedMetrics
    farm_id: str
    name: str
    on_change: Callable[[], None]

    def changed(self) -> None:
        self.on_change()

    def connected(self) -> None:
        self.metrics.source_connections.labels(self.farm_id, self.name).inc()

    def failed(self, kind: FaultKind) -> None:
        self.metrics.source_faults.labels(self.farm_id, self.name, kind).inc()


class LiveTasks:
    """One task for each live source."""

    def __init__(
        self,
        lives: LiveSources,
        farm_ids: Iterable[str],
        metrics: FeedMetrics,
        *,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_change` is called when a source has a newer measurement."""
        self._sources: list[tuple[str, LiveSource]] = []
        for farm_id in farm_ids:
            kinds: dict[str, int] = {}
            for source in lives.of(farm_id):
                kinds[source.kind] = kinds.get(source.kind, 0) + 1
                name = source.kind if kinds[source.kind] == 1 else f"{source.kind}-{kinds[source.kind]}"
                source.watch(_FarmWatcher(metrics=metrics, farm_id=farm_id, name=name, on_change=on_change))
                _connect_gauges(metrics, farm_id, name, source, clock)
                self._sources.append((f"{farm_id}/{name}", source))

    def loops(self) -> dict[str, Callable[[], Coroutine[None, None, None]]]:
        """One per source, by name, that listens for ever."""
        return {f"source {name}": source.run for name, source in self._sources}


def _connect_gauges(
    metrics: FeedMetrics, farm_id: str, name: str, source: LiveSource, clock: Callable[[], float]
) -> None:
    def age_seconds() -> float:
        value_at = source.status.value_at_unix_seconds
        return math.inf if value_at is None else max(0.0, clock() - value_at)

    metrics.source_connected.labels(farm_id, name).set_function(lambda: float(source.status.is_connected))
    metrics.source_value_age_seconds.labels(farm_id, name).set_function(age_seconds)
    metrics.source_connections.labels(farm_id, name)
