"""The simulated planner: the live planner's `PlanMaker` and solvers on the virtual clock.

It does what `router.live.planner` does around the same objects, without a process of its own: one router, one
planner. A solve takes no real time of the run; its plan is published after a stated virtual delay, so that
runs repeat whatever the machine's speed. The lease lapses and comes back with Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.records import Plan, SiteInfo, SiteReport
from fleet.request import RequestFeatures
from router.live.demand_meter import DemandMeter, DemandWindow
from router.live.presence import PRESENCE_SECONDS
from router.policy.outlook import PowerOutlook
from router.policy.planner.agenda import PlanKind
from router.policy.planner.demand import ClassLoad, Key, add_loads
from router.policy.planner.fast import solve_fast
from router.policy.planner.from_records import SiteRecordsView
from router.policy.planner.plan_maker import (
    DEMAND_SECONDS,
    LEASE_TTL_SECONDS,
    BrokenPlanError,
    PlanMaker,
    Task,
)
from router.policy.planner.problem import Planned, PlannerParameters
from router.policy.planner.slow import solve_slow
from router.policy.snapshot import Snapshot
from simulator.events import Events
from simulator.settings import PlannerSettings

SOLVE_SECONDS: Mapping[PlanKind, float] = {"slow": 2.0, "fast": 0.2}
"""From the look at the fleet to the published plan: a HiGHS solve at 5 sites and its way through Redis."""

PastLoads = tuple[tuple[float, Mapping[Key, ClassLoad]], ...]


class SimulatedPlanner:
    """One per fleet."""

    def __init__(
        self,
        settings: PlannerSettings,
        *,
        events: Events,
        snapshot: Callable[[], Snapshot],
        publish: Callable[[Plan], None],
        past: PastLoads,
    ) -> None:
        """`past`: what was asked for before the block, at negative instants."""
        self.solves: dict[str, int] = {}
        """By kind, and whether it came to a plan."""
        self.is_store_up = True
        """Whether Redis answers: without it the lease cannot be renewed."""
        self._events = events
        self._snapshot = snapshot
        self._publish = publish
        values: dict[str, Any] = {"interval_seconds": settings.interval_seconds, **settings.parameters}
        self._maker = PlanMaker(
            interval_seconds=settings.interval_seconds,
            learn_seconds=settings.learn_seconds,
            valid_for_seconds=settings.valid_for_seconds,
            margin_ratio=settings.margin_ratio,
            parameters=PlannerParameters(**values),
        )
        self._meter, self._window = DemandMeter(), DemandWindow()
        self._window.take(self._meter.totals, events.now)
        self.came: Callable[[RequestFeatures], None] = self._meter.came
        """A request was let in."""
        self._observed_at = self._told_at = events.now
        self._leads_until = LEASE_TTL_SECONDS
        self._is_leader = True
        self._solving: set[PlanKind] = set()
        self._reports: dict[str, SiteReport] = {}
        self._infos: dict[str, SiteInfo] = {}
        self._epoch, self._sequence = 1, 0
        for at, loads in past:
            self._maker.take_loads(loads, at)

    def take_info(self, info: SiteInfo) -> None:
        """A SiteInfo."""
        self._infos[info.site_id] = info

    def take_report(self, report: SiteReport) -> None:
        """A report as the router heard it."""
        self._reports[report.site_id] = report

    def tick(self) -> None:
        """Once a second: look, and plan what is due."""
        now = self._events.now
        if now - self._told_at >= PRESENCE_SECONDS:
            self._told_at = now
            self._window.take(self._meter.totals, now)
        self._renew(now)
        if not self._is_leader:
            return
        if self.is_store_up and now - self._observed_at >= DEMAND_SECONDS:
            self._observed_at = now
            self._maker.take_loads(add_loads([self._window.loads()]), now)
        sites = self._sites()
        kind = self._maker.due(sites, now)
        if kind is not None and kind not in self._solving:
            self._begin(kind, sites, now)

    def _renew(self, now: float) -> None:
        """The lease: kept while Redis answers, lost when it is over, and taken anew by the same router."""
        if self.is_store_up:
            self._leads_until = now + LEASE_TTL_SECONDS
            if not self._is_leader:
                self._is_leader = True
                self._epoch += 1
                self._maker.lead()
        elif self._is_leader and now >= self._leads_until:
            self._is_leader = False
            self._solving.clear()

    def _sites(self) -> dict[str, SiteRecordsView]:
        power: Mapping[str, PowerOutlook] = self._snapshot().power
        return {
            site_id: SiteRecordsView(info=info, report=self._reports.get(site_id), outlook=power.get(site_id))
            for site_id, info in self._infos.items()
        }

    def _begin(self, kind: PlanKind, sites: dict[str, SiteRecordsView], now: float) -> None:
        task = self._maker.begin(kind, sites, now).task()
        self._solving.add(kind)
        planned = solve_slow(task.problem) if kind == "slow" else solve_fast(task.problem, task.instances)
        self._events.after(SOLVE_SECONDS[kind], self._end, (task, planned, self._epoch))

    def _end(self, solved: tuple[Task, Planned, int]) -> None:
        """The solver's answer is there."""
        task, planned, epoch = solved
        if epoch != self._epoch or task.kind not in self._solving:
            return  # the lease was lost meanwhile
        self._solving.discard(task.kind)
        how = self._plan(task, planned)
        name = f"{task.kind} {how}"
        self.solves[name] = self.solves.get(name, 0) + 1
        if how == "ok":
            self._maker.solved(task.kind, planned)
        else:
            self._maker.failed(task.kind, self._events.now)

    def _plan(self, task: Task, planned: Planned) -> str:
        """Publish it; how that went."""
        if not planned.is_usable:
            return "failed"
        self._sequence += 1
        try:
            plan = self._maker.plan(
                task,
                planned,
                self._infos,
                router_id="simulated",
                sequence=self._sequence,
                epoch=self._epoch,
                solved_at_unix_seconds=self._events.now,
                solver_seconds=SOLVE_SECONDS[task.kind],
            )
        except BrokenPlanError:
            return "faulty"
        self._publish(plan)
        return "ok" if self.is_store_up else "unpublished"
