"""What a leader does between clock and solver: watch load and power, say what is due, put the problem,
and make the plan of what was solved. Pure; the live planner and the simulated one are shells around it.

Rule: nothing is planned before the load is known, and no plan leaves here that breaks an invariant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.records import Plan, SiteInfo
from router.policy.planner.agenda import Agenda, PlanKind
from router.policy.planner.check import plan_faults
from router.policy.planner.demand import ClassLoad, DemandForecast, Key
from router.policy.planner.from_records import SiteRecordsView, power_of, present_of, problem_of
from router.policy.planner.orders import orders_of
from router.policy.planner.problem import (
    ClassDemand,
    Instances,
    Planned,
    PlannerParameters,
    PlanningProblem,
    Target,
)
from router.policy.planner.wire import to_plan

DEMAND_SECONDS = 15.0
"""Between two looks at the load."""
FAST_HORIZON_SECONDS = 60.0
"""A fast plan looks this far ahead: the next one comes as power moves."""
RENEW_SECONDS = 3.0
"""Between two renewals of the lease that says who leads."""
LEASE_TTL_SECONDS = 10.0
"""Not renewed for so long, it is another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem on its way to the solver."""

    kind: PlanKind
    problem: PlanningProblem
    instances: Instances
    """For a fast plan: what runs where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be planned, as it was known at one instant; nothing in it changes afterwards.

    What a configuration does with every class takes milliseconds to work out the first time: that need not be
    done where it is asked.
    """

    kind: PlanKind
    sites: Mapping[str, SiteRecordsView]
    demand: tuple[ClassDemand, ...]
    means: Mapping[Key, tuple[float, float]]
    now: float
    horizon_seconds: float
    margin_ratio: float
    parameters: PlannerParameters
    instances: Instances

    def task(self) -> Task:
        """The problem."""
        problem = problem_of(
            self.sites,
            self.demand,
            self.means,
            now=self.now,
            horizon_seconds=self.horizon_seconds,
            margin_ratio=self.margin_ratio,
            parameters=self.parameters,
        )
        return Task(kind=self.kind, problem=problem, instances=self.instances)


class BrokenPlanError(Exception):
    """The plan breaks an invariant; the text says which."""


class PlanMaker:
    """Mutable, one per planner. Instants are monotonic."""

    def __init__(
        self,
        *,
        interval_seconds: float,
        learn_seconds: float,
        valid_for_seconds: float,
        margin_ratio: float,
        parameters: PlannerParameters,
    ) -> None:
        """As `[router.planner]` has them."""
        self.targets: Mapping[str, tuple[Target, ...]] = {}
        """What the last slow plan counts on; empty for a leader that has made none."""
        self._interval_seconds = interval_seconds
        self._learn_seconds = learn_seconds
        self._valid_for_seconds = valid_for_seconds
        self._margin_ratio = margin_ratio
        self._parameters = parameters
        self._forecast = DemandForecast(horizon_seconds=interval_seconds)
        self._agenda = Agenda(interval_seconds=interval_seconds)

    def lead(self) -> None:
        """This planner leads from now on: what was due before is another's."""
        self._agenda = Agenda(interval_seconds=self._interval_seconds)

    def take_loads(self, loads: Mapping[Key, ClassLoad], now: float) -> None:
        """What every router was asked for of late, added up."""
        self._forecast.observe(loads, now)
        self._agenda.look_at_load(sum(load.requests_per_second for load in loads.values()), now)

    def due(self, sites: Mapping[str, SiteRecordsView], now: float) -> PlanKind | None:
        """What to plan now, with the fleet as it is."""
        watts: dict[str, float] = {}
        plannable: dict[str, float] = {}
        for site_id, view in sites.items():
            if view.info is None:
                continue
            power = power_of(view.outlook, view.info, now, 0.0, self._margin_ratio)
            if power is None:
                continue
            watts[site_id] = power.p50
            if view.info.configurations:
                plannable[site_id] = view.info.max_site_watts
        self._agenda.look(watts, plannable, now)
        is_ready = bool(plannable) and self._forecast.known_seconds() >= self._learn_seconds
        return self._agenda.due(now) if is_ready else None

    def begin(self, kind: PlanKind, sites: Mapping[str, SiteRecordsView], now: float) -> Question:
        """The question as the fleet and its load are known now."""
        self._agenda.begun(kind, now)
        return Question(
            kind=kind,
            sites=sites,
            demand=self._forecast.demand(now),
            means=self._forecast.works(),
            now=now,
            horizon_seconds=self._interval_seconds if kind == "slow" else FAST_HORIZON_SECONDS,
            margin_ratio=self._margin_ratio,
            parameters=self._parameters,
            instances={} if kind == "slow" else self._running(sites),
        )

    def _running(self, sites: Mapping[str, SiteRecordsView]) -> Instances:
        """What runs, as sites report it; of a site that does not say, what the last slow plan counts on."""
        reported = {site_id: present_of(view.report) for site_id, view in sites.items()}
        return {site_id: targets or self.targets.get(site_id, ()) for site_id, targets in reported.items()}

    def plan(
        self,
        task: Task,
        planned: Planned,
        infos: Mapping[str, SiteInfo],
        *,
        router_id: str,
        sequence: int,
        epoch: int,
        solved_at_unix_seconds: float,
        solver_seconds: float,
    ) -> Plan:
        """The plan of a usable answer, fit to be published.

        Raises:
            BrokenPlanError: it breaks an invariant.
        """
        if task.kind == "slow":
            self.targets = planned.targets
        plan = to_plan(
            planned,
            orders=orders_of(self.targets, task.problem.sites),
            router_id=router_id,
            sequence=sequence,
            epoch=epoch,
            solved_at_unix_seconds=solved_at_unix_seconds,
            valid_for_seconds=self._valid_for_seconds,
            solver_seconds=solver_seconds,
        )
        faults = plan_faults(plan, infos)
        if faults:
            raise BrokenPlanError(f"it breaks an invariant: {faults[0]}")
        return plan

    def solved(self, kind: PlanKind, planned: Planned) -> None:
        """Its plan is published."""
        self._agenda.solved(kind)
        self._agenda.planned_for(sum(planned.demand.values()))

    def failed(self, kind: PlanKind, now: float) -> None:
        """It came to nothing; the last plan stays in use until it is over."""
        self._agenda.failed(kind, now)
