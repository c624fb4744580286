"""One run as data: everything that its result depends on, in a form that can be named, stored and compared.

Rule: two cells that are equal give the same bytes at the same state of the code, and a cell says nothing of
how it is run (cores, progress, folders).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from router.policy.policies import DEFAULT_POLICY, POLICIES
from simulator.settings import Fault
from simulator.traces import SizeSet
from simulator.workload import Mode

Pairs = tuple[tuple[str, Any], ...]
"""Keys and values, in order of the keys."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MAX_LOAD = 10.0
_RANGES = {
    "size_percentile": (0.0, 100.0),
    "round_trip_seconds": (0.0, 10.0),
    "report_delay_seconds": (0.0, 3600.0),
    "report_loss_ratio": (0.0, 1.0),
    "turbulence_ratio": (0.0, 1.0),
    "trips_per_day": (0.0, 10_000.0),
    "forecast_error_ratio": (0.0, 10.0),
    "length_error_ratio": (0.0, 10.0),
}
"""Of a cell's numbers, both ends allowed."""
PLANNED_POLICIES = frozenset({"planned"})
"""It is nothing without a plan. `heron` reads one where one is made; by default none is, as live."""


class CellError(ValueError):
    """A cell that cannot be meant; says which part and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Blocks spread evenly over the days: every so often, so long, of which the first part warms up."""

    every_seconds: int
    seconds: int
    warm_up_seconds: int
    offset_seconds: int = 0
    """Of the first block from the days' begin."""

    @classmethod
    def parse(cls, text: str) -> Sample:
        """`6h:15m:5m`, or `6h:15m:5m:2h`, where the first block begins after two hours.

        Raises:
            CellError: not three or four durations, or ones that do not fit together.
        """
        parts = text.split(":")
        if len(parts) not in (3, 4):
            raise CellError(f"sample {text!r}: expected EVERY:LENGTH:WARM_UP[:OFFSET] such as 6h:15m:5m")
        every, length, warm_up, *rest = (round(seconds_of(part)) for part in parts)
        offset = rest[0] if rest else 0
        if not (0 < warm_up < length <= every):
            raise CellError(f"sample {text!r}: the warm-up must be shorter than the block, that than its gap")
        if offset >= every:
            raise CellError(f"sample {text!r}: the offset must be shorter than the gap of two blocks")
        return cls(every_seconds=every, seconds=length, warm_up_seconds=warm_up, offset_seconds=offset)

    def __str__(self) -> str:
        offset = f":{self.offset_seconds}s" if self.offset_seconds else ""
        return f"{self.every_seconds}s:{self.seconds}s:{self.warm_up_seconds}s{offset}"

    def at_seed(self, seed: int) -> Sample:
        """The same blocks at other hours for every seed: 0, 1/3, 2/3, 1/9, 4/9 … of their distance later.

        Van der Corput's sequence to base 3, so that however many seeds there are, their blocks are spread.
        """
        rest, part, ratio = seed - 1, 1.0, 0.0
        while rest > 0:
            rest, digit = divmod(rest, 3)
            part /= 3
            ratio += digit * part
        offset = round(self.offset_seconds + ratio * self.every_seconds) % self.every_seconds
        return replace(self, offset_seconds=offset)


def seconds_of(text: str) -> float:
    """`90s`, `15m`, `6h`, `1d`, `1h30m`.

    Raises:
        CellError: no duration.
    """
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise CellError(f"{text!r} is no duration such as 90s, 15m, 6h or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One policy, one wind, one load, one seed."""

    wind: str
    """File or name of the catalogue; `synthetic-far`, `synthetic-near` need no file."""
    first_day: int
    last_day: int
    size_percentile: float = 40.0
    """A site's cluster draws at its peak what its farm gives at this percentile of the whole record."""
    trace: str = "conv-2024"
    sizes: SizeSet = "2023"
    mode: Mode = "bursty"
    load: float = 0.5
    """Mean offered load ÷ what all sites sustain together at full power within the SLO."""
    sample: Sample | None = None
    """None: the days as one block."""
    policy: str = DEFAULT_POLICY
    parameters: Pairs = ()
    control: str = "governed"
    control_parameters: Pairs = ()
    resume: bool = True
    router_slo: bool | None = None
    """Whether the router is told the SLO of each class (`[router.slo]`), as results are judged by it; None:
    for the policies that sort out by it. The others do better untold: they only refuse more."""
    planner: bool | None = None
    """Whether plans are made; None: for the policies that read them."""
    planner_parameters: Pairs = ()
    server_switch: bool = True
    seed: int = 1
    site_count: int | None = None
    """None: one farm per column of the wind record; more: columns again, days later."""
    sites_per_farm: int = 1
    """So many in a row share a farm, which is as many times as large."""
    round_trip_seconds: float | None = None
    """Of every site; None: 10 ms to 50 ms, spread over the sites."""
    report_delay_seconds: float = 0.02
    report_loss_ratio: float = 0.0
    turbulence_ratio: float = 0.03
    trips_per_day: float = 0.0
    """Sudden falls of each farm's power (`simulator.trips`)."""
    constant_power: bool = False
    """The grid instead of the wind: every site has all that it can use, always."""
    forecast_error_ratio: float = 0.0
    """Standard deviation of a factor that every forecast is off by."""
    length_error_ratio: float = 0.0
    """The same of every estimate of an output's length."""
    faults: tuple[Fault, ...] = ()
    site_overrides: Pairs = ()
    """Of `simulator.settings.SiteSettings`, for every site."""
    each_site: tuple[Pairs, ...] = ()
    """The same of one site each, over all else; empty, or as many as there are sites."""
    router_overrides: Pairs = ()
    """Of `simulator.settings.RouterSettings`."""

    def check(self) -> None:
        """Every number is one that can be meant.

        Raises:
            CellError: one that cannot; with what is allowed.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise CellError(f"{name} = {value:g}: allowed is {least:g} to {most:g}")
        if not 0 < self.load <= MAX_LOAD:
            raise CellError(f"load = {self.load:g}: must be above 0, and at most {MAX_LOAD:g}")
        if not 1 <= self.first_day <= self.last_day:
            raise CellError(f"days {self.first_day}:{self.last_day}: days count from 1, first to last")
        days_seconds = (self.last_day - self.first_day + 1) * _SECONDS["d"]
        sample = self.sample
        if sample is not None and sample.offset_seconds + sample.warm_up_seconds >= days_seconds:
            raise CellError(f"sample {sample}: its first block counts nothing before the days are over")

    def with_(self, **changes: Any) -> Cell:
        """Another one that differs in these."""
        return replace(self, **changes)

    @property
    def has_router_slo(self) -> bool:
        """Whether the router knows the SLO."""
        return POLICIES[self.policy].is_choosy if self.router_slo is None else self.router_slo

    @property
    def has_planner(self) -> bool:
        """Whether plans are made."""
        return self.policy in PLANNED_POLICIES if self.planner is None else self.planner

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        found = asdict(self)
        found["sample"] = None if self.sample is None else str(self.sample)
        return found

    def key(self, code: str, files: str = "") -> str:
        """Names this cell's result for one state of the code and of the files that it reads."""
        text = json.dumps([code, files, self.as_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def pairs(values: dict[str, Any] | None) -> Pairs:
    """A table of parameters as a cell holds it."""
    return tuple(sorted((values or {}).items()))
