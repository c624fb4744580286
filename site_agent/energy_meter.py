"""Once a second: reads GPUs and engines' token counters, and hands one moment to the account."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from fleet.power import MAX_PERIOD_WITHOUT_FEED_SECONDS, MIN_PERIOD_SECONDS, WALK_END_PERIODS
from fleet.records import PowerReading
from site_agent.accounting import EnergyAccount, InstanceMoment, SiteMoment
from site_agent.drivers.interface import GpuDriver, GpuReading
from site_agent.engine_metrics import MetricsWindow
from site_agent.instance import Instance
from site_agent.power_loop import PowerLoop
from site_agent.request_energy import RequestEnergy

READ_SECONDS = 1.0


def fresh(reading: PowerReading | None, age_seconds: float | None) -> PowerReading | None:
    """None once it is so old that the cap has walked down: what the farm gives now nobody knows."""
    if reading is None or age_seconds is None:
        return None
    period = min(max(MIN_PERIOD_SECONDS, reading.period_seconds), MAX_PERIOD_WITHOUT_FEED_SECONDS)
    return reading if age_seconds <= WALK_END_PERIODS * period else None


class EnergyMeter:
    """Owns the account; `gpus` are the last readings, for metrics."""

    def __init__(
        self,
        *,
        power: PowerLoop,
        gpu_driver: GpuDriver,
        instances: Sequence[Instance],
        windows: Mapping[str, MetricsWindow],
        running: Callable[[str], int],
        reading: Callable[[], PowerReading | None],
    ) -> None:
        """`running(instance_id)` is admission's count; `reading` the last power reading while `fresh`."""
        self.account = EnergyAccount()
        self.requests = RequestEnergy()
        self.gpus: tuple[GpuReading, ...] = ()
        self._power = power
        self._gpu_driver = gpu_driver
        self._instances = instances
        self._windows = windows
        self._running = running
        self._reading = reading

    async def run(self) -> None:
        """Runs as long as the agent does."""
        while True:
            self.gpus = await self._gpu_driver.readings()
            if self._power.status is not None:
                joules = self.account.joules
                before = joules["prefill"], joules["decode"]
                self.account.observe(self._moment(asyncio.get_running_loop().time()))
                self.requests.settle(joules["prefill"] - before[0], joules["decode"] - before[1])
            await asyncio.sleep(READ_SECONDS)

    def _moment(self, now: float) -> SiteMoment:
        model, status, reading = self._power.governor.model, self._power.status, self._reading()
        assert status is not None
        joules = {one.index: one.energy_joules for one in self.gpus if one.energy_joules is not None}
        return SiteMoment(
            at=now,
            draw_joules=self._power.draw_joules,
            is_measured=status.draw_source != "modelled",
            is_metered=status.draw_source == "meter",
            gpu_joules=joules,
            gpu_count=len(self.gpus),
            overhead_ratio=model.power.overhead_ratio,
            host_idle_watts=model.power.host_idle_watts,
            granted_watts=None if reading is None else reading.granted_power_watts,
            available_watts=None if reading is None else reading.available_power_watts,
            nameplate_watts=None if reading is None else reading.nameplate_capacity_watts,
            instances=[self._instance(one, joules, now) for one in self._instances if one.is_serving],
        )

    def _instance(self, one: Instance, joules: Mapping[int, float], now: float) -> InstanceMoment:
        model, clock = self._power.governor.model, self._power.clock_mhz(one)
        gpus = one.spec.gpu_indices
        profile = model.profiles.get(len(gpus), model.profile)
        running = self._running(one.instance_id)
        batch = max(1, running)
        page = self._windows[one.instance_id].latest(now)
        return InstanceMoment(
            instance_id=one.instance_id,
            gpu_joules=sum(joules[index] for index in gpus) if gpus and set(gpus) <= joules.keys() else None,
            modelled_watts=profile.watts(running, clock),
            prompt_tokens=None if page is None else page.prompt_tokens,
            output_tokens=None if page is None else page.output_tokens,
            prefill_seconds_per_token=1 / profile.prefill_rate(clock),
            decode_seconds_per_token=profile.itl_seconds(batch, clock) / batch,
        )
