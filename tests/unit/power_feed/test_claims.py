"""What the allocator is told of a site."""

from __future__ import annotations

from fleet.records import SiteInfo, SitePower, SiteReport
from power_feed.claims import SiteState, SiteTerms, claim_of


def info(safe_floor_watts: float = 0.0) -> SiteInfo:
    return SiteInfo(
        agent_id="a",
        sequence=1,
        site_id="coast",
        farm_id="f",
        region="r",
        ingress_url="http://127.0.0.1:1",
        gpu_model="g",
        gpu_count=8,
        server_idle_watts=950.0,
        overhead_ratio=1.0,
        ride_through_seconds=7.0,
        ride_through_joules=1.0,
        safe_floor_watts=safe_floor_watts,
        max_site_watts=4750.0,
    )


def report(cap_watts: float | None) -> SiteReport:
    return SiteReport(
        agent_id="a",
        sequence=1,
        site_id="coast",
        observed_at_unix_seconds=1.0,
        ingress_url="http://127.0.0.1:1",
        state="serving",
        power=SitePower(cap_watts=cap_watts, draw_watts=900.0),
    )


def test_a_site_info_makes_a_claim_with_the_margin_counted_in() -> None:
    """The grant must make a cap above the idle draw, and can make one of the site's most."""
    made = claim_of(SiteTerms(site_id="coast"), SiteState(info=info()))
    assert (made.min_grant_watts, made.max_grant_watts) == (1000.0, 5000.0)
    assert (made.idle_watts, made.firm_watts, made.ride_through_seconds) == (950.0, 0.0, 7.0)


def test_what_is_configured_comes_before_what_the_site_says() -> None:
    """Each value for itself."""
    terms = SiteTerms(site_id="coast", margin_ratio=0.5, max_site_watts=2000.0, priority=3)
    made = claim_of(terms, SiteState(info=info()))
    assert (made.min_grant_watts, made.max_grant_watts, made.priority) == (1900.0, 4000.0, 3)


def test_a_grant_below_firm_power_is_worth_nothing() -> None:
    """The cap would be the safe floor anyway."""
    made = claim_of(SiteTerms(site_id="coast"), SiteState(info=info(1900.0)))
    assert made.min_grant_watts == 2000.0


def test_a_site_that_said_nothing_has_no_least_and_its_equal_part_at_most() -> None:
    """Unknown is neither nothing nor everything."""
    made = claim_of(SiteTerms(site_id="coast"), SiteState(), equal_part_watts=3000.0)
    assert (made.min_grant_watts, made.max_grant_watts) == (0.0, 3000.0)
    assert (made.draw_watts, made.cap_watts, made.believed_grant_watts) == (None, None, None)


def test_a_reported_cap_tells_what_was_granted_before() -> None:
    """Above the floor; one at the floor says nothing was. An unknown cap says nothing."""
    terms = SiteTerms(site_id="coast")
    assert claim_of(terms, SiteState(info=info(), report=report(1900.0))).believed_grant_watts == 2000.0
    firm = SiteState(info=info(1900.0), report=report(1900.0))
    assert claim_of(terms, firm).believed_grant_watts == 0.0
    unknown = claim_of(terms, SiteState(info=info(), report=report(None)))
    assert (unknown.draw_watts, unknown.believed_grant_watts) == (900.0, None)
