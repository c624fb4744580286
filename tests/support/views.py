"""Makes snapshot views for tests of decisions."""

from __future__ import annotations

from typing import Any

from fleet.request import RequestFeatures
from router.policy.breaker import Breaker
from router.policy.candidate import Candidate
from router.policy.load import Load
from router.policy.snapshot import Freshness, ModelView

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
