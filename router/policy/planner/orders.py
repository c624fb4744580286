"""What of a plan sites are told: only what they would not do by themselves. Pure.

A site knows its cap and its load every second, and keeps awake what fits (`site_agent.choosers`); a plan
made of quantiles of a quarter of an hour can only be worse at that. It was: told how many instances to run,
sites stopped what bursts then missed (decision 11). So a plan names a site only where its GPUs are to be
split in another way, and leaves clocks to it: the highest that fits. Rule: no order stops an engine but to
use its GPUs for another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from router.policy.planner.problem import Layout, PlanningSite, Target

Targets = Mapping[str, Sequence[Target]]


def orders_of(wanted: Targets, sites: Iterable[PlanningSite]) -> dict[str, tuple[Target, ...]]:
    """Site → targets, of the sites whose layout is to change. `wanted`: what the last slow plan wants.

    A site that no longer has a configuration for it is told nothing.
    """
    found = {}
    for site in sites:
        counts, clocks = _counts(wanted.get(site.site_id, ())), _full_clocks(site)
        if _is_other_layout(site, counts) and counts.keys() <= clocks.keys():
            found[site.site_id] = tuple(
                Target(
                    model=layout[0],
                    tensor_parallel_degree=layout[1],
                    gpu_clock_mhz=clocks[layout],
                    instances=count,
                )
                for layout, count in sorted(counts.items())
            )
    return found


def own_layout(site: PlanningSite) -> Layout | None:
    """What it would start by itself: most of what runs, else the first of its SiteInfo's configurations."""
    present = _counts(site.present)
    if present:
        return max(present, key=lambda layout: (present[layout] * layout[1], layout[1], layout[0]))
    return site.configurations[0].layout if site.configurations else None


def _is_other_layout(site: PlanningSite, wanted: Mapping[Layout, int]) -> bool:
    present, own = _counts(site.present), own_layout(site)
    return any(count > present.get(layout, 0) and layout != own for layout, count in wanted.items())


def _full_clocks(site: PlanningSite) -> dict[Layout, int | None]:
    """Of each layout the highest; a target's clock is the site's ceiling."""
    clocks: dict[Layout, int | None] = {}
    for entry in site.configurations:
        highest = clocks.get(entry.layout) or 0
        clocks[entry.layout] = max(highest, entry.gpu_clock_mhz or 0) or None
    return clocks


def _counts(targets: Iterable[Target]) -> dict[Layout, int]:
    counts: dict[Layout, int] = {}
    for target in targets:
        if target.instances > 0:
            counts[target.layout] = counts.get(target.layout, 0) + target.instances
    return counts
