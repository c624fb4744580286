"""A stub site that can be planned for, and the power that goes with it."""

from __future__ import annotations

import time
from typing import Any

import orjson

from fleet.records import PowerReading
from support.stub_site import StubSite


class PlannedSite(StubSite):
    """A server of eight H100s that runs the default profile under the stub's model name."""

    def info(self) -> bytes:
        """With GPUs and configurations, and a server that can be off."""
        values = orjson.loads(super().info())
        values |= {
            "farm_id": f"farm-{self.site_id}",
            "gpu_count": 8,
            "server_idle_watts": 1700.0,
            "max_site_watts": 8000.0,
            "configurations": [
                {
                    "model": "m",
                    "tensor_parallel_degree": 4,
                    "gpu_clock_mhz": clock,
                    "profile_id": "llama-3.1-70b/h100/tp4",
                }
                for clock in (1000, 1400, 1980)
            ],
        }
        values["capabilities"]["server_power"] = True
        return orjson.dumps(values)


def power_reading(site_id: str, watts: float, sequence: int) -> bytes:
    """What a feed would write of it now."""
    return PowerReading(
        feed_id=f"feed-{site_id}",
        sequence=sequence,
        site_id=site_id,
        farm_id=f"farm-{site_id}",
        observed_at_unix_seconds=time.time(),
        period_seconds=1.0,
        available_power_watts=watts,
        granted_power_watts=watts,
        nameplate_capacity_watts=10_000.0,
        quality="good",
        source="a test",
    ).to_json()


class Feed:
    """Writes one reading a call for every site."""

    def __init__(self, store: Any, watts: dict[str, float]) -> None:
        self.store = store
        self.watts = watts
        self._sequence = time.time_ns() // 1_000_000

    async def write(self) -> None:
        """All readings, anew."""
        self._sequence += 1
        for site_id, watts in self.watts.items():
            await self.store.publish_power_reading(
                site_id, power_reading(site_id, watts, self._sequence), log=False
            )
