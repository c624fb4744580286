"""The fake server of a site: its engines, its GPUs, its meter. One event loop holds them all."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

from fleet.profile import SitePowerModel
from site_agent.emulation.config import HostSettings
from site_agent.emulation.gpu import FakeGpus, GpuOptions
from site_agent.emulation.power_log import PowerLog
from site_agent.emulation.running import RunningEngine

logger = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.1
"""The meter's period."""


class UnknownEngineError(Exception):
    """No engine of that name; the message lists those there are."""


class FakeHost:
    """Made of settings; `run` is its meter."""

    def __init__(self, settings: HostSettings) -> None:
        """
        Raises:
            OSError: the power log cannot be written.
        """
        self.settings = settings
        options = GpuOptions(lag_seconds=settings.power_lag_seconds, noise_ratio=settings.power_noise_ratio)
        rng = random.Random(settings.seed)
        now = time.monotonic()
        self.engines: dict[str, RunningEngine] = {}
        for engine in settings.engines:
            gpus = FakeGpus(settings.performance_profile, engine.gpu_indices, options, rng, now)
            self.engines[engine.instance_id] = RunningEngine(engine, settings, gpus)
        self._power_model = SitePowerModel(
            overhead_ratio=settings.overhead_ratio, host_idle_watts=settings.host_idle_watts
        )
        self._log: PowerLog | None = None
        if settings.power_log is not None:
            indices = [index for engine in settings.engines for index in engine.gpu_indices]
            self._log = PowerLog(settings.power_log, indices)

    def engine(self, instance_id: str) -> RunningEngine:
        """The engine of that name.

        Raises:
            UnknownEngineError: there is none.
        """
        engine = self.engines.get(instance_id)
        if engine is None:
            raise UnknownEngineError(
                f"there is no engine {instance_id!r}; there are {', '.join(self.engines)}"
            )
        return engine

    async def run(self) -> None:
        """Measure and log, ten times a second, until cancelled. A late sample is left out, not made up."""
        due = time.monotonic()
        while True:
            self._sample()
            due += SAMPLE_SECONDS
            now = time.monotonic()
            if due < now:
                due = now + SAMPLE_SECONDS
            await asyncio.sleep(due - now)

    def _sample(self) -> None:
        now = time.monotonic()
        watts: list[float] = []
        for engine in self.engines.values():
            engine.gpus.draw_noise()
            watts += engine.gpus.readings(now)
        if self._log is not None:
            self._log.write(time.time(), self._power_model.site_watts(sum(watts)), watts)

    def gpu_watts(self) -> float:
        """All GPUs together, as the meter shows them now."""
        now = time.monotonic()
        return sum(sum(engine.gpus.readings(now)) for engine in self.engines.values())

    def set_clock(self, instance_id: str, clock_mhz: int | None) -> None:
        """Lock (None: unlock) the clock of an instance's GPUs; it follows after its lag.

        Raises:
            UnknownEngineError: there is no such engine.
            ClockError: not a clock of these GPUs.
        """
        engine = self.engine(instance_id)
        now = time.monotonic()
        effective_at = engine.gpus.set_clock(clock_mhz, now)
        # a millisecond more, as timers are that coarse and must not come before the change
        asyncio.get_running_loop().call_later(effective_at - now + 0.001, engine.follow_clock)

    def describe(self) -> dict[str, Any]:
        """The answer to `GET /host`."""
        now = time.monotonic()
        gpus: list[dict[str, Any]] = []
        engines: list[dict[str, Any]] = []
        for instance_id, engine in self.engines.items():
            joules = engine.gpus.joules(now) / len(engine.gpus.indices)
            clock = engine.gpus.clock_mhz(now)
            gpus += [
                {
                    "index": index,
                    "instance_id": instance_id,
                    "power_watts": round(watts, 3),
                    "clock_mhz": clock,
                    "energy_joules": round(joules, 3),
                }
                for index, watts in zip(engine.gpus.indices, engine.gpus.readings(now), strict=True)
            ]
            engines.append(
                {
                    "instance_id": instance_id,
                    "state": engine.state,
                    "port": engine.port,
                    "running": engine.running,
                    "waiting": engine.waiting,
                    "exit_reason": engine.exit_reason,
                }
            )
        site_watts = self._power_model.site_watts(sum(gpu["power_watts"] for gpu in gpus))
        return {
            "fake": True,
            "site_id": self.settings.site_id,
            "gpu_model": f"fake {self.settings.performance_profile.gpu_model}",
            "site_watts": round(site_watts, 3),
            "gpus": gpus,
            "engines": engines,
        }

    async def aclose(self) -> None:
        """Stop every engine, close the log."""
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()))
        if self._log is not None:
            self._log.close()
