"""Facts for the console, made by hand."""

from __future__ import annotations

from typing import Any

from fleet.records import (
    Cordon,
    ModelReport,
    Plan,
    PowerReading,
    SiteInfo,
    SitePower,
    SiteReport,
    SolverReport,
)
from router.console.facts import SiteFacts
from router.policy.snapshot import view_of

NAMEPLATE_WATTS = 10_000.0


def power(granted_watts: float, quality: str = "good", site_id: str = "a") -> PowerReading:
    """A reading of a farm with this one site."""
    return PowerReading.model_validate(
        {
            "sequence": 1,
            "feed_id": "f",
            "site_id": site_id,
            "farm_id": "farm",
            "observed_at_unix_seconds": 0.0,
            "period_seconds": 1.0,
            "available_power_watts": granted_watts,
            "granted_power_watts": granted_watts,
            "nameplate_capacity_watts": NAMEPLATE_WATTS,
            "quality": quality,
            "source": "test",
        }
    )


def info(site_id: str = "a", **fields: Any) -> SiteInfo:
    """A site of eight GPUs."""
    values: dict[str, Any] = {
        "sequence": 1,
        "agent_id": "agent",
        "site_id": site_id,
        "farm_id": "farm",
        "region": "west",
        "ingress_url": "http://127.0.0.1:1",
        "gpu_model": "H100",
        "gpu_count": 8,
        "server_idle_watts": 1000.0,
        "overhead_ratio": 1.0,
        "ride_through_seconds": 5.0,
        "ride_through_joules": 1000.0,
        "safe_floor_watts": 0.0,
        "max_site_watts": NAMEPLATE_WATTS,
    }
    return SiteInfo.model_validate(values | fields)


def site_facts(
    site_id: str = "a",
    *,
    state: str = "serving",
    arrived_at: float = 0.0,
    cap_watts: float | None = 8000.0,
    draw_watts: float | None = 5000.0,
    quality: str = "good",
    models: tuple[ModelReport, ...] = (ModelReport(model="m", ready_instances=1, headroom_requests=9),),
    drain_seconds_left: float | None = None,
    has_info: bool = True,
    is_allowed: bool = True,
    cordon: Cordon | None = None,
    **fields: Any,
) -> SiteFacts:
    """One site, well unless told otherwise."""
    known = None in (cap_watts, draw_watts)
    headroom = None if known else (cap_watts or 0.0) - (draw_watts or 0.0)
    report = SiteReport.model_validate(
        {
            "sequence": 1,
            "agent_id": "agent",
            "site_id": site_id,
            "observed_at_unix_seconds": 0.0,
            "ingress_url": "http://127.0.0.1:1",
            "state": state,
            "drain_seconds_left": drain_seconds_left,
            "power": SitePower(
                cap_watts=cap_watts,
                draw_watts=draw_watts,
                headroom_watts=headroom,
                quality=quality,  # type: ignore[arg-type]
            ),
            "models": models,
        }
    )
    about = info(site_id) if has_info else None
    view = None
    if is_allowed:
        view = view_of(report, about, arrived_at=arrived_at, is_confirmed=True, cordon=cordon)
    return SiteFacts(site_id=site_id, report=report, info=about, view=view, arrived_at=arrived_at, **fields)


def plan(router_id: str = "r1") -> Plan:
    """A plan of epoch 7, good for half an hour."""
    return Plan(
        sequence=1,
        router_id=router_id,
        epoch=7,
        solved_at_unix_seconds=0.0,
        valid_for_seconds=1800.0,
        solver=SolverReport(status="optimal", seconds=0.1),
    )
