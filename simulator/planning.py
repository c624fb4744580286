"""The simulated planner: the leader's agenda, forecast, problem, solvers and checks, on the virtual clock.

It does what `router.live.planner` does around the same pure code, without lease and process: one router, one
planner. A solve takes no real time of the run; its plan is published after a stated virtual delay, so that
runs repeat whatever the machine's speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.records import Plan, SiteInfo, SiteReport
from fleet.request import RequestFeatures
from router.policy.outlook import PowerOutlook
from router.policy.planner.agenda import Agenda, PlanKind
from router.policy.planner.check import plan_faults
from router.policy.planner.demand import ClassLoad, DemandForecast, Key
from router.policy.planner.fast import solve_fast
from router.policy.planner.from_records import SiteRecordsView, power_of, present_of, problem_of
from router.policy.planner.orders import orders_of
from router.policy.planner.problem import PlannerParameters, Target
from router.policy.planner.slow import solve_slow
from router.policy.planner.wire import to_plan
from router.policy.snapshot import Snapshot
from simulator.events import Events

DEMAND_SECONDS = 15.0
FAST_HORIZON_SECONDS = 60.0
SLOW_DELAY_SECONDS, FAST_DELAY_SECONDS = 2.0, 0.2
"""From the look at the fleet to the published plan: a HiGHS solve at 5 sites and its way through Redis."""
VALID_INTERVALS = 2.0
MARGIN_RATIO = 0.05
RATE_WINDOW_SECONDS = 60.0

PastLoads = tuple[tuple[float, Mapping[Key, ClassLoad]], ...]


class SimulatedPlanner:
    """One per fleet."""

    def __init__(
        self,
        *,
        events: Events,
        snapshot: Callable[[], Snapshot],
        publish: Callable[[Plan], None],
        interval_seconds: float,
        past: PastLoads,
        parameters: Mapping[str, Any],
    ) -> None:
        """`past`: what was asked for before the block, at negative instants."""
        self._parameters = PlannerParameters(**{"interval_seconds": interval_seconds, **parameters})
        self.solves: dict[str, int] = {}
        """By kind, and whether it came to a plan."""
        self._events = events
        self._snapshot = snapshot
        self._publish = publish
        self._interval_seconds = interval_seconds
        self._agenda = Agenda(interval_seconds=interval_seconds)
        self._forecast = DemandForecast(horizon_seconds=interval_seconds)
        self._counts: dict[Key, list[float]] = {}
        self._observed_at = 0.0
        self._recent: list[tuple[float, dict[Key, list[float]]]] = []
        self._reports: dict[str, SiteReport] = {}
        self._infos: dict[str, SiteInfo] = {}
        self._plan: Plan | None = None
        self._targets: Mapping[str, tuple[Target, ...]] = {}
        """What the last slow plan counts on."""
        self._epoch = 0
        for at, loads in past:
            self._forecast.observe(loads, at)

    def take_info(self, info: SiteInfo) -> None:
        """A SiteInfo."""
        self._infos[info.site_id] = info

    def take_report(self, report: SiteReport) -> None:
        """A report as the router heard it."""
        self._reports[report.site_id] = report

    def came(self, features: RequestFeatures) -> None:
        """A request was let in."""
        key = (features.model, features.request_class)
        entry = self._counts.get(key)
        if entry is None:
            entry = self._counts[key] = [0.0, 0.0, 0.0]
        entry[0] += 1
        entry[1] += features.prompt_tokens
        entry[2] += features.expected_output_tokens

    def tick(self) -> None:
        """Once a second: look, and plan what is due."""
        now = self._events.now
        if now - self._observed_at >= DEMAND_SECONDS:
            self._observe(now)
        sites = self._sites()
        watts = {}
        for site_id, view in sites.items():
            assert view.info is not None
            power = power_of(view.outlook, view.info, now, 0.0, MARGIN_RATIO)
            if power is not None:
                watts[site_id] = power.p50
        most = {site_id: self._infos[site_id].max_site_watts for site_id in watts}
        self._agenda.look(watts, most, now)
        kind = self._agenda.due(now) if most else None
        if kind is not None:
            self._solve(kind, sites, now)

    def _observe(self, now: float) -> None:
        """The rates of the last minute, as a router tells them."""
        self._recent.append((now, {key: list(entry) for key, entry in self._counts.items()}))
        while len(self._recent) > 2 and self._recent[1][0] <= now - RATE_WINDOW_SECONDS:
            self._recent.pop(0)
        since, before = self._recent[0] if len(self._recent) > 1 else (0.0, {})
        loads = {}
        for key, entry in self._counts.items():
            count, prompts, outputs = (
                after - earlier for after, earlier in zip(entry, before.get(key, [0.0] * 3), strict=True)
            )
            if count > 0:
                loads[key] = ClassLoad(
                    requests_per_second=count / (now - since),
                    prompt_tokens=prompts / count,
                    output_tokens=outputs / count,
                )
        self._observed_at = now
        self._forecast.observe(loads, now)

    def _sites(self) -> dict[str, SiteRecordsView]:
        power: Mapping[str, PowerOutlook] = self._snapshot().power
        return {
            site_id: SiteRecordsView(info=info, report=self._reports.get(site_id), outlook=power.get(site_id))
            for site_id, info in self._infos.items()
        }

    def _solve(self, kind: PlanKind, sites: dict[str, SiteRecordsView], now: float) -> None:
        self._agenda.begun(kind, now)
        problem = problem_of(
            sites,
            self._forecast.demand(now),
            self._forecast.works(),
            now=now,
            horizon_seconds=self._interval_seconds if kind == "slow" else FAST_HORIZON_SECONDS,
            margin_ratio=MARGIN_RATIO,
            parameters=self._parameters,
        )
        if kind == "slow":
            planned = solve_slow(problem)
        else:
            running = {
                site_id: present_of(view.report) or self._targets.get(site_id, ())
                for site_id, view in sites.items()
            }
            planned = solve_fast(problem, running)
        if not planned.is_usable:
            self._note(kind, "failed")
            self._agenda.failed(kind, now)
            return
        if kind == "slow":
            self._targets = planned.targets
        self._epoch += 1
        delay = SLOW_DELAY_SECONDS if kind == "slow" else FAST_DELAY_SECONDS
        plan = to_plan(
            planned,
            orders=orders_of(self._targets, problem.sites),
            router_id="simulated",
            sequence=self._epoch,
            epoch=self._epoch,
            solved_at_unix_seconds=now,
            valid_for_seconds=VALID_INTERVALS * self._interval_seconds,
            solver_seconds=delay,
        )
        if plan_faults(plan, self._infos):
            self._note(kind, "faulty")
            self._agenda.failed(kind, now)
            return
        self._note(kind, "ok")
        self._agenda.solved(kind)
        self._events.after(delay, self._send, plan)

    def _send(self, plan: Plan) -> None:
        if self._plan is None or plan.epoch > self._plan.epoch:
            self._plan = plan
            self._publish(plan)

    def _note(self, kind: str, how: str) -> None:
        name = f"{kind} {how}"
        self.solves[name] = self.solves.get(name, 0) + 1
