"""What clients ask for, by model and class: counted as it comes, told as rates of the last minute.

The planner adds up what every router tells (`RouterPresence.demand`). Requests for models that no site has
are not counted, so clients cannot make up names; what was over its quota is no demand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from fleet.records import ClassRate
from fleet.request import RequestClass, RequestFeatures
from router.policy.planner.demand import ClassLoad

Key = tuple[str, RequestClass]
Totals = dict[Key, list[float]]
"""Requests, prompt tokens, expected output tokens since the start."""
WINDOW_SECONDS = 60.0
MAX_KEYS = 1024
"""Models × classes; of those beyond it nothing is told."""


class DemandMeter:
    """One per process that forwards."""

    __slots__ = ("totals",)

    def __init__(self) -> None:
        self.totals: Totals = {}

    def came(self, features: RequestFeatures) -> None:
        """A request for a known model was let in."""
        key = (features.model, features.request_class)
        entry = self.totals.get(key)
        if entry is None:
            if len(self.totals) >= MAX_KEYS:
                return
            entry = self.totals[key] = [0.0, 0.0, 0.0]
        entry[0] += 1
        entry[1] += features.prompt_tokens
        entry[2] += features.expected_output_tokens


def to_json(totals: Mapping[Key, list[float]]) -> list[list[object]]:
    """For a worker's word to its parent."""
    return [[model, name, *entry] for (model, name), entry in totals.items()]


def add_json(totals: Totals, rows: list[list[object]]) -> None:
    """Add a worker's totals to these."""
    for model, name, *values in rows:
        entry = totals.setdefault((model, name), [0.0, 0.0, 0.0])  # type: ignore[arg-type]
        for index, value in enumerate(values):
            entry[index] += value  # type: ignore[operator]


class DemandWindow:
    """Totals in, rates of the last minute out. A total that shrinks (a process was replaced) begins anew."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[Key, tuple[float, ...]]]] = deque()

    def take(self, totals: Mapping[Key, list[float]], now: float) -> None:
        """The totals now."""
        if self._seen and now < self._seen[-1][0]:
            self._seen.clear()
        self._seen.append((now, {key: tuple(entry) for key, entry in totals.items()}))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_SECONDS:
            self._seen.popleft()

    def loads(self) -> dict[Key, ClassLoad]:
        """What came; empty before the second look."""
        if len(self._seen) < 2:
            return {}
        (since, before), (now, after) = self._seen[0], self._seen[-1]
        seconds = now - since
        if seconds <= 0:
            return {}
        found = {}
        for key, entry in after.items():
            base = before.get(key, (0.0, 0.0, 0.0))
            if base[0] > entry[0]:
                base = (0.0, 0.0, 0.0)
            count, prompt, output = (end - begin for end, begin in zip(entry, base, strict=True))
            found[key] = ClassLoad(
                requests_per_second=count / seconds,
                prompt_tokens=prompt / count if count else 0.0,
                output_tokens=output / count if count else 0.0,
            )
        return found


def to_record(loads: Mapping[Key, ClassLoad]) -> dict[str, dict[str, ClassRate]]:
    """As the presence record carries it."""
    table: dict[str, dict[str, ClassRate]] = {}
    for (model, name), load in loads.items():
        if load.is_usable:
            table.setdefault(model, {})[name] = ClassRate(
                requests_per_second=load.requests_per_second,
                prompt_tokens=load.prompt_tokens,
                output_tokens=load.output_tokens,
            )
    return table


def from_record(
    table: Mapping[str, Mapping[str, ClassRate]], classes: frozenset[str]
) -> dict[Key, ClassLoad]:
    """Back; a class that is none is left out."""
    return {
        (model, name): ClassLoad(  # type: ignore[misc]
            requests_per_second=rate.requests_per_second,
            prompt_tokens=rate.prompt_tokens,
            output_tokens=rate.output_tokens,
        )
        for model, by_class in table.items()
        for name, rate in by_class.items()
        if name in classes
    }
