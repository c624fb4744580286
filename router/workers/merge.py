"""Workers' metrics as one page. Pure.

Counters and histograms are summed, over workers that have ended too: a counter never goes back because one
was killed. What a gauge of several workers means differs, so each has a rule; a gauge without one is summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Labels = tuple[tuple[str, str], ...]
Kind = Literal["counter", "gauge", "histogram"]

PARENT_ONLY = frozenset({"heron_router_records_refused", "heron_router_report_polls"})
"""Workers have these too, as an echo of what the parent did."""
GREATEST = frozenset({"heron_router_site_breaker_state"})
"""The worst that any worker says."""


@dataclass(slots=True, kw_only=True)
class Family:
    """One metric: name without suffix, its samples by (sample name, labels)."""

    name: str
    kind: Kind
    text: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


Page = dict[str, Family]
"""By name."""


def to_json(page: Page) -> list[Any]:
    """For the way from worker to parent."""
    return [
        [
            one.name,
            one.kind,
            one.text,
            [[name, labels, value] for (name, labels), value in one.samples.items()],
        ]
        for one in page.values()
    ]


def from_json(values: Iterable[Any]) -> Page:
    """The same, back."""
    return {
        name: Family(
            name=name,
            kind=kind,
            text=text,
            samples={
                (sample, tuple((label, value) for label, value in labels)): number
                for sample, labels, number in samples
            },
        )
        for name, kind, text, samples in values
    }


def merge(parent: Page, workers: Iterable[Page], ended: Page) -> Page:
    """One page of the parent's own metrics, those of living workers, and what is left of those that ended."""
    merged: Page = {}
    _add(merged, parent)
    for page in (*workers, ended):
        _add(merged, {name: family for name, family in page.items() if name not in PARENT_ONLY})
    return merged


def sums(
    pages: Iterable[Page], name: str, *labels: str, suffix: str = "_total"
) -> dict[tuple[str, ...], float]:
    """One family of all pages, summed by these labels' values."""
    found: dict[tuple[str, ...], float] = {}
    for page in pages:
        family = page.get(name)
        for (sample, pairs), value in () if family is None else family.samples.items():
            if sample == f"{name}{suffix}":
                by_label = dict(pairs)
                key = tuple(by_label.get(label, "") for label in labels)
                found[key] = found.get(key, 0.0) + value
    return found


def end(ended: Page, last: Page) -> None:
    """A worker has ended: keep its counters and histograms."""
    _add(ended, {name: family for name, family in last.items() if family.kind != "gauge"})


def _add(into: Page, page: Mapping[str, Family]) -> None:
    for family in page.values():
        target = into.get(family.name)
        if target is None:
            target = into[family.name] = Family(name=family.name, kind=family.kind, text=family.text)
        samples = target.samples
        for key, value in family.samples.items():
            before = samples.get(key)
            if before is None:
                samples[key] = value
            elif family.name in GREATEST:
                samples[key] = max(before, value)
            else:
                samples[key] = before + value
