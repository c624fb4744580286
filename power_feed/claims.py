"""What the allocator is told of a site: from its configuration, its records, and what the feed itself sees.
Pure.

The order of trust: what is configured at the feed, then what the site's SiteInfo says, then a safe
assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.records import SiteInfo, SiteReport
from power_feed.allocator import RIDE_THROUGH_SECONDS, SiteClaim
from power_feed.server_switch import NO_SWITCH, ServerState

DEFAULT_MARGIN_RATIO = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTerms:
    """What is configured of a site. None: its SiteInfo says it."""

    site_id: str
    priority: int = 0
    margin_ratio: float = DEFAULT_MARGIN_RATIO
    """That the agent takes off its grant (`[[sites]] margin_ratio`)."""
    server_idle_watts: float | None = None
    max_site_watts: float | None = None
    safe_floor_watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """What is known of a site at this moment."""

    info: SiteInfo | None = None
    report: SiteReport | None = None
    heard_at: float | None = None
    """When the report came."""
    is_listening: bool = False
    server: ServerState = NO_SWITCH
    share: float | None = None


def claim_of(terms: SiteTerms, state: SiteState, *, equal_part_watts: float = float("inf")) -> SiteClaim:
    """The site as the allocator sees it.

    A grant is worth nothing unless the cap that it makes is above what the site draws idle, and above its
    firm power. `equal_part_watts` is the most that it may have where nobody says what it can use: its equal
    part of the farm, so that a site that said nothing yet cannot starve the others.
    """
    info = state.info
    idle, most, floor = terms.server_idle_watts, terms.max_site_watts, terms.safe_floor_watts
    ride_through_seconds = RIDE_THROUGH_SECONDS
    if info is not None:
        idle = info.server_idle_watts if idle is None else idle
        most = info.max_site_watts if most is None else most
        floor = info.safe_floor_watts if floor is None else floor
        ride_through_seconds = info.ride_through_seconds
    idle, floor = idle or 0.0, floor or 0.0
    kept_ratio = 1 - terms.margin_ratio
    power = None if state.report is None else state.report.power
    cap = None if power is None else power.cap_watts
    return SiteClaim(
        site_id=terms.site_id,
        priority=terms.priority,
        min_grant_watts=max(idle, floor) / kept_ratio,
        max_grant_watts=equal_part_watts if most is None else most / kept_ratio,
        idle_watts=idle,
        firm_watts=floor,
        share=state.share,
        server=state.server,
        is_listening=state.is_listening,
        heard_at=state.heard_at,
        draw_watts=None if power is None else power.draw_watts,
        cap_watts=cap,
        believed_grant_watts=None if cap is None else (cap / kept_ratio if cap > floor else 0.0),
        ride_through_seconds=ride_through_seconds,
    )
