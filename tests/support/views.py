"""Makes snapshot views for tests of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.records import SiteInfo
from fleet.request import RequestFeatures
from router.policy.breaker import Breaker
from router.policy.candidate import Candidate
from router.policy.load import Load
from router.policy.outlook import Horizon, PowerOutlook, Quantiles
from router.policy.snapshot import Freshness, ModelView, SiteView, Snapshot

FEATURES = RequestFeatures(
    model="m", request_class="SS", prompt_tokens=10, expected_output_tokens=10, stream=True
)


def view(site_id: str = "a", **changes: Any) -> ModelView:
    """A fresh, serving view with room for 10, as it arrived at 100."""
    values: dict[str, Any] = {
        "site_id": site_id,
        "model": "m",
        "state": "serving",
        "sequence": 1,
        "arrived_at": 100.0,
        "is_confirmed": True,
        "ready_instances": 1,
        "headroom_requests": 10.0,
        "capacity_requests": 20.0,
    }
    return ModelView(**(values | changes))


def loads(*site_ids: str) -> dict[str, Load]:
    """A load per site, each with its own breaker."""
    return {site_id: Load(Breaker()) for site_id in site_ids}


def candidate(
    site_id: str = "a", room: float = 10.0, freshness: Freshness = Freshness.FRESH, **changes: Any
) -> Candidate:
    """A site that passed the filter."""
    return Candidate(view(site_id, **changes), room, freshness, Load(Breaker(), site_id))


def info(site_id: str, gpu_count: int = 8, **changes: Any) -> SiteInfo:
    """What a site of one server says of itself."""
    values: dict[str, Any] = {
        "sequence": 1,
        "agent_id": "agent",
        "site_id": site_id,
        "farm_id": "farm",
        "region": "north",
        "ingress_url": "http://127.0.0.1:1",
        "gpu_model": "H100",
        "gpu_count": gpu_count,
        "server_idle_watts": 500.0,
        "overhead_ratio": 1.1,
        "ride_through_seconds": 5.0,
        "ride_through_joules": 1e5,
        "safe_floor_watts": 0.0,
        "max_site_watts": 6000.0,
    }
    return SiteInfo.model_validate(values | changes)


def site(one: ModelView, **changes: Any) -> SiteView:
    """The site of one view."""
    values: dict[str, Any] = {
        "site_id": one.site_id,
        "agent_id": "agent",
        "state": one.state,
        "sequence": one.sequence,
        "arrived_at": one.arrived_at,
        "is_confirmed": one.is_confirmed,
        "ingress_url": "http://127.0.0.1:1",
        "observed_at_unix_seconds": 0.0,
        "models": (one,),
    }
    return SiteView(**(values | changes))


def snapshot_of(candidates: Sequence[Candidate], **by_site: dict[str, Any]) -> Snapshot:
    """A snapshot with the candidates' sites, changed as given for each."""
    snapshot = Snapshot()
    for one in candidates:
        snapshot = snapshot.with_site(site(one.view, **by_site.get(one.view.site_id, {})))
    return snapshot


def outlook(
    site_id: str, watts: float, *points: tuple[float, float, float, float], arrived_at: float = 100.0
) -> PowerOutlook:
    """What a feed says of a site: watts now, and (seconds, p10, p50, p90) to come."""
    return PowerOutlook(
        site_id=site_id,
        granted_power_watts=watts,
        quality="good",
        arrived_at=arrived_at,
        forecast=tuple(Horizon(seconds, Quantiles(*quantiles)) for seconds, *quantiles in points),
    )
