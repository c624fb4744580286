"""Whether a plan may be followed: judged by every reader, whoever wrote it (DESIGN §6). No solver needed.

Rule: a plan with any fault is refused as a whole; half a plan is none. Stale epochs and sequences are
`fleet.intake.RecordJudge`'s affair, expiry the reader's: both need a memory or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from fleet.profile import profile_of
from fleet.records import Plan, PlanTarget, SiteInfo
from fleet.request import RequestClass

SUM_TOLERANCE = 1e-6
"""Fractions are rounded on the wire."""
WATTS_TOLERANCE = 1.0
MAX_FAULTS = 20
"""Told of; one is enough to refuse."""
CLASSES = frozenset(get_args(RequestClass))


def plan_faults(plan: Plan, infos: Mapping[str, SiteInfo]) -> list[str]:
    """What is wrong with a plan, in words; empty: nothing. `infos`: every site that the reader knows.

    A site without a SiteInfo cannot be planned for, so a plan that names one is refused until its info is
    here: whoever reads plans re-reads them.
    """
    faults: list[str] = []
    for model, by_class in plan.weights.items():
        for request_class, sites in by_class.items():
            where = f"weights of {model} {request_class}"
            if request_class not in CLASSES:
                faults.append(f"{where}: no such class")
            faults += _unknown(where, sites, infos)
            if (total := sum(sites.values())) > 1 + SUM_TOLERANCE:
                faults.append(f"{where}: sum is {total:.6f}, at most 1")
    for farm_id, sites in plan.shares.items():
        where = f"shares of farm {farm_id}"
        faults += _unknown(where, sites, infos)
        if (total := sum(sites.values())) > 1 + SUM_TOLERANCE:
            faults.append(f"{where}: sum is {total:.6f}, at most 1")
        strangers = sorted(
            site_id for site_id in sites if site_id in infos and infos[site_id].farm_id != farm_id
        )
        faults += [f"{where}: site {site_id} is at {infos[site_id].farm_id}" for site_id in strangers]
    for site_id, targets in plan.targets.items():
        if site_id not in infos:
            faults.append(f"targets: no site {site_id} is known")
        else:
            faults += _target_faults(infos[site_id], targets)
    for model, shortfalls in plan.expected_shortfall.items():
        faults += [
            f"shortfall of {model} {name}: no such class" for name in shortfalls if name not in CLASSES
        ]
    return faults[:MAX_FAULTS]


def _unknown(where: str, sites: Mapping[str, float], infos: Mapping[str, SiteInfo]) -> list[str]:
    return [f"{where}: no site {site_id} is known" for site_id in sites if site_id not in infos]


def _target_faults(info: SiteInfo, targets: tuple[PlanTarget, ...]) -> list[str]:
    """GPUs, configurations, and the least that these instances draw: awake and empty."""
    where = f"targets of {info.site_id}"
    faults = []
    gpus = sum(target.tensor_parallel_degree * target.instances for target in targets)
    if gpus > info.gpu_count:
        faults.append(f"{where}: {gpus} GPUs, it has {info.gpu_count}")
    known = {
        (entry.model, entry.tensor_parallel_degree, entry.gpu_clock_mhz): entry.profile_id
        for entry in info.configurations
    }
    watts = info.server_idle_watts
    for target in targets:
        key = (target.model, target.tensor_parallel_degree, target.gpu_clock_mhz)
        if key not in known:
            clock = "its own clock" if key[2] is None else f"{key[2]} MHz"
            faults.append(f"{where}: it has no configuration {key[0]} at {key[1]} GPUs and {clock}")
            continue
        profile = profile_of(info, known[key])
        if profile is not None:
            added = max(0.0, profile.idle_watts - profile.stopped_watts)
            watts += target.instances * added * info.overhead_ratio
    if any(target.instances for target in targets) and watts > info.max_site_watts + WATTS_TOLERANCE:
        faults.append(f"{where}: {watts:.0f} W even when idle, it may draw {info.max_site_watts:.0f} W")
    return faults
