"""A fleet of made-up records, through the same code that takes real ones."""

from __future__ import annotations

import random
from typing import Any

import orjson

from fleet.records import PowerReading, SiteInfo, SiteReport
from fleet.request import RequestFeatures
from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.outlook import power_outlook
from router.policy.plan_view import PlanView
from router.policy.snapshot import Snapshot, view_of

MODEL = "llama-3.1-70b"
FEATURES = RequestFeatures(
    model=MODEL, request_class="MM", prompt_tokens=1000, expected_output_tokens=150, stream=True
)


class BenchFleet:
    """Sites that all serve, each with another load, power and forecast."""

    def __init__(self, count: int, *, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.names = [f"site-{number:04d}" for number in range(count)]
        self.snapshot = Snapshot()
        self.loads = {name: Load(Breaker(), name) for name in self.names}
        self.infos = {name: SiteInfo.model_validate(self._info(name)) for name in self.names}
        self.sequence = 0
        for name in self.names:
            self.take_report(self.report(name), 100.0)
            self.take_power(self.reading(name), 100.0)
        part = 1.0 / count
        self.snapshot = self.snapshot.with_plan(
            PlanView(epoch=1, valid_until_at=1e9, weights={MODEL: {"MM": dict.fromkeys(self.names, part)}})
        )

    def report(self, name: str) -> SiteReport:
        """A site's next report."""
        return SiteReport.from_json(self.raw_report(name))

    def raw_report(self, name: str) -> bytes:
        """The same, as it comes."""
        self.sequence += 1
        rng = self.rng
        running = rng.randrange(100)
        model = {
            "model": MODEL,
            "ready_instances": 4,
            "instances": [
                {
                    "instance_id": f"i-{index}",
                    "state": "ready",
                    "tensor_parallel_degree": 2,
                    "gpu_clock_mhz": 1600,
                }
                for index in range(4)
            ],
            "max_concurrency": 256,
            "running_requests": running,
            "waiting_requests": rng.randrange(3),
            "headroom_requests": 256 - running,
            "headroom_prefill_tokens": 50_000,
            "headroom_kv_tokens": 300_000,
            "kv_cache_usage_ratio": running / 256,
            "prefill_tokens_per_second": 8000.0,
            "itl_seconds_p50": rng.uniform(0.02, 0.04),
            "itl_seconds_p99": 0.1,
            "ttft_seconds_p50": rng.uniform(0.1, 0.4),
            "ttft_seconds_p99": 1.0,
        }
        return orjson.dumps(
            {
                "schema_version": "1.0",
                "agent_id": f"agent-{name}",
                "sequence": self.sequence,
                "site_id": name,
                "observed_at_unix_seconds": 1.7e9,
                "ingress_url": "http://127.0.0.1:9000",
                "state": "serving",
                "power": {"cap_watts": 5000.0, "draw_watts": rng.uniform(2000, 4800)},
                "models": [model],
            }
        )

    def reading(self, name: str) -> PowerReading:
        """A site's next power reading, with nine horizons."""
        self.sequence += 1
        watts = self.rng.uniform(1000, 6000)
        values: dict[str, Any] = {
            "schema_version": "1.0",
            "feed_id": "feed",
            "sequence": self.sequence,
            "site_id": name,
            "farm_id": f"farm-{name}",
            "observed_at_unix_seconds": 1.7e9,
            "period_seconds": 1.0,
            "available_power_watts": watts,
            "granted_power_watts": watts,
            "nameplate_capacity_watts": 1e4,
            "quality": "good",
            "source": "bench",
            "forecast": [
                {
                    "horizon_seconds": seconds,
                    "p10_watts": watts * 0.6,
                    "p50_watts": watts,
                    "p90_watts": watts * 1.2,
                }
                for seconds in (1, 5, 15, 60, 300, 900, 3600, 10_800, 21_600)
            ],
        }
        return PowerReading.from_json(orjson.dumps(values))

    def take_report(self, report: SiteReport, now: float) -> None:
        """What the router does with a report once it is parsed and judged."""
        view = view_of(report, self.infos[report.site_id], arrived_at=now, is_confirmed=True)
        for model in view.models:
            self.loads[report.site_id].reported(model)
        self.snapshot = self.snapshot.with_site(view)

    def take_power(self, reading: PowerReading, now: float) -> None:
        """The same of a power reading."""
        self.snapshot = self.snapshot.with_power(power_outlook(reading, arrived_at=now))

    def _info(self, name: str) -> dict[str, Any]:
        return {
            "schema_version": "1.0",
            "agent_id": f"agent-{name}",
            "sequence": 1,
            "site_id": name,
            "farm_id": f"farm-{name}",
            "region": "north",
            "ingress_url": "http://127.0.0.1:9000",
            "gpu_model": "H100",
            "gpu_count": 8,
            "server_idle_watts": 800.0,
            "overhead_ratio": 1.1,
            "ride_through_seconds": 5.0,
            "ride_through_joules": 30_000.0,
            "safe_floor_watts": 0.0,
            "max_site_watts": 6500.0,
            "configurations": [
                {
                    "model": MODEL,
                    "tensor_parallel_degree": 2,
                    "gpu_clock_mhz": clock,
                    "profile_id": "llama-3.1-70b/h100/tp2",
                }
                for clock in (800, 1000, 1200, 1400, 1600, 1800, 1980)
            ],
        }
