"""The power loop: meter, cap, governor, orders; ten times a second and at once on a new reading.

Rules: it waits for nothing but its own tick; the meter is read beside it, and Redis, the network and the
engines' answers never hold it up. Each turn is also the heartbeat: a loop that stands still loses its engines
to the watchdog.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from fleet.records import PowerQuality
from site_agent.admission import Admission
from site_agent.controls import SiteControl
from site_agent.drivers.interface import GpuDriver
from site_agent.expected_draw import ExpectedDraw
from site_agent.instance import Instance
from site_agent.instances import InstancePool
from site_agent.power_status import PowerStatus
from site_agent.site_draw import Draw, SiteDraw
from site_agent.site_meter import SiteMeter
from site_agent.situation import (
    Admit,
    BreakStreams,
    CapForecast,
    Command,
    Decision,
    Drain,
    InstanceView,
    SetClock,
    SiteView,
    StartEngine,
    StopEngine,
    Target,
)

logger = logging.getLogger(__name__)

METER_MAX_AGE_SECONDS = 1.0
"""An older measurement is no measurement: the draw is then modelled."""
FIRST_READING_SECONDS = 3.0
"""After so long without any reading the site is governed by its safe floor; before, there is nothing to do:
no engine has been started."""


class CapSource(Protocol):
    """What the loop needs of `site_agent.power_follow.PowerFollow`."""

    news: asyncio.Event
    """Set when a reading has come; the loop clears it."""

    @property
    def has_reading(self) -> bool: ...
    @property
    def quality(self) -> PowerQuality | None: ...
    def cap_watts(self, now: float) -> float: ...
    def forecast(self, now: float) -> tuple[tuple[CapForecast, ...], float]: ...


class PowerLoop:
    """Owns the governor."""

    def __init__(
        self,
        *,
        governor: SiteControl,
        cap: CapSource,
        gpus: GpuDriver,
        pool: InstancePool,
        admission: Admission,
        tick_seconds: float,
        beat: Callable[[], None],
        on_change: Callable[[], None],
        update_limits: Callable[[int, float], None] = lambda _clock_mhz, _now: None,
        targets: Callable[[float], tuple[Target, ...] | None] = lambda _now: None,
        turned_away: Callable[[], int] = lambda: 0,
        site_meter: SiteMeter | None = None,
        meter_lag_seconds: float = 0.0,
    ) -> None:
        """`beat` tells the watchdog that the agent lives; `on_change`: state, cap, or whether anything may
        come in, differ from before; `update_limits(clock_mhz, now)` is called at every turn.
        `targets(now)`: this site's, of a valid plan; `turned_away()`: requests refused so far for want of a
        slot. `site_meter`: of the whole site, where it has one.
        """
        self.governor = governor
        self.commands: Counter[str] = Counter()
        self.broken_streams = 0
        self.is_closing = False
        """The agent is going: nothing is started any more, the rest of the ladder works as ever."""
        self.status: PowerStatus | None = None
        self._cap = cap
        self._gpus = gpus
        self._pool = pool
        self._admission = admission
        self._tick_seconds = tick_seconds
        self._beat = beat
        self._on_change = on_change
        self._update_limits = update_limits
        self.draw_joules = 0.0
        """Integral of the site's draw over the turns."""
        self._turned_at: float | None = None
        self._targets = targets
        self._turned_away = turned_away
        self._turned_away_before = 0
        self._site_meter = site_meter
        self._site_draw = SiteDraw(power=governor.model.power)
        self._expected = ExpectedDraw(meter_lag_seconds=meter_lag_seconds)
        self._admit_watts = 0.0
        """Cap of admission as of the last turn."""
        admission.look_again = self._tell_slots
        self._gpu_watts: float | None = None
        self._measured_at = float("-inf")

    async def meter(self) -> None:
        """Read the GPUs' power; runs as long as the agent does."""
        loop = asyncio.get_running_loop()
        while True:
            watts = await self._gpus.power_watts()
            if watts is not None and math.isfinite(watts) and watts >= 0:
                self._gpu_watts, self._measured_at = watts, loop.time()
            await asyncio.sleep(self._tick_seconds)

    async def run(self) -> None:
        """Govern; runs as long as the agent does.

        Raises:
            WatchdogError: the watchdog is gone and cannot be replaced.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        while True:
            self._beat()
            now = loop.time()
            if self._cap.has_reading or now - began_at >= FIRST_READING_SECONDS:
                self._turn(now)
            self._cap.news.clear()
            try:
                async with asyncio.timeout(self._tick_seconds):
                    await self._cap.news.wait()
            except TimeoutError:
                continue

    def draw(self, now: float) -> Draw:
        """The site's draw: by its meter, else by its GPUs, else modelled from what runs."""
        fresh = now - self._measured_at <= METER_MAX_AGE_SECONDS
        return self._site_draw.take(
            metered_watts=None if self._site_meter is None else self._site_meter.watts(now),
            gpu_watts=self._gpu_watts if fresh else None,
            modelled_watts=self._modelled_watts(),
            correction=self.governor.correction,
        )

    def clock_mhz(self, instance: Instance) -> int:
        """The highest that its GPUs may run at: as confirmed, not as ordered."""
        highest = instance.highest_clock_mhz
        return self.governor.model.full_clock_mhz if highest is None else highest

    def _drawing(self) -> list[Instance]:
        return [one for one in self._pool.instances if one.is_drawing]

    def _modelled_watts(self) -> float:
        drawing = self._drawing()
        return self.governor.model.modelled_watts(
            [self._admission.slots.running(one.instance_id) for one in drawing],
            [self.clock_mhz(one) for one in drawing],
            [one.spec.tensor_parallel_degree for one in drawing],
        )

    def _highest_clock_mhz(self) -> int:
        clocks = [self.clock_mhz(one) for one in self._drawing()]
        return max(clocks, default=self.governor.clock_mhz)

    def _excess_ratio(self, now: float) -> float:
        """How far what runs may draw above the model's worst case, because a clock did not go down."""
        if not self._pool.is_clock_doubtful(now):
            return 1.0
        model, ordered, highest = self.governor.model, self.governor.clock_mhz, self._highest_clock_mhz()
        if highest <= ordered:
            return 1.0
        layout = model.layout_of(one.spec.tensor_parallel_degree for one in self._drawing())
        return model.worst_watts(layout, highest) / model.worst_watts(layout, ordered)

    def _turn(self, now: float) -> None:
        draw = self.draw(now)
        draw_watts = draw.watts
        self.draw_joules += draw_watts * (0.0 if self._turned_at is None else now - self._turned_at)
        self._turned_at = now
        cap_watts = self._cap.cap_watts(now)
        forecast, forecast_age_seconds = self._cap.forecast(now)
        turned_away = self._turned_away()
        view = SiteView(
            cap_watts=cap_watts,
            draw_watts=draw_watts,
            instances=self._views(now),
            forecast=forecast,
            forecast_age_seconds=forecast_age_seconds,
            targets=self._targets(now),
            turned_away=turned_away - self._turned_away_before,
            work=self._admission.slots.mean,
            start_seconds=self._pool.start_times.learnt_seconds,
            excess_ratio=self._excess_ratio(now),
            heard=draw.heard,
            added_watts=draw.added_watts,
        )
        self._turned_away_before = turned_away
        decision = self.governor.decide(view, now)
        self._admission.slots.is_short_of_power = decision.is_short_of_power
        self._admission.slots.start_seconds = self._pool.start_times.seconds
        for command in decision.commands:
            self._obey(command, decision, cap_watts, draw_watts)
        if decision.is_over:
            self._hurry()
        slots, had_room = self._admission.slots, self._admission.slots.headroom() > 0
        self._update_limits(self._highest_clock_mhz(), now)
        if self.governor.rule.enabled:
            self._admit_watts = min(cap_watts, decision.admit_watts)
            self._tell_slots()
        before, self.status = (
            self.status,
            PowerStatus(
                cap_watts=cap_watts,
                draw_watts=draw_watts,
                draw_source=draw.source,
                quality=self._cap.quality,
                target_instances=decision.target.awake,
                drain_deadline_at=decision.drain_deadline_at,
                episode_at=self.governor.account.episode_at,
            ),
        )
        has_changed = before is None or before.cap_watts != cap_watts
        if decision.commands or has_changed or (slots.headroom() > 0) != had_room:
            self._on_change()

    def _tell_slots(self) -> None:
        """What may still come in under the cap; also asked between two turns, when it seems to be nothing."""
        if self._turned_at is None or not self.governor.rule.enabled:
            return
        now = asyncio.get_running_loop().time()
        draw = self.draw(now)
        expected_watts = self._expected.watts(
            modelled_watts=self._modelled_watts(), draw_watts=draw.watts, now=now
        )
        if draw.source == "modelled":  # of this moment: nothing that has gone is in it
            expected_watts = draw.watts
        self._admission.slots.set_power(cap_watts=self._admit_watts, expected_watts=expected_watts)

    def _views(self, now: float) -> tuple[InstanceView, ...]:
        return tuple(
            InstanceView(
                instance_id=one.instance_id,
                index=one.index,
                state=one.state,
                running_requests=self._admission.slots.in_flight(one.instance_id),
                is_stopping=one.is_stopping,
                can_start=not self.is_closing and one.can_start(now),
                tensor_parallel_degree=one.spec.tensor_parallel_degree,
                gpu_indices=one.spec.gpu_indices,
            )
            for one in self._pool.instances
        )

    def _hurry(self) -> None:
        """What is being stopped calmly draws too, and is in nobody's hand but the pool's."""
        for one in self._pool.instances:
            if one.is_stopping:
                self._pool.stop(one.instance_id, kill=True)

    def _obey(self, command: Command, decision: Decision, cap_watts: float, draw_watts: float) -> None:
        name = type(command).__name__
        self.commands[name] += 1
        logger.info(
            "governor: %s",
            name,
            extra={
                "instance": None if isinstance(command, SetClock) else command.instance_id,
                "clock_mhz": command.clock_mhz if isinstance(command, SetClock) else None,
                "cap_watts": round(cap_watts),
                "draw_watts": round(draw_watts),
            },
        )
        match command:
            case SetClock():
                self._pool.set_clock(command.clock_mhz, full_clock_mhz=self.governor.model.full_clock_mhz)
            case Drain():
                self._pool.drain(command.instance_id)
            case Admit():
                self._pool.admit(command.instance_id)
            case BreakStreams():
                self.broken_streams += self._admission.break_streams(command.instance_id)
            case StopEngine():
                self._pool.stop(command.instance_id, kill=decision.is_over)
            case StartEngine():
                self._pool.start(command.instance_id)
