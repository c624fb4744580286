"""What each site of a farm will be granted: the allocator applied to the farm's quantiles (DESIGN §4). Pure.

Each quantile of the farm's power is filled into its sites as if it were there at that horizon. Hysteresis and
draws that have yet to shrink are left out: both are over within a minute, which is below the horizons at
which a plan is made. A site's own quantiles are put in order, since a server that starts may take another's
power.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleet.records import ForecastPoint
from power_feed.allocator import SiteClaim, fill
from power_feed.forecast import QuantileForecast


def site_forecasts(
    farm: Sequence[QuantileForecast],
    ordered: Sequence[SiteClaim],
    *,
    deliverable_watts: Callable[[float], float] = lambda watts: watts,
    speed: float = 1.0,
) -> dict[str, tuple[ForecastPoint, ...]]:
    """Each site's forecast, at the farm's horizons, in wall seconds.

    `ordered`: as the allocator would fill them (`Allocator.in_order`); `deliverable_watts` takes off losses
    and other loads; `speed`: seconds of the source in a wall second.
    """
    points: dict[str, list[ForecastPoint]] = {site.site_id: [] for site in ordered}
    for point in farm:
        filled = [
            fill(deliverable_watts(watts), ordered)
            for watts in (point.p10_watts, point.p50_watts, point.p90_watts)
        ]
        for site_id, made in points.items():
            low, middle, high = sorted(grants[site_id] for grants in filled)
            made.append(
                ForecastPoint(
                    horizon_seconds=point.horizon_seconds / speed,
                    p10_watts=low,
                    p50_watts=middle,
                    p90_watts=high,
                )
            )
    return {site_id: tuple(made) for site_id, made in points.items()}
