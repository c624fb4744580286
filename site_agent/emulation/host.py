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
from site_agent.emulation.running import EngineBusyError, RunningEngine

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
            gpus = FakeGpus(settings.profile_of(engine), engine.gpu_indices, options, rng, now)
            self.engines[engine.instance_id] = RunningEngine(engine, settings, gpus)
        self._power_model = SitePowerModel(
            overhead_ratio=settings.overhead_ratio, host_idle_watts=settings.host_idle_watts
        )
        self._log: PowerLog | None = None
        if settings.power_log is not None:
            self._log = PowerLog(settings.power_log, settings.gpu_indices)

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

    async def start(self, instance_id: str, port: int | None = None) -> int:
        """Start an engine; the port.

        Raises:
            UnknownEngineError: there is no such engine.
            EngineBusyError: it is not stopped, or another engine has one of its GPUs.
            OSError: the port cannot be had.
        """
        engine = self.engine(instance_id)
        for other in self.engines.values():
            if other is not engine and other.has_gpus:
                shared = set(other.gpus.indices).intersection(engine.gpus.indices)
                if shared:
                    raise EngineBusyError(
                        f"engine {instance_id} cannot start: GPU {min(shared)} is in use by "
                        f"{other.settings.instance_id}"
                    )
        return await engine.start(port)

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
        for engine in self.engines.values():
            engine.gpus.draw_noise()
        if self._log is not None:
            watts = self._readings(time.monotonic())
            self._log.write(time.time(), self._power_model.site_watts(sum(watts)), watts)

    def _readings(self, now: float) -> list[float]:
        """Watts of each GPU of the host, in order. One that several layouts use draws for the one that runs:
        the others see it stopped, and while one fades and the next begins, the larger draw is the GPU's."""
        found: dict[int, float] = {}
        for engine in self.engines.values():
            for index, watts in zip(engine.gpus.indices, engine.gpus.readings(now), strict=True):
                found[index] = max(watts, found.get(index, 0.0))
        return [found[index] for index in self.settings.gpu_indices]

    def gpu_watts(self) -> float:
        """All GPUs together, as the meter shows them now."""
        return sum(self._readings(time.monotonic()))

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
        gpus = [
            self._describe_gpu(index, watts, now)
            for index, watts in zip(self.settings.gpu_indices, self._readings(now), strict=True)
        ]
        engines: list[dict[str, Any]] = [
            {
                "instance_id": instance_id,
                "state": engine.state,
                "port": engine.port,
                "running": engine.running,
                "waiting": engine.waiting,
                "exit_reason": engine.exit_reason,
            }
            for instance_id, engine in self.engines.items()
        ]
        site_watts = self._power_model.site_watts(sum(gpu["power_watts"] for gpu in gpus))
        return {
            "fake": True,
            "site_id": self.settings.site_id,
            "gpu_model": f"fake {self.settings.performance_profile.gpu_model}",
            "site_watts": round(site_watts, 3),
            "gpus": gpus,
            "engines": engines,
        }

    def _describe_gpu(self, index: int, watts: float, now: float) -> dict[str, Any]:
        """Of the engine that has it, else of the first that could."""
        users = [one for one in self.engines.values() if index in one.gpus.indices]
        user = next((one for one in users if one.has_gpus), users[0])
        joules = user.gpus.stopped_joules_per_gpu(now) + sum(
            one.gpus.joules_above_stopped(now) / len(one.gpus.indices) for one in users
        )
        return {
            "index": index,
            "instance_id": user.settings.instance_id,
            "power_watts": round(watts, 3),
            "clock_mhz": user.gpus.clock_mhz(now),
            "energy_joules": round(joules, 3),
        }

    async def aclose(self) -> None:
        """Stop every engine, close the log."""
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()))
        if self._log is not None:
            self._log.close()
