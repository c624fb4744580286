"""What a plan is made from and what it says: plain data, without a solver (DESIGN §6). Pure.

Rule: an unknown power is neither 0 W nor full power: such a site is left out of the plan and stays reactive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from fleet.request import RequestClass

CLASSES: tuple[RequestClass, ...] = get_args(RequestClass)
"""Figures by class are tuples in this order."""

QuantileName = Literal["p10", "p50", "p90"]
PlanStatus = Literal["optimal", "gap", "infeasible", "failed"]
Layout = tuple[str, int]
"""Profile id, tensor-parallel degree."""


class ProblemError(ValueError):
    """A problem that cannot be meant: which figure of which site is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A predicted quantity; each at least 0."""

    p10: float
    p50: float
    p90: float

    def at(self, name: QuantileName) -> float:
        """One of them."""
        return {"p10": self.p10, "p50": self.p50, "p90": self.p90}[name]

    @property
    def is_usable(self) -> bool:
        """Whether all are numbers that a power or a load can be."""
        return all(math.isfinite(value) and value >= 0 for value in (self.p10, self.p50, self.p90))


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run a model on one instance, with what it can do and what it draws."""

    model: str
    tensor_parallel_degree: int
    gpu_clock_mhz: int | None
    requests_per_second: tuple[float, ...]
    """By class, within the SLO, the whole instance given to that class; 0: it cannot."""
    late_requests_per_second: tuple[float, ...]
    """By class, with no SLO to keep."""
    latency_ratio: tuple[float, ...]
    """By class: seconds of one request alone ÷ its SLO."""
    full_watts: float
    """All GPUs of the instance under the planned load, overhead not included."""
    stopped_watts: float
    """The same GPUs without an engine: they are part of the site's `server_idle_watts`."""
    start_seconds: float = 90.0

    @property
    def layout(self) -> tuple[str, int]:
        """What a clock change leaves as it is: model and tensor-parallel degree."""
        return self.model, self.tensor_parallel_degree


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """So many instances of one configuration, running or wanted."""

    model: str
    tensor_parallel_degree: int
    gpu_clock_mhz: int | None
    instances: int

    @property
    def layout(self) -> tuple[str, int]:
        """Model and tensor-parallel degree."""
        return self.model, self.tensor_parallel_degree


Instances = Mapping[str, Sequence[Target]]
"""Site → what runs there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSite:
    """One site: a server, what it may draw and what it runs now."""

    site_id: str
    farm_id: str
    """Sites of one farm share its power: the allocator follows the plan's shares."""
    gpu_count: int
    server_idle_watts: float
    """On, every engine stopped, overhead included."""
    overhead_ratio: float
    max_site_watts: float
    power: Quantiles | None
    """Watts it may draw over the plan's horizon, margin taken off, firm power included; None: unknown."""
    configurations: tuple[Configuration, ...]
    present: tuple[Target, ...] = ()
    can_switch_off: bool = True
    """Whether its server can be off; else it draws its idle watts whatever is planned."""

    def added_watts(self, configuration: Configuration) -> float:
        """What one instance adds to the site's idle draw."""
        gpu_watts = max(0.0, configuration.full_watts - configuration.stopped_watts)
        return gpu_watts * self.overhead_ratio

    @property
    def is_plannable(self) -> bool:
        """Whether enough is known of it."""
        return self.power is not None and self.power.is_usable and bool(self.configurations)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDemand:
    """How much of one class of one model is coming."""

    model: str
    request_class: RequestClass
    requests_per_second: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerParameters:
    """What the planner weighs, and where it stops. Costs are per request per second unless said."""

    power_quantile: QuantileName = "p50"
    """What to count on. Caps are kept by the sites, whatever comes: a plan for the lowest decile splits GPUs
    for a shortage that mostly does not come (decision 11)."""
    utilisation_limit: float = 0.9
    """Of an instance's fluid capacity: queues need the rest."""
    shortfall_cost: float = 1000.0
    late_cost: float = 100.0
    """Served, but beyond its SLO."""
    reserve_cost: float = 20.0
    """Load between the median and the 90th percentile that no instance awaits."""
    latency_cost: float = 1.0
    """Times `latency_ratio`."""
    crowding_cost: float = 1.0
    """Times the part of `latency_cost` that waiting adds, which grows with the utilisation of instances."""
    spare_cost: float = 0.01
    """A GPU of a site with power that no instance uses: bursts come, and its wind would be curtailed."""
    energy_cost: float = 0.0
    """Of a request on the configuration that needs the fewest joules; 0: what is not drawn is curtailed."""
    churn_ratio: float = 3.0
    """A start in another layout costs what its GPUs do not serve meanwhile, spread over `interval_seconds`,
    as if it were shortfall, times this."""
    drain_seconds: float = 60.0
    """Before such a start: what ran on its GPUs must end."""
    interval_seconds: float = 900.0
    max_starts_per_site: int = 4
    reconfigured_gpu_ratio: float = 0.5
    """Of the GPUs at sites that serve now, at most so many get another layout in one plan."""
    minimum_instances: int = 1
    """Of each model, where power allows: the first request must not wait for a start."""
    gap_ratio: float = 0.01
    max_nodes: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningProblem:
    """Everything that a plan depends on."""

    sites: tuple[PlanningSite, ...]
    demand: tuple[ClassDemand, ...]
    parameters: PlannerParameters = PlannerParameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, as a solver found it."""

    status: PlanStatus
    explanation: str = ""
    """In words, where the status is not `optimal`."""
    gap_ratio: float | None = None
    nodes: int = 0
    objective: float = 0.0
    targets: Mapping[str, tuple[Target, ...]] = field(default_factory=dict)
    """Site → what is counted on; empty where nothing is. What sites are told is less: `orders`."""
    loads: Mapping[tuple[str, RequestClass], Mapping[str, float]] = field(default_factory=dict)
    """(model, class) → site → requests per second."""
    demand: Mapping[tuple[str, RequestClass], float] = field(default_factory=dict)
    """What was planned for, requests per second: the median, and of the reserve what is served."""
    shortfall: Mapping[tuple[str, RequestClass], float] = field(default_factory=dict)
    """What of it no site serves."""
    weights: Mapping[str, Mapping[RequestClass, Mapping[str, float]]] = field(default_factory=dict)
    """Model → class → site → fraction; sums to 1, less the shortfall."""
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Farm → site → fraction of the farm's power."""
    watts: Mapping[str, float] = field(default_factory=dict)
    """Site → planned draw."""
    unplanned: tuple[str, ...] = ()
    """Sites that were left out: power unknown, or no configuration that a profile describes."""

    @property
    def is_usable(self) -> bool:
        """Whether it may be published."""
        return self.status in ("optimal", "gap")


NOTHING: Mapping[str, float] = MappingProxyType({})


def check_problem(problem: PlanningProblem) -> None:
    """Refuse what cannot be meant. What is merely unknown is no fault: it is left out of the plan.

    Raises:
        ProblemError: which figure of what.
    """
    seen: set[str] = set()
    for site in problem.sites:
        if site.site_id in seen:
            raise ProblemError(f"site {site.site_id} is listed twice")
        seen.add(site.site_id)
        for name in ("server_idle_watts", "overhead_ratio", "max_site_watts"):
            value = getattr(site, name)
            if not math.isfinite(value) or value < 0:
                raise ProblemError(f"site {site.site_id}: {name} is {value}")
        if site.gpu_count < 0:
            raise ProblemError(f"site {site.site_id}: gpu_count is {site.gpu_count}")
        for configuration in site.configurations:
            _check_configuration(site.site_id, configuration)


def _check_configuration(site_id: str, configuration: Configuration) -> None:
    where = f"site {site_id}: {configuration.model} at {configuration.tensor_parallel_degree} GPUs"
    figures: Sequence[float] = (
        *configuration.requests_per_second,
        *configuration.late_requests_per_second,
        *configuration.latency_ratio,
        configuration.full_watts,
        configuration.stopped_watts,
        configuration.start_seconds,
    )
    if any(not math.isfinite(value) or value < 0 for value in figures):
        raise ProblemError(f"{where}: a figure is negative or no number")
    if configuration.tensor_parallel_degree < 1:
        raise ProblemError(f"{where}: an instance needs a GPU")
    if len(figures) != 3 * len(CLASSES) + 3:
        raise ProblemError(f"{where}: rates must be given for {len(CLASSES)} classes")
