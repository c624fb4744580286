"""What of a plan sites are told: only what they would not do by themselves. Pure.

A site knows its cap and its load every second, and keeps awake what fits (`site_agent.choosers`); a plan
made of quantiles of a quarter of an hour can only be worse at that. It was: told how many instances to run,
sites stopped what bursts then missed (decision 11). So a plan names a site only where its GPUs are to be
split in another way, and leaves clocks to it: the highest that fits. Rule: no order stops an engine but to
use its GPUs for another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from router.policy.planner.model import Layout
from router.policy.planner.problem import PlanningSite, Target

Targets = Mapping[str, Sequence[Target]]


def orders_of(wanted: Targets, sites: Iterable[PlanningSite]) -> dict[str, tuple[Target, ...]]:
    """Site → targets, of the sites whose layout is to change. `wanted`: what the last slow plan wants."""
    return {
        site.site_id: _at_full_clock(site, wanted[site.site_id])
        for site in sites
        if site.site_id in wanted and _is_other_layout(site, wanted[site.site_id])
    }


def _at_full_clock(site: PlanningSite, targets: Sequence[Target]) -> tuple[Target, ...]:
    """One target per layout; a target's clock is the site's ceiling."""
    full: dict[Layout, int | None] = {}
    for entry in site.configurations:
        before = full.get(entry.layout)
        if entry.layout not in full or (entry.gpu_clock_mhz or 0) > (before or 0):
            full[entry.layout] = entry.gpu_clock_mhz
    return tuple(
        Target(model=model, tensor_parallel_degree=degree, gpu_clock_mhz=full.get((model, degree)), instances=count)
        for (model, degree), count in sorted(_counts(targets).items())
    )


def own_layout(site: PlanningSite) -> Layout | None:
    """What it would start by itself: most of what runs, else the first of its SiteInfo's configurations."""
    present = _counts(site.present)
    if present:
        return max(present, key=lambda layout: (present[layout] * layout[1], layout[1], layout[0]))
    return site.configurations[0].layout if site.configurations else None


def _is_other_layout(site: PlanningSite, targets: Sequence[Target]) -> bool:
    present, own = _counts(site.present), own_layout(site)
    return any(count > present.get(layout, 0) and layout != own for layout, count in _counts(targets).items())


def _counts(targets: Iterable[Target]) -> dict[Layout, int]:
    counts: dict[Layout, int] = {}
    for target in targets:
        if target.instances > 0:
            counts[target.layout] = counts.get(target.layout, 0) + target.instances
    return counts
