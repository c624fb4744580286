"""When a farm's next reading is due, and its sequence."""

from __future__ import annotations

import pytest

from fleet.records import PowerReading
from power_feed.allocator import Allocator, SiteClaim
from power_feed.farm import MIN_SPACING_SECONDS, START_WAIT_SECONDS, FarmFeed
from power_feed.forecast import Forecaster
from power_feed.quality import QualityChecker, QualityLimits
from power_feed.readings import Farm
from power_feed.server_switch import ServerSwitch, SwitchRule, SwitchView
from power_feed.sources.interface import Measurement, Measures, Source
from power_feed.sources.playback import Playback
from power_feed.sources.schedule import Schedule

START = 1_700_000_000.0


def feed(source: Source, *site_ids: str) -> FarmFeed:
    return FarmFeed(
        farm=Farm(farm_id="f", nameplate_watts=1000.0),
        site_ids=site_ids or ("s",),
        source=source,
        allocator=Allocator(period_seconds=1.0),
        forecaster=Forecaster(1000.0),
        checker=QualityChecker(limits=QualityLimits(nameplate_watts=1000.0, period_seconds=1.0)),
        feed_id="feed-1",
    )


def read(subject: FarmFeed, *, now: float, unix_seconds: float) -> PowerReading | None:
    """The reading of a farm's only site."""
    claims = [SiteClaim(site_id=site_id) for site_id in subject.site_ids]
    return next(iter(subject.read(now=now, unix_seconds=unix_seconds, claims=claims)), None)


def schedule(*points: tuple[float, float], period: float = 1.0) -> Schedule:
    return Schedule(points=points, nameplate_watts=1000.0, start_unix_seconds=START, period_seconds=period)


def found(sequence: int, granted_watts: float = 0.0, site_id: str = "s") -> PowerReading:
    """What the store holds."""
    return PowerReading(
        feed_id="before",
        sequence=sequence,
        site_id=site_id,
        farm_id="f",
        observed_at_unix_seconds=START,
        period_seconds=1.0,
        available_power_watts=1000.0,
        granted_power_watts=granted_watts,
        nameplate_capacity_watts=1000.0,
        quality="good",
        source="test",
    )


def test_a_reading_is_due_at_once_then_every_interval() -> None:
    """With a source that changes slowly the interval paces."""
    subject = feed(schedule((0.0, 0.5), period=60.0))
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == 0.0
    read(subject, now=5.0, unix_seconds=START + 0.5)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == 1.0
    assert subject.seconds_until_due(now=6.25, unix_seconds=START + 1.75) == -0.25


def test_a_change_is_due_at_its_instant() -> None:
    """The fall at 0.7 s does not wait for the interval."""
    subject = feed(schedule((0.0, 0.5), (0.7, 0.1), period=60.0))
    read(subject, now=5.0, unix_seconds=START + 0.5)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START + 0.5) == pytest.approx(0.2, abs=1e-6)
    reading = read(subject, now=5.2, unix_seconds=START + 0.7)
    assert reading is not None
    assert reading.granted_power_watts == 100.0


def test_a_source_that_changes_too_fast_is_sampled() -> None:
    """Never more than fifty readings a second."""
    subject = feed(schedule((0.0, 0.5), (0.001, 0.4), (0.002, 0.3), period=60.0))
    read(subject, now=5.0, unix_seconds=START)
    assert subject.seconds_until_due(now=5.0, unix_seconds=START) == pytest.approx(MIN_SPACING_SECONDS)


def test_a_wall_clock_that_was_set_back_asks_the_source_anew() -> None:
    """Nothing waits for an instant that may be hours away."""
    subject = feed(schedule((0.0, 0.5)))
    read(subject, now=5.0, unix_seconds=START + 100)
    assert subject.seconds_until_due(now=5.1, unix_seconds=START + 50) == 0.0


def test_sequences_start_at_the_clock_and_grow() -> None:
    """Unix milliseconds first, then one more each time."""
    subject = feed(schedule((0.0, 0.5)))
    first = read(subject, now=5.0, unix_seconds=START + 0.25)
    second = read(subject, now=6.0, unix_seconds=START + 1.25)
    assert first is not None
    assert second is not None
    assert first.sequence == 1_700_000_000_250
    assert second.sequence == first.sequence + 1


def test_a_higher_sequence_in_the_store_is_overtaken() -> None:
    """A clock that was set back over a restart does not make readers refuse the feed."""
    subject = feed(schedule((0.0, 0.5)))
    read(subject, now=5.0, unix_seconds=START)
    subject.note_reading(found(2_000_000_000_000), now=5.5)
    subject.note_reading(found(5), now=5.5)
    reading = read(subject, now=6.0, unix_seconds=START + 1)
    assert reading is not None
    assert reading.sequence == 2_000_000_000_001


def test_nothing_is_said_before_anything_was_measured() -> None:
    """No reading at all, rather than one of 0 W."""
    empty = Playback(
        description="gap",
        ratio=lambda _step: None,
        steps=10,
        record_period_seconds=60.0,
        nameplate_watts=1000.0,
        start_unix_seconds=START,
    )
    subject = feed(empty)
    assert read(subject, now=5.0, unix_seconds=START) is None
    assert subject.readings == ()


def test_the_power_log_takes_one_a_minute() -> None:
    """The first at once, the next after sixty seconds."""
    subject = feed(schedule((0.0, 0.5)))
    assert [subject.is_log_due(now) for now in (5.0, 6.0, 64.9, 65.0, 66.0)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_a_known_start_takes_effect_at_once() -> None:
    """The new source is read without waiting for the interval."""
    subject = feed(schedule((0.0, 0.5)))
    read(subject, now=5.0, unix_seconds=START)
    subject.restart(schedule((0.0, 0.3)), Forecaster(1000.0))
    assert subject.seconds_until_due(now=5.0, unix_seconds=START) == 0.0


def pair(**values: object) -> list[SiteClaim]:
    common: dict[str, object] = {"min_grant_watts": 100.0, "max_grant_watts": 400.0, "is_listening": False}
    return [SiteClaim(site_id=name, **{**common, **values}) for name in "ab"]  # type: ignore[arg-type]


def test_the_sites_of_a_farm_are_read_together_and_share_its_power() -> None:
    """One reading each, of one measurement; grants are filled, and a forecast is of the site's part."""
    subject = feed(schedule((0.0, 0.6)), "a", "b")
    claims = pair(heard_at=5.0, draw_watts=0.0, cap_watts=0.0, believed_grant_watts=0.0)
    subject.read(now=5.0, unix_seconds=START, claims=claims)
    claims = pair(heard_at=6.0, draw_watts=0.0, cap_watts=0.0)
    made = subject.read(now=6.0, unix_seconds=START + 1, claims=claims)
    assert [(one.site_id, one.granted_power_watts, one.available_power_watts) for one in made] == [
        ("a", 400.0, 600.0),
        ("b", 200.0, 600.0),
    ]
    assert {one.observed_at_unix_seconds for one in made} == {START + 1}
    minute = {one.site_id: next(p for p in one.forecast if p.horizon_seconds == 60.0) for one in made}
    assert minute["a"].p50_watts == 400.0
    assert minute["b"].p10_watts == pytest.approx(100.0)
    assert minute["b"].p90_watts == pytest.approx(300.0)


def test_a_feed_that_starts_anew_waits_until_it_knows_what_its_sites_have() -> None:
    """0 W said too soon would break off what runs. But it does not wait until a cap begins to walk down."""
    subject = feed(schedule((0.0, 0.5)), "a", "b")
    assert subject.read(now=5.0, unix_seconds=START, claims=pair()) == ()
    subject.note_reading(found(7, 350.0, "a"), now=5.1)
    assert subject.read(now=6.0, unix_seconds=START + 1, claims=pair()) == ()
    subject.note_reading(found(7, 150.0, "b"), now=6.1)
    made = subject.read(now=7.0, unix_seconds=START + 2, claims=pair())
    assert [one.granted_power_watts for one in made] == [350.0, 150.0]
    late = feed(schedule((0.0, 0.5)), "a", "b")
    late.read(now=5.0, unix_seconds=START, claims=pair())
    made = late.read(now=5.0 + START_WAIT_SECONDS, unix_seconds=START + 2.5, claims=pair())
    assert [one.granted_power_watts for one in made] == [0.0, 0.0]


def test_a_grant_that_was_signed_long_ago_says_nothing_of_now() -> None:
    """An old reading may have been put back: its sequence counts, what it granted does not."""
    subject = feed(schedule((0.0, 0.5)), "a", "b")
    assert subject.read(now=5.0, unix_seconds=START, claims=pair()) == ()
    walk_seconds = subject.allocator.walk_seconds
    subject.note_reading(found(2_000_000_000_000, 500.0, "a"), now=5.1, signed_seconds=walk_seconds + 1)
    subject.note_reading(found(7, 0.0, "b"), now=5.1, signed_seconds=-walk_seconds - 1)
    assert subject.read(now=6.0, unix_seconds=START + 1, claims=pair()) == (), "it waits for the sites"
    made = subject.read(now=5.0 + START_WAIT_SECONDS, unix_seconds=START + 2.5, claims=pair())
    assert [one.granted_power_watts for one in made] == [0.0, 0.0]
    assert made[0].sequence == 2_000_000_000_001
    recent = feed(schedule((0.0, 0.5)), "a", "b")
    recent.read(now=5.0, unix_seconds=START, claims=pair())
    for site_id, watts in (("a", 350.0), ("b", 150.0)):
        recent.note_reading(found(7, watts, site_id), now=5.1, signed_seconds=walk_seconds - 1)
    made = recent.read(now=7.0, unix_seconds=START + 2, claims=pair())
    assert [one.granted_power_watts for one in made] == [350.0, 150.0]


def test_a_suspicious_rise_is_not_shared_out() -> None:
    """It is shown as available; the grant waits until it is confirmed."""
    subject = feed(schedule((0.0, 0.5), (1.0, 0.9)))
    assert (first := read(subject, now=5.0, unix_seconds=START)) is not None
    assert first.granted_power_watts == 500.0
    risen = read(subject, now=6.0, unix_seconds=START + 1)
    assert risen is not None
    assert (risen.quality, risen.available_power_watts, risen.granted_power_watts) == (
        "suspect",
        900.0,
        500.0,
    )


class Meter:
    """A live source that measures once in `period_seconds`: what it is told."""

    description = "meter"
    measures: Measures = "available"
    speed = 1.0

    def __init__(self, period_seconds: float = 1.0) -> None:
        self.period_seconds = period_seconds
        self.newest = Measurement(observed_at_unix_seconds=START, watts=None)

    def measurement(self, at_unix_seconds: float) -> Measurement:
        return self.newest

    def next_change_after(self, at_unix_seconds: float) -> float | None:
        return None


def granted(subject: FarmFeed, meter: Meter, watts: float | None, *, at: float) -> tuple[str, float]:
    """Quality and grant of the only site, by a measurement of that moment; None: there is none."""
    observed_at = meter.newest.observed_at_unix_seconds if watts is None else START + at
    meter.newest = Measurement(observed_at_unix_seconds=observed_at, watts=watts)
    reading = read(subject, now=at, unix_seconds=START + at)
    assert reading is not None
    return reading.quality, reading.granted_power_watts


def test_after_a_fall_only_a_good_measurement_raises_a_grant() -> None:
    """What was good before the fall is over: neither a fallback nor an unconfirmed rise brings it back."""
    meter = Meter()
    subject = feed(meter)
    assert granted(subject, meter, 900.0, at=0.0) == ("good", 900.0)
    assert granted(subject, meter, 0.0, at=1.0) == ("suspect", 0.0)
    assert granted(subject, meter, 800.0, at=2.0) == ("suspect", 0.0)
    assert granted(subject, meter, None, at=3.0) == ("fallback", 0.0)
    assert granted(subject, meter, 50.0, at=4.0) == ("good", 50.0)


def test_a_first_measurement_that_is_not_good_is_shared_out() -> None:
    """A feed that starts anew breaks nothing off by it; the next ones can only lower it."""
    meter = Meter()
    subject = feed(meter)
    assert granted(subject, meter, 1100.0, at=0.0) == ("suspect", 1100.0)
    assert granted(subject, meter, 1050.0, at=1.0) == ("suspect", 1050.0)
    assert granted(subject, meter, 1100.0, at=2.0) == ("suspect", 1050.0)
    assert granted(subject, meter, 1000.0, at=3.0) == ("good", 1000.0)


@pytest.mark.parametrize("period", [1.0, 300.0])
def test_without_a_good_measurement_grants_walk_down_as_caps_do(period: float) -> None:
    """From 3 to 10 periods, however long they are; what comes then counts whole at once."""
    meter = Meter(period)
    subject = feed(meter)
    subject.checker.limits = QualityLimits(nameplate_watts=1000.0, period_seconds=period)
    shares: list[float] = []
    assert granted(subject, meter, 700.0, at=0.0) == ("good", 700.0)
    for tenth in range(1, 121):
        _, watts = granted(subject, meter, None, at=tenth / 10 * period)
        if tenth % 10 == 0:
            shares.append(watts)
    assert shares == pytest.approx([700, 700, 700, 600, 500, 400, 300, 200, 100, 0, 0, 0])
    assert granted(subject, meter, 650.0, at=12.5 * period) == ("good", 650.0)


def test_a_source_that_is_silent_for_good_lets_its_server_go_off() -> None:
    """And on again with the first good measurement, when it has rested."""
    meter, switch = Meter(), ServerSwitch(rule=SwitchRule(min_off_seconds=120.0))
    subject = feed(meter)
    commands: dict[float, str] = {}
    is_on, heard_at = True, 0.0
    for second in range(202):
        at = float(second)
        _, watts = granted(subject, meter, 700.0 if second < 10 or second >= 200 else None, at=at)
        heard_at = at if is_on else heard_at
        view = SwitchView(granted_watts=watts, is_on=is_on, report_state="serving", heard_at=heard_at)
        if command := switch.decide(view, at):
            commands[at], is_on = command, command == "on"
    assert commands == {24.0: "off", 200.0: "on"}


def test_a_replay_gives_its_forecast_in_wall_seconds() -> None:
    """At speed 60 the quarter hour is 15 s away."""
    record = Playback(
        description="record",
        ratio=lambda _step: 0.5,
        steps=None,
        record_period_seconds=900.0,
        nameplate_watts=1000.0,
        start_unix_seconds=START,
        speed=60.0,
    )
    made = read(feed(record), now=5.0, unix_seconds=START)
    assert made is not None
    assert made.period_seconds == 15.0
    assert [point.horizon_seconds for point in made.forecast][4] == 15.0


def test_a_report_counts_once_power_was_shared_out_since() -> None:
    """Before that its `dark` says nothing about the grant that it will bring."""
    subject = feed(schedule((0, 0.5)))
    assert not subject.has_counted(99.0)
    read(subject, now=100.0, unix_seconds=START)
    assert subject.has_counted(99.0)
    assert not subject.has_counted(100.1)
    assert not subject.has_counted(None)


def test_a_forecaster_that_knows_more_is_taken_at_once() -> None:
    """Also between two measurements of a slow source."""
    subject = feed(schedule((0, 0.5), period=900.0))
    read(subject, now=0.0, unix_seconds=START)
    wiser = Forecaster(1000.0)
    for minute in range(200):
        wiser.observe(500.0, START - 60.0 * (200 - minute))
    subject.take_forecaster(wiser)
    reading = read(subject, now=1.0, unix_seconds=START + 1.0)
    assert reading is not None
    hour = next(point for point in reading.forecast if point.horizon_seconds == 3600.0)
    assert hour.p10_watts == pytest.approx(500.0)
