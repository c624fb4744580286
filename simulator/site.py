"""One simulated site: the live governor, cap and admission over simulated engines and GPUs.

What decides is live's own code: `CapTracker`, the governor (or another site control), `Slots`, and
`site_agent.report`. Here is the shell around it, as `site_agent.power_loop` and `ingress` are live: readings
in, commands out to the instances, reports to the router.

The governor decides at each reading and at each tick while something moves (commands of late, a drain, an
episode, an engine that starts); with nothing moving the next reading is soon enough.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Many

from fleet.instance import InstanceState
from fleet.power import CapRule, CapTracker, RideThrough, RideThroughAccount
from fleet.records import Plan, PowerReading, SiteReport
from simulator import site_records
from simulator.events import Events
from simulator.instance import SimulatedInstance
from simulator.plant import Plant
from simulator.power_room import PowerRoom
from simulator.request import SimRequest
from simulator.sequence import Sequence
from simulator.settings import GOVERNOR_TICK_SECONDS, SiteSettings
from site_agent.controls import make_control
from site_agent.expected_draw import choose_again
from site_agent.limits import Limits, Slo
from site_agent.plan_judge import PlanJudge
from site_agent.power_status import PowerStatus
from site_agent.site_limits import SiteLimits
from site_agent.site_model import FULL_POWER_GUARD_RATIO, SiteModel, slo_of
from site_agent.situation import (
    Admit,
    BreakStreams,
    CapForecast,
    Command,
    Drain,
    SetClock,
    SiteView,
    StartEngine,
    StopEngine,
)
from site_agent.slots import Ask, Pushback, Slots, Ticket

SETTLE_SECONDS = 3.0
"""After a command the governor ticks at its own pace for so long."""


class Attempt:
    """The site's side of one request: its ticket of admission and its sequence in an engine."""

    __slots__ = ("instance", "request", "sequence", "ticket")

    def __init__(
        self, request: SimRequest, instance: SimulatedInstance, sequence: Sequence, ticket: Ticket
    ) -> None:
        self.request = request
        self.instance = instance
        self.sequence = sequence
        self.ticket = ticket


class SimulatedSite:
    """One site agent with its hardware."""

    def __init__(
        self,
        settings: SiteSettings,
        *,
        events: Events,
        seed: str,
        send_report: Callable[[SiteReport], None],
        on_first_token: Callable[[SimRequest, float], None],
        on_finish: Callable[[SimRequest, float], None],
        on_break: Callable[[SimRequest, int], None],
        stored_plan: Callable[[str], Plan | None] = lambda _site_id: None,
    ) -> None:
        """The callbacks are the router's ears; whoever gives them adds the way of the answer.

        `on_break` says how many tokens the site had made of an answer that it broke off; `stored_plan` is
        what an agent that starts finds in Redis.
        """
        self._stored_plan = stored_plan
        self.settings = settings
        self.site_id = settings.site_id
        self.one_way_seconds = settings.round_trip_seconds / 2
        self.is_down = False
        """The agent is dead: nobody answers."""
        self._down_for: set[str] = set()
        """Why: a fault, or a server that is off or boots."""
        self.commands: Counter[str] = Counter()
        self.pushbacks: Counter[str] = Counter()
        self._events = events
        self._send_report = send_report
        self._on_first_token = on_first_token
        self._on_finish = on_finish
        self._on_break = on_break
        profile = settings.profile
        self.model = SiteModel(
            profile=profile,
            power=settings.power,
            instances=settings.instances,
            max_concurrency=settings.max_concurrency,
            clocks_mhz=profile.clocks_mhz,
            other_profiles=settings.other_profiles,
            slo=slo_of(ttft_seconds=settings.slo_ttft_seconds, e2e_seconds=settings.slo_e2e_seconds),
        )
        self.max_site_watts = self.model.full_watts * (1 + FULL_POWER_GUARD_RATIO)
        self.plant = Plant(
            settings,
            self.model,
            events=events,
            rng=random.Random(f"{seed}/{settings.site_id}/meter"),
            on_first_token=self._token_made,
            on_finish=self._answer_made,
            on_change=self._changed,
        )
        self.instances = self.plant.instances
        self._by_id = {one.state.instance_id: one for one in self.instances}
        self._sequence = 0
        self._change_pending = False
        self._tick_pending = 0
        self._judged_before = (0.0, 0.0)
        self._reset()

    def _reset(self) -> None:
        """A fresh agent, as after a start."""
        settings = self.settings
        self.ride_through = RideThrough.for_site(
            max_site_watts=self.max_site_watts, seconds=settings.ride_through_seconds
        )
        self.governor = make_control(settings.control, self.model, settings.rule, self.ride_through)
        self.cap = CapTracker(
            rule=CapRule(max_site_watts=self.max_site_watts, margin_ratio=settings.margin_ratio)
        )
        self.slots: Slots = Slots(
            seats=tuple(one.state for one in self.instances),
            limits=Limits(max_concurrency=settings.max_concurrency),
            resume_reserve_ratio=settings.resume_reserve_ratio,
            start_seconds=settings.start_seconds,
            overhead_ratio=settings.overhead_ratio,
        )
        self._room = PowerRoom(self.plant, self.model, self.slots, self._events)
        self._limits = SiteLimits(
            slots=self.slots,
            profile=settings.profile,
            is_profile_assumed=False,
            slo=Slo(ttft_seconds=settings.slo_ttft_seconds, e2e_seconds=settings.slo_e2e_seconds),
            windows={one.state.instance_id: one.window for one in self.instances},
            others={
                one.state.instance_id: (one.engine.profile, one.engine.max_concurrency)
                for one in self.instances
                if one.degree != self.model.degree
            },
        )
        self.status: PowerStatus | None = None
        self._judge = RideThroughAccount(limits=self.ride_through, idle_watts=self.model.server_idle_watts)
        self._fast_until = 0.0
        self._turned_away = 0
        self._forecast: tuple[CapForecast, ...] = ()
        self._forecast_read: object = ()
        self._forecast_at = 0.0
        self.plans = PlanJudge(site_id=self.site_id, model=settings.profile.model)

    @property
    def exceeded_seconds(self) -> float:
        """Time above the cap beyond the ride-through, by the true draw (the governor knows it with noise)."""
        return self._judged_before[0] + self._judge.exceeded_seconds

    @property
    def below_idle_seconds(self) -> float:
        """The part of it under a cap below the server's idle draw."""
        return self._judged_before[1] + self._judge.below_idle_seconds

    # The feed's side

    def take_reading(self, reading: PowerReading) -> None:
        """A reading came by the direct stream."""
        if self.is_down:
            return
        now = self._events.now
        cap = self.cap.rule.cap_watts(reading.granted_power_watts)
        is_calm = self.status is not None and not self.governor.account.is_in_episode
        if is_calm and cap < self.plant.draw_watts():
            self._turn()  # as the agent did a tick ago: an episode that begins now began no second ago
        self.cap.observe(
            granted_watts=reading.granted_power_watts,
            period_seconds=reading.period_seconds,
            quality=reading.quality,
            observed_at_unix_seconds=reading.observed_at_unix_seconds,
            now=now,
        )
        self._forecast_at = now
        if reading.forecast is not self._forecast_read:
            watts = self.cap.rule.cap_watts
            self._forecast_read = reading.forecast
            self._forecast = tuple(
                CapForecast(
                    horizon_seconds=point.horizon_seconds,
                    p10_watts=watts(point.p10_watts),
                    p50_watts=watts(point.p50_watts),
                    p90_watts=watts(point.p90_watts),
                )
                for point in reading.forecast
            )
        self._turn()

    def take_plan(self, plan: Plan, *, is_left_over: bool = False) -> None:
        """A plan was published, or lay there."""
        now = self._events.now
        if not self.is_down:
            self.plans.use(plan, now=now, unix_now=now, is_left_over=is_left_over)

    # The power loop

    def _turn(self) -> None:
        """One decision of the governor."""
        now, slots = self._events.now, self.slots
        draw, cap = self._room.measure(), self.cap.cap_watts(now)
        self._judge.observe(draw_watts=self.plant.draw_watts(), cap_watts=cap, now=now)
        views = tuple([one.view(slots.in_flight(one.instance_id), now) for one in self.instances])
        view = SiteView(
            cap_watts=cap,
            draw_watts=draw,
            instances=views,
            forecast=self._forecast,
            forecast_age_seconds=now - self._forecast_at,
            targets=self.plans.targets(now),
            turned_away=self._turned_away,
            work=self.slots.mean,
        )
        self._turned_away = 0
        decision = self.governor.decide(view, now)
        slots.is_short_of_power = decision.is_short_of_power
        for command in decision.commands:
            self._obey(command)
        had_room = slots.headroom() > 0
        self._limits.update(self._room.highest_clock_mhz(self.governor.clock_mhz), now)
        if self.governor.rule.enabled:
            self._room.set_cap(min(cap, decision.admit_watts))
        before = self.status
        self.status = PowerStatus(
            cap_watts=cap,
            draw_watts=draw,
            draw_source="gpu",
            quality="good",
            target_instances=decision.target.awake,
            drain_deadline_at=decision.drain_deadline_at,
            episode_at=self.governor.account.episode_at,
        )
        if decision.commands:
            self._fast_until = now + SETTLE_SECONDS
        if decision.commands or before is None or (slots.headroom() > 0) != had_room:
            self._changed()
        is_moving = decision.is_over or self.governor.account.is_in_episode or now < self._fast_until
        if is_moving or decision.drain_deadline_at is not None:
            self._tick_pending += 1
            self._events.after(GOVERNOR_TICK_SECONDS, self._tick, self._tick_pending)

    def _tick(self, pending: int) -> None:
        if pending == self._tick_pending and not self.is_down:
            self._turn()

    def _obey(self, command: Command) -> None:
        self.commands[type(command).__name__] += 1
        if isinstance(command, SetClock):
            for one in self.instances:
                one.set_clock(command.clock_mhz)
            return
        one = self._by_id[command.instance_id]
        match command:
            case Drain():
                one.state.move(InstanceState.DRAINING, self._events.now)
            case Admit():
                one.state.move(InstanceState.READY, self._events.now)
            case BreakStreams():
                self._break(one.break_off())
            case StopEngine():
                self._break(one.stop())
            case StartEngine():
                one.start()
        self._changed()

    # Admission

    def arrive(self, request: SimRequest) -> Pushback | None:
        """A request is at the door; None: it is in."""
        features = request.features
        prompt_tokens = request.prompt_tokens + request.produced_tokens
        ask = Ask(
            is_resume=request.is_resume or request.is_cut,
            prompt_tokens=prompt_tokens,
            output_tokens=features.expected_output_tokens,
            shows_first_token=True,
        )
        chosen = choose_again(self.slots, ask, look_again=self._room.tell_slots)
        if isinstance(chosen, Pushback):
            self.pushbacks[chosen.reason] += 1
            self._turned_away += chosen.reason == "capacity"
            return chosen
        instance = self._by_id[chosen.instance_id]
        sequence = Sequence(
            prompt_tokens=prompt_tokens, max_tokens=request.output_tokens - request.produced_tokens
        )
        ticket = self.slots.enter(chosen.instance_id, ask)
        sequence.owner = Attempt(request, instance, sequence, ticket)
        instance.submit(sequence)
        return None

    def _token_made(self, sequence: Sequence, now: float) -> None:
        attempt: Attempt = sequence.owner
        self.slots.begin_decode(attempt.ticket)
        self._on_first_token(attempt.request, now)

    def _answer_made(self, sequence: Sequence, now: float) -> None:
        attempt: Attempt = sequence.owner
        self._room.note_leaving()
        self.slots.leave(attempt.ticket)
        self._on_finish(attempt.request, now)

    def _break(self, over: Many[Sequence]) -> None:
        """Their connections are closed without a proper end."""
        if over:
            self._room.note_leaving()
        for sequence in over:
            attempt: Attempt = sequence.owner
            self.slots.leave(attempt.ticket)
            self._on_break(attempt.request, sequence.output_tokens)

    # Reports

    def _changed(self) -> None:
        """Report at once, but once for all that changes in one instant."""
        if not self._change_pending:
            self._change_pending = True
            self._events.after(0.0, self._report_change)

    def _report_change(self, _: None) -> None:
        self._change_pending = False
        if self.status is not None:
            self.report()

    def report(self) -> None:
        """Make and send a report of this moment."""
        if self.is_down:
            return
        self._sequence += 1
        self._send_report(site_records.site_report(self, self._sequence, self._events.now))

    def scrape(self) -> None:
        """Read the engines' metrics, as the agent does once a second."""
        now = self._events.now
        for one in self.instances:
            if one.state.state is not InstanceState.STOPPED:
                one.metrics(now)

    def judge_idle(self, granted_watts: float) -> None:
        """Count time above the cap while no agent does: the server is off, or boots."""
        watts = self.cap.rule.cap_watts(granted_watts)
        self._judge.observe(draw_watts=self.plant.draw_watts(), cap_watts=watts, now=self._events.now)

    # Faults

    def crash(self, why: str) -> None:
        """Agent and engines die, and stay down until nothing keeps them so."""
        self._down_for.add(why)
        if not self.is_down:
            self.is_down = True
            for one in self.instances:
                self._break(one.kill())

    def recover(self, why: str) -> None:
        """A new agent starts, unless something else keeps it down."""
        self._down_for.discard(why)
        if self.is_down and not self._down_for:
            self.is_down = False
            self._judged_before = (self.exceeded_seconds, self.below_idle_seconds)
            self._reset()
            for one in self.instances:  # the agent that starts unlocks what an earlier one locked
                one.set_clock(self.governor.clock_mhz)
            plan = self._stored_plan(self.site_id)
            if plan is not None:
                self.take_plan(plan, is_left_over=True)
