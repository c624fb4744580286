"""What happens to the fleet and when, from one seed: faults, several at a time, and each site's wind. Pure.

Rule: everything random of a run is drawn here or from a generator that is seeded here, so that a seed is a
run, as far as processes on a real clock let it be. Two faults never hold one thing (a process, a link, a
site's wind) at once; otherwise they may overlap as they like.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

SITES = ("north", "coast", "ridge")
ROUTERS = ("router-a", "router-b")
WORKERS = {"router-a": 2, "router-b": 1}
"""One of each way to run: a parent with workers, and one process."""
SERVICES = (*ROUTERS, "power-feed", *(f"site-agent {site_id}" for site_id in SITES))
ENGINES = 3
"""A site."""
LEAST_GAP_SECONDS = 0.2
"""Between two begins."""
CUT_BYTES = (200, 60_000)
"""After so many bytes of answers a link that cuts closes a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: it begins, lasts, and is over."""

    at_seconds: float
    seconds: float
    kind: str
    target: str
    value: float = 0.0
    """What a kind needs besides: seconds of delay, bytes until the cut, a number to choose by."""

    @property
    def ends_at_seconds(self) -> float:
        return self.at_seconds + self.seconds

    def describe(self) -> str:
        """For people."""
        return f"{self.at_seconds:6.1f} s: {self.kind}, {self.target}, for {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Shares of nameplate that mean something to a site."""

    full: float
    """Everything runs."""
    idle: float
    """A cap just above what stopped engines draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How often a kind comes, where, and for how long."""

    weight: float
    targets: Sequence[str]
    seconds: tuple[float, float]
    group: str
    """For the table."""
    holds: Callable[[str], tuple[str, ...]]
    """What it needs for itself, by its target."""
    value: tuple[float, float] = (0.0, 1.0)


def _itself(target: str) -> tuple[str, ...]:
    return (target,)


def _engines_of(target: str) -> tuple[str, ...]:
    return (f"site-agent {target}",)


def _redis(_target: str) -> tuple[str, ...]:
    return ("redis",)


def _wind(target: str) -> tuple[str, ...]:
    return tuple(f"wind {site_id}" for site_id in (SITES if target == "all" else (target,)))


def _records(target: str) -> tuple[str, ...]:
    return (f"records {target}",)


def _operator(target: str) -> tuple[str, ...]:
    return (f"operator {target}",)


def _any_router(_target: str) -> tuple[str, ...]:
    return ("routers",)


AGENTS = tuple(f"site-agent {site_id}" for site_id in SITES)
LINKS = (
    *(f"router>{site_id}" for site_id in SITES),
    *(f"{site_id}>feed" for site_id in SITES),
    *(f"{service}>redis" for service in SERVICES),
)
KINDS: Mapping[str, Kind] = {
    "wind: to 0": Kind(weight=3, targets=SITES, seconds=(4, 14), group="power", holds=_wind),
    "wind: just above idle": Kind(weight=3, targets=SITES, seconds=(4, 16), group="power", holds=_wind),
    "wind: ramp down and up": Kind(weight=2, targets=SITES, seconds=(8, 16), group="power", holds=_wind),
    "wind: flapping": Kind(weight=2, targets=SITES, seconds=(6, 14), group="power", holds=_wind),
    "wind: all dark": Kind(weight=1.5, targets=("all",), seconds=(4, 12), group="power", holds=_wind),
    "agent: kill -9": Kind(weight=2.5, targets=AGENTS, seconds=(1, 10), group="processes", holds=_itself),
    "agent: SIGSTOP": Kind(weight=2.5, targets=AGENTS, seconds=(0.5, 8), group="processes", holds=_itself),
    "agent: SIGTERM": Kind(weight=1, targets=AGENTS, seconds=(0.5, 4), group="processes", holds=_itself),
    "worker: kill -9": Kind(
        weight=1.5, targets=("router-a",), seconds=(0.5, 0.5), group="processes", holds=_any_router
    ),
    "worker: SIGSTOP": Kind(
        weight=1.5, targets=("router-a",), seconds=(0.5, 6), group="processes", holds=_any_router
    ),
    "router: SIGTERM": Kind(
        weight=1.5, targets=ROUTERS, seconds=(0.5, 3), group="processes", holds=_any_router
    ),
    "feed: kill -9": Kind(
        weight=1.5, targets=("power-feed",), seconds=(0.5, 12), group="processes", holds=_itself
    ),
    "feed: SIGSTOP": Kind(
        weight=1.5, targets=("power-feed",), seconds=(0.5, 12), group="processes", holds=_itself
    ),
    "engines: kill -9": Kind(weight=2, targets=SITES, seconds=(0.5, 0.5), group="engines", holds=_engines_of),
    "engine: crash": Kind(weight=2, targets=SITES, seconds=(0.5, 0.5), group="engines", holds=_engines_of),
    "engine: stall": Kind(weight=1.5, targets=SITES, seconds=(1, 10), group="engines", holds=_engines_of),
    "engine: abort": Kind(weight=1, targets=SITES, seconds=(0.5, 0.5), group="engines", holds=_engines_of),
    "engine: errors": Kind(weight=1, targets=SITES, seconds=(0.5, 0.5), group="engines", holds=_engines_of),
    "redis: kill -9, empty after": Kind(
        weight=2, targets=("redis",), seconds=(0.5, 12), group="redis", holds=_redis
    ),
    "redis: SIGSTOP": Kind(weight=2, targets=("redis",), seconds=(0.5, 10), group="redis", holds=_redis),
    "redis: FLUSHALL": Kind(weight=1.5, targets=("redis",), seconds=(0.5, 0.5), group="redis", holds=_redis),
    "link: slow": Kind(
        weight=2, targets=LINKS, seconds=(2, 12), group="network", holds=_itself, value=(0.05, 1.5)
    ),
    "link: blackhole": Kind(weight=3, targets=LINKS, seconds=(1, 14), group="network", holds=_itself),
    "link: reset": Kind(weight=2, targets=LINKS, seconds=(0.2, 8), group="network", holds=_itself),
    "link: half-open": Kind(weight=2, targets=LINKS, seconds=(0.5, 0.5), group="network", holds=_itself),
    "link: cut after some bytes": Kind(
        weight=2, targets=LINKS, seconds=(2, 10), group="network", holds=_itself, value=CUT_BYTES
    ),
    "operator: cordon": Kind(weight=1.5, targets=SITES, seconds=(2, 12), group="operators", holds=_operator),
    "operator: policy": Kind(
        weight=1.5, targets=ROUTERS, seconds=(2, 12), group="operators", holds=_operator
    ),
    "operator: keys": Kind(weight=1, targets=("keys",), seconds=(6, 8), group="operators", holds=_operator),
    "records: garbage": Kind(weight=1.5, targets=SITES, seconds=(1, 6), group="records", holds=_records),
    "records: old": Kind(weight=1.5, targets=SITES, seconds=(1, 6), group="records", holds=_records),
    "records: a second writer": Kind(
        weight=1.5, targets=SITES, seconds=(1, 6), group="records", holds=_records
    ),
    "records: of another type": Kind(
        weight=1, targets=(*SITES, "sites"), seconds=(1, 5), group="records", holds=_records
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One run."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    wind: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    """By site: (seconds, share of nameplate), each valid until the next."""


def make_schedule(
    *,
    seed: int,
    seconds: float,
    every_seconds: float,
    levels: Levels,
    kinds: Sequence[str] = (),
    longest_seconds: float = math.inf,
) -> Schedule:
    """`every_seconds`: on average between two faults' begins; all are over after `seconds`.

    `kinds`: only these (by what their names begin with); empty: all. `longest_seconds`: of one fault.
    """
    rng = random.Random(seed)
    chosen = {name: kind for name, kind in KINDS.items() if not kinds or name.startswith(tuple(kinds))}
    if not chosen:
        raise ValueError(f"no kind of fault begins with {', '.join(kinds)}; there are {', '.join(KINDS)}")
    faults: list[Fault] = []
    held_until: dict[str, float] = {}
    names, weights = list(chosen), [kind.weight for kind in chosen.values()]
    at = rng.expovariate(1 / every_seconds)
    while at < seconds:
        name = rng.choices(names, weights)[0]
        kind = chosen[name]
        target, lasts = rng.choice(kind.targets), min(longest_seconds, rng.uniform(*kind.seconds))
        value = rng.uniform(*kind.value)
        holds = kind.holds(target)
        if at + lasts <= seconds and all(held_until.get(one, 0.0) <= at for one in holds):
            faults.append(Fault(at_seconds=at, seconds=lasts, kind=name, target=target, value=value))
            held_until.update(dict.fromkeys(holds, at + lasts))
        at += LEAST_GAP_SECONDS + rng.expovariate(1 / every_seconds)
    wind = {site_id: _wind_of(site_id, faults, rng, levels) for site_id in SITES}
    return Schedule(seed=seed, seconds=seconds, faults=tuple(faults), wind=wind)


def _wind_of(
    site_id: str, faults: Sequence[Fault], rng: random.Random, levels: Levels
) -> tuple[tuple[float, float], ...]:
    points: list[tuple[float, float]] = [(0.0, levels.full)]
    for fault in faults:
        if not fault.kind.startswith("wind: ") or fault.target not in (site_id, "all"):
            continue
        begins, lasts = fault.at_seconds, fault.seconds
        if fault.kind == "wind: just above idle":
            points += [(begins, levels.idle * rng.uniform(1.0, 1.3))]
        elif fault.kind == "wind: ramp down and up":
            shape = [1 - 0.1 * step for step in range(1, 11)] + [0.1 * step for step in range(1, 10)]
            step_seconds = lasts / (len(shape) + 1)
            points += [
                (begins + number * step_seconds, part * levels.full / 2) for number, part in enumerate(shape)
            ]
        elif fault.kind == "wind: flapping":
            points += _flaps(begins, lasts, rng, levels)
        else:
            points += [(begins, 0.0)]
        points += [(fault.ends_at_seconds, levels.full * rng.uniform(0.6, 1.0))]
    return tuple((at, ratio) for at, ratio in dict(points).items())


def _flaps(begins: float, lasts: float, rng: random.Random, levels: Levels) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    at = begins
    while at < begins + lasts - 0.1:
        points.append((at, 0.0 if len(points) % 2 == 0 else levels.full * rng.uniform(0.2, 1.0)))
        at += rng.uniform(0.5, 2.5)
    return points
