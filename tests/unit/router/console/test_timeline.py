"""What happened, out of what changed."""

from __future__ import annotations

from typing import Any

from support.console import plan, power, site_facts

from fleet.records import Plan, PowerReading
from router.console.facts import Counters, PlanFacts, SiteFacts
from router.console.status import SiteStatus
from router.console.timeline import Happening, Timeline

WELL = SiteStatus(name="serving", level="good", why="", can_serve=True)
DARK = SiteStatus(name="dark", level="warning", why="no wind", can_serve=False)
NO_PLAN = PlanFacts()


def texts(happenings: list[Happening]) -> list[tuple[str, str]]:
    """(level, text) of each."""
    return [(one.level, one.text) for one in happenings]


def look(timeline: Timeline, now: float, status: SiteStatus = WELL, **fields: Any) -> list[tuple[str, str]]:
    """One site at `now`, its report just come unless `arrived_at` says else."""
    arrived_at = fields.pop("arrived_at", now)
    return texts(timeline.take_site(site_facts(arrived_at=arrived_at, **fields), status, now))


def count(timeline: Timeline, now: float, held: int = 0, **counters: Any) -> list[tuple[str, str]]:
    """The router's counts at `now`."""
    return texts(timeline.take_fleet(Counters(**counters), held, NO_PLAN, now))


def test_a_cap_that_falls_far_is_told_with_what_is_granted() -> None:
    """Small moves are not told, and add up until they are worth a line."""
    timeline = Timeline()
    assert look(timeline, 1.0, cap_watts=9000.0) == []
    assert look(timeline, 2.0, cap_watts=8000.0) == []
    assert look(timeline, 3.0, cap_watts=7000.0, power=power(7400.0)) == [
        ("warning", "cap of a falls from 9.0 kW to 7.0 kW: it is granted 7.4 kW of the wind")
    ]
    assert look(timeline, 4.0, cap_watts=6900.0) == []
    assert look(timeline, 5.0, cap_watts=9000.0) == [("good", "cap of a rises from 7.0 kW to 9.0 kW")]


def test_a_cap_that_follows_a_grant_that_was_told_is_no_news() -> None:
    """The grant's own step is told by FleetView; the cap is told when it moves on without one."""
    timeline = Timeline()
    look(timeline, 1.0, cap_watts=9000.0, power=power(9500.0))
    assert look(timeline, 2.0, cap_watts=2000.0, power=power(2100.0)) == []
    assert look(timeline, 30.0, cap_watts=0.0, power=power(2100.0)) == [
        ("warning", "cap of a falls from 2.0 kW to 0 W: it is granted 2.1 kW of the wind")
    ]


def test_a_cap_that_walks_down_says_why() -> None:
    """The site's own reading is a fallback: no measurement reaches it."""
    timeline = Timeline()
    look(timeline, 1.0, cap_watts=9000.0)
    assert look(timeline, 5.0, cap_watts=6000.0, quality="fallback") == [
        (
            "warning",
            (
                "cap of a falls from 9.0 kW to 6.0 kW: its agent gets no good measurement of the wind, "
                "so the cap walks down"
            ),
        )
    ]


def test_an_unknown_cap_is_no_fall() -> None:
    """A report without a cap changes nothing; the next known one is compared with the last known one."""
    timeline = Timeline()
    look(timeline, 1.0, cap_watts=9000.0)
    assert look(timeline, 2.0, cap_watts=None) == []
    assert look(timeline, 3.0, cap_watts=9000.0) == []


def test_silence_is_told_once_and_so_is_its_end() -> None:
    """With how long it lasted."""
    timeline = Timeline()
    look(timeline, 0.0)
    assert look(timeline, 9.0, arrived_at=0.0) == []
    assert look(timeline, 11.0, arrived_at=0.0) == [
        ("bad", "no report of a for 11 s: others are preferred, its figures are unknown")
    ]
    assert look(timeline, 12.0, arrived_at=0.0) == []
    assert look(timeline, 31.0, arrived_at=30.5) == [("good", "a reports again, after 30 s")]


def test_the_wind_s_quality_is_told_when_it_lasts() -> None:
    """Suspect for three seconds, then fallback, then good again, which is told at once."""
    timeline = Timeline()
    seen = ["good", *4 * ["suspect"], *4 * ["fallback"], "good", "good"]
    found = [look(timeline, float(now), power=power(1.0, quality)) for now, quality in enumerate(seen)]
    told = [(now, happenings[0][0]) for now, happenings in enumerate(found) if happenings]
    assert told == [(4, "warning"), (8, "bad"), (9, "good")]


def test_a_reading_that_is_suspect_for_a_moment_is_no_news() -> None:
    """Nor that it is good again: every sudden fall begins with one."""
    timeline = Timeline()
    for now, quality in enumerate(("good", "suspect", "suspect", "good", "suspect", "good")):
        assert look(timeline, float(now), power=power(1.0, quality)) == []


def test_moved_requests_are_told_in_one_bunch() -> None:
    """When nothing was added for three seconds, with the reasons, the most frequent first."""
    timeline = Timeline()
    assert count(timeline, 0.0, resumed=5, retries={"closed": 1}) == []
    assert count(timeline, 1.0, resumed=7, retries={"closed": 1, "connect": 4}) == []
    assert count(timeline, 3.0, resumed=9, retries={"closed": 2, "connect": 4}) == []
    assert count(timeline, 5.0, resumed=9, retries={"closed": 2, "connect": 4}) == []
    assert count(timeline, 6.0, resumed=9, retries={"closed": 2, "connect": 4}) == [
        (
            "info",
            (
                "within 2 s: 4 streams went on at another site, "
                "5 requests were sent to another site (connect 4, closed 1)"
            ),
        )
    ]
    assert count(timeline, 9.0, resumed=9, retries={"closed": 2, "connect": 4}) == []


def test_what_goes_on_for_long_is_told_every_ten_seconds() -> None:
    """Refusals that never stop are one line each ten seconds, not one each second, nor none."""
    timeline = Timeline()
    count(timeline, 0.0, refusals={"no_power": 0})
    told = [now for now in range(1, 32) if count(timeline, float(now), refusals={"no_power": 2 * now})]
    assert told == [11, 22]


def test_broken_requests_are_bad_news_with_their_code() -> None:
    """Failed ones are a warning."""
    timeline = Timeline()
    count(timeline, 0.0, ledger={"broken": 0, "failed": 0})
    count(timeline, 1.0, ledger={"broken": 2, "failed": 0}, losses={"power_lost": 2})
    assert count(timeline, 4.0, ledger={"broken": 2, "failed": 0}, losses={"power_lost": 2}) == [
        ("bad", "2 ended broken, with a stated error (power_lost 2)")
    ]


def test_counts_that_go_back_are_no_news() -> None:
    """A worker that ended may take uncounted figures with it."""
    timeline = Timeline()
    count(timeline, 0.0, resumed=5, retries={"closed": 5}, ledger={"broken": 3})
    for now in (1.0, 5.0, 20.0):
        assert count(timeline, now, resumed=2, retries={}, ledger={"broken": 1}) == []


def test_a_queue_is_told_when_it_lasts_and_when_it_is_over() -> None:
    """One that is gone within three seconds is no news."""
    timeline = Timeline()
    assert [count(timeline, float(now), held=held) for now, held in enumerate((4, 4, 0))] == [[], [], []]
    assert count(timeline, 10.0, held=5) == []
    assert count(timeline, 13.0, held=40) == [("warning", "40 requests wait: no site has room for them")]
    assert count(timeline, 14.0, held=70) == []
    assert count(timeline, 20.0) == [("good", "no request waits any more: 70 at the most, for 10 s")]


def test_a_fleet_where_no_site_can_serve_is_told_once_one_could() -> None:
    """A start in which sites still come up is no alarm."""
    timeline = Timeline()
    look(timeline, 0.0, DARK)
    assert count(timeline, 0.0) == []
    look(timeline, 1.0, WELL)
    assert count(timeline, 1.0) == []
    look(timeline, 2.0, DARK)
    assert count(timeline, 2.0) == [
        ("bad", "no site can take requests: what is new waits, then is told when to come back")
    ]
    assert count(timeline, 3.0) == []
    look(timeline, 4.0, WELL)
    assert count(timeline, 4.0) == [("good", "a site can take requests again")]


def test_a_site_that_is_forgotten_no_longer_counts() -> None:
    """The last one that could serve is gone."""
    timeline = Timeline()
    look(timeline, 0.0, WELL)
    count(timeline, 0.0)
    timeline.keep_only({})
    assert [level for level, _ in count(timeline, 1.0)] == ["bad"]


def test_a_plan_of_another_router_and_its_end_are_told() -> None:
    """This router's own plans are told where they are made."""
    timeline = Timeline()

    def take(found: Plan | None, age: float, *, is_leader: bool = False) -> list[tuple[str, str]]:
        facts = PlanFacts(plan=found, age_seconds=age, is_leader=is_leader)
        return texts(timeline.take_fleet(Counters(), 0, facts, 0.0))

    assert take(None, 0.0) == []
    assert take(plan("r1"), 0.0) == [("info", "the plan is now router r1's (epoch 7)")]
    assert take(plan("r1"), 5.0) == []
    assert take(plan("r2"), 0.0, is_leader=True) == []
    assert take(plan("r2"), 1801.0) == [
        ("warning", "the plan is over and no newer one came: routing goes on by live signals alone")
    ]
    assert take(plan("r2"), 1802.0) == []


def test_a_site_without_any_record_but_its_name_tells_nothing() -> None:
    """Unknown is neither zero nor bad."""
    timeline = Timeline()
    facts = SiteFacts(site_id="a", arrived_at=1.0)
    assert timeline.take_site(facts, WELL, 1.0) == []
    reading: PowerReading | None = facts.power
    assert reading is None
