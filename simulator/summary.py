"""What a cell's blocks add up to, as plain JSON: counts, distributions, goodput, energy, time above caps.

Rules: only requests that arrived in the counted parts count; a shed or broken one never met its SLO, and in a
distribution stands at infinity. Power-short minutes are summed up apart: their requests by the minute of
arrival, their watts by the second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.capacity import Slo
from fleet.request import RequestClass
from router.policy.planner.problem import CLASSES
from simulator.inputs import class_indexes
from simulator.power_short import MINUTE_SECONDS
from simulator.quantiles import at, sketch
from simulator.record import SiteRecord
from simulator.request import Outcome
from simulator.world import Block

Bools = npt.NDArray[np.bool_]
JOULES_PER_KILOWATT_HOUR = 3.6e6
WHOLE, SHORT = "all", "power_short"
NAMES = {one: one.name.lower() for one in Outcome}


@dataclass(slots=True)
class _Part:
    """Requests of one kind of minutes."""

    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    ttft: list[npt.NDArray[np.float32]] = field(default_factory=list)
    e2e: list[npt.NDArray[np.float32]] = field(default_factory=list)
    offered_by_block: list[int] = field(default_factory=list)
    good_by_block: list[int] = field(default_factory=list)

    def take(self, block: Block, chosen: Bools, good: Bools, in_time: Bools) -> None:
        record = block.record
        outcomes = record.outcome[chosen]
        for outcome in Outcome:
            self.counts[NAMES[outcome]] += int(np.count_nonzero(outcomes == outcome))
        self.offered_by_block.append(int(chosen.sum()))
        self.good_by_block.append(int(np.count_nonzero(good & chosen)))
        self.counts["offered"] += self.offered_by_block[-1]
        self.counts["good"] += self.good_by_block[-1]
        self.counts["ttft_in_time"] += int(np.count_nonzero(in_time & chosen))
        self.counts["resumed"] += int(np.count_nonzero((record.breaks[chosen] > 0) & (outcomes == 1)))
        self.counts["output_tokens"] += int(record.produced_tokens[chosen].sum())
        is_served = outcomes == Outcome.SERVED
        self.ttft.append(np.where(is_served, record.ttft_seconds[chosen], np.float32(np.inf)))
        self.e2e.append(record.e2e_seconds[chosen])

    def as_dict(self) -> dict[str, Any]:
        offered = self.counts["offered"]
        ttft, e2e = sketch(_joined(self.ttft)), sketch(_joined(self.e2e))
        return {
            "seconds": self.seconds,
            **{name: self.counts[name] for name in (*NAMES.values(), "offered", "good", "resumed")},
            "offered_by_block": self.offered_by_block,
            "good_by_block": self.good_by_block,
            "output_tokens": self.counts["output_tokens"],
            "slo_attainment_ratio": self.counts["good"] / offered if offered else None,
            "ttft_in_time_ratio": self.counts["ttft_in_time"] / offered if offered else None,
            "served_ratio": self.counts["served"] / offered if offered else None,
            "offered_requests_per_second": offered / self.seconds if self.seconds else None,
            "goodput_requests_per_second": self.counts["good"] / self.seconds if self.seconds else None,
            "ttft_seconds": _shown(ttft),
            "e2e_seconds": _shown(e2e),
            "ttft_sketch": ttft,
            "e2e_sketch": e2e,
        }


@dataclass(slots=True)
class _Power:
    """Energy of one kind of minutes."""

    joules: float = 0.0
    available_joules: float = 0.0
    used_joules: float = 0.0
    exceeded_seconds: float = 0.0

    def take(self, block: Block, chosen: Bools) -> None:
        """The seconds of a block that are chosen, over all its farms and sites."""
        count = len(chosen)
        farms: dict[str, list[SiteRecord]] = {}
        for site in block.scene.sites:
            farms.setdefault(site.farm_name, []).append(block.sites[site.site_id])
        for rows in farms.values():
            available = rows[0].available_watts[:count][chosen].astype(np.float64)
            draw = np.sum([row.draw_watts[:count][chosen] for row in rows], axis=0)
            self.available_joules += float(available.sum())
            self.used_joules += float(np.minimum(draw, available).sum())
        for row in block.sites.values():
            self.joules += float(np.diff(row.joules[: count + 1])[chosen].sum())
            exceeded = np.diff(row.exceeded_seconds[: count + 1])
            self.exceeded_seconds += float(exceeded[chosen].sum())

    def as_dict(self, output_tokens: int) -> dict[str, float | None]:
        return {
            "cap_exceeded_seconds": round(self.exceeded_seconds, 3),
            "kilowatt_hours": self.joules / JOULES_PER_KILOWATT_HOUR,
            "joules_per_output_token": self.joules / output_tokens if output_tokens else None,
            "wind_available_kilowatt_hours": self.available_joules / JOULES_PER_KILOWATT_HOUR,
            "wind_used_kilowatt_hours": self.used_joules / JOULES_PER_KILOWATT_HOUR,
            "wind_curtailed_kilowatt_hours": (self.available_joules - self.used_joules)
            / JOULES_PER_KILOWATT_HOUR,
        }


class Summary:
    """Takes blocks one at a time, so that only one is in memory."""

    def __init__(self, class_slos: Mapping[RequestClass, Slo]) -> None:
        self._slos = class_slos
        self._parts = {WHOLE: _Part(), SHORT: _Part()}
        self._power = {WHOLE: _Power(), SHORT: _Power()}
        self._totals: defaultdict[str, float] = defaultdict(float)
        self._commands: Counter[str] = Counter()
        self._pushbacks: Counter[str] = Counter()
        self._solves: Counter[str] = Counter()
        self._series: list[dict[str, Any]] = []

    def take(self, block: Block, short: Bools) -> None:
        """One block, and which of its minutes are short of power."""
        scene, record = block.scene, block.record
        counted = (record.arrived_at >= scene.warm_up_seconds) & (record.arrived_at < scene.seconds)
        counted &= record.outcome >= 0
        good, in_time = self._good(block)
        minute = np.minimum((record.arrived_at // MINUTE_SECONDS).astype(np.int64), len(short) - 1)
        is_short = counted & short[minute]
        self._parts[WHOLE].take(block, counted, good, in_time)
        self._parts[SHORT].take(block, is_short, good, in_time)
        self._parts[WHOLE].seconds += scene.seconds - scene.warm_up_seconds
        first = scene.warm_up_seconds // MINUTE_SECONDS
        self._parts[SHORT].seconds += float(np.count_nonzero(short[first:]) * MINUTE_SECONDS)
        second = np.arange(scene.seconds)
        is_counted = second >= scene.warm_up_seconds
        self._power[WHOLE].take(block, is_counted)
        is_short_second = short[np.minimum(second // MINUTE_SECONDS, len(short) - 1)]
        self._power[SHORT].take(block, is_counted & is_short_second)
        self._take_series(block)
        self._commands.update(block.commands)
        self._pushbacks.update(block.pushbacks)
        self._solves.update(block.solves)
        for name in ("events", "decisions", "preemptions"):
            self._totals[name] += getattr(block, name)
        self._totals["simulated_requests"] += int(np.count_nonzero(record.outcome >= 0))

    def _good(self, block: Block) -> tuple[Bools, Bools]:
        """Which served requests met their class's SLO whole, and its TTFT."""
        arrivals, record = block.scene.arrivals, block.record
        ttft = np.full(len(arrivals), np.inf, dtype=np.float32)
        e2e = np.full(len(arrivals), np.inf, dtype=np.float32)
        classes = class_indexes(arrivals.prompt_tokens, arrivals.output_tokens)
        for name, slo in self._slos.items():
            chosen = classes == CLASSES.index(name)
            ttft[chosen], e2e[chosen] = slo.ttft_seconds, slo.e2e_seconds
        is_served = record.outcome == Outcome.SERVED
        in_time = is_served & np.isfinite(record.ttft_seconds) & (record.ttft_seconds <= ttft)
        good = in_time & (record.e2e_seconds <= e2e)
        return good, in_time

    def _take_series(self, block: Block) -> None:
        scene = block.scene
        inside = slice(scene.warm_up_seconds, scene.seconds)
        point: dict[str, Any] = {"seconds": scene.seconds - scene.warm_up_seconds}
        for site_id, row in block.sites.items():
            self._totals["below_idle_seconds"] += block.below_idle_seconds[site_id]
            point[site_id] = [
                round(float(row.available_watts[inside].mean())),
                round(float(row.cap_watts[inside].mean())),
                round(float(row.draw_watts[inside].mean())),
                round(float(row.awake[inside].mean()), 2),
            ]
        self._series.append(point)

    def as_dict(self) -> dict[str, Any]:
        """Everything."""
        totals, whole = self._totals, self._parts[WHOLE]
        tokens = whole.counts["output_tokens"]
        return {
            WHOLE: whole.as_dict(),
            SHORT: self._parts[SHORT].as_dict()
            | self._power[SHORT].as_dict(self._parts[SHORT].counts["output_tokens"]),
            "below_idle_seconds": round(totals["below_idle_seconds"], 3),
            **self._power[WHOLE].as_dict(tokens),
            "commands": dict(sorted(self._commands.items())),
            "pushbacks": dict(sorted(self._pushbacks.items())),
            "plans": dict(sorted(self._solves.items())),
            **{
                name: int(totals[name])
                for name in ("simulated_requests", "events", "decisions", "preemptions")
            },
            "blocks": self._series,
        }


def _joined(arrays: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    return np.concatenate(arrays) if arrays else np.array([], dtype=np.float32)


def _shown(sketched: list[float | None]) -> dict[str, float | None]:
    """The usual quantiles; None where infinite, or where there was nothing."""
    if not sketched:
        return {"p50": None, "p90": None, "p99": None}
    found = {name: at(sketched, level) for name, level in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}
