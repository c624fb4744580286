"""The cap, its walk-down and the ride-through account, against the definitions of DESIGN §7."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.power import CapRule, CapTracker, RideThrough, RideThroughAccount

RULE = CapRule(max_site_watts=12_000, margin_ratio=0.05)
FIRM = CapRule(max_site_watts=12_000, margin_ratio=0.0, safe_floor_watts=1_000)


def tracker(rule: CapRule = FIRM, *, granted: float = 8_000, period: float = 1.0) -> CapTracker:
    """One that took a good measurement at 100 s."""
    made = CapTracker(rule=rule)
    take(made, granted, now=100.0, measured_at=1000.0, period=period)
    return made


def take(
    made: CapTracker,
    granted: float,
    *,
    now: float,
    measured_at: float,
    quality: str = "good",
    period: float = 1.0,
) -> None:
    made.observe(
        granted_watts=granted,
        period_seconds=period,
        quality=quality,
        observed_at_unix_seconds=measured_at,
        now=now,
    )


# The cap


@pytest.mark.parametrize(
    ("granted", "expected"),
    [(0, 1_000), (1_000, 1_000), (1_100, 1_045), (10_000, 9_500), (20_000, 12_000), (1e12, 12_000)],
)
def test_a_cap_is_the_grant_less_a_margin_between_floor_and_maximum(granted: float, expected: float) -> None:
    """min(max(grant × 0.95, 1,000), 12,000)."""
    rule = CapRule(max_site_watts=12_000, margin_ratio=0.05, safe_floor_watts=1_000)
    assert rule.cap_watts(granted) == pytest.approx(expected)


def test_the_maximum_outranks_the_floor() -> None:
    """A site draws no more than it can, whatever firm power there is."""
    assert CapRule(max_site_watts=500, safe_floor_watts=1_000).cap_watts(0) == 500


@given(low=st.floats(0, 1e6), more=st.floats(0, 1e6))
def test_a_larger_grant_never_lowers_the_cap(low: float, more: float) -> None:
    """And no cap is above the maximum or below the floor."""
    assert 1_000 <= FIRM.cap_watts(low) <= FIRM.cap_watts(low + more) <= 12_000


# Following readings


def test_before_any_good_reading_the_cap_is_the_safe_floor() -> None:
    """Nothing measured is never full power; a suspect value is no measurement."""
    made = CapTracker(rule=FIRM)
    assert made.cap_watts(0.0) == 1_000
    take(made, 9_000, now=1.0, measured_at=1000.0, quality="suspect")
    assert made.cap_watts(1.0) == 1_000
    assert not made.is_walking_down(1.0)


def test_a_new_good_measurement_sets_the_cap_at_once_both_ways() -> None:
    """How slowly a site follows a rise is the governor's affair."""
    made = tracker(granted=8_000)
    assert made.cap_watts(100.0) == 8_000
    take(made, 3_000, now=101.0, measured_at=1001.0)
    assert made.cap_watts(101.0) == 3_000
    take(made, 11_000, now=102.0, measured_at=1002.0)
    assert made.cap_watts(102.0) == 11_000


@pytest.mark.parametrize("quality", ["suspect", "fallback"])
def test_a_doubtful_reading_lowers_the_cap_and_never_raises_it(quality: str) -> None:
    """The lowest of them holds until a new good measurement comes."""
    made = tracker(granted=8_000)
    take(made, 20_000, now=101.0, measured_at=1001.0, quality=quality)
    assert made.cap_watts(101.0) == 8_000
    take(made, 5_000, now=101.5, measured_at=1001.5, quality=quality)
    take(made, 7_000, now=102.0, measured_at=1002.0, quality=quality)
    assert made.cap_watts(102.0) == 5_000
    take(made, 8_000, now=102.5, measured_at=1003.0)
    assert made.cap_watts(102.5) == 8_000


def test_the_allocator_may_share_out_one_measurement_anew() -> None:
    """A repeated good measurement with another grant counts, up and down, while it is not walked down."""
    made = tracker(granted=8_000, period=5.0)
    take(made, 9_000, now=101.0, measured_at=1000.0, period=5.0)
    assert made.cap_watts(101.0) == 9_000
    take(made, 4_000, now=102.0, measured_at=1000.0, period=5.0)
    assert made.cap_watts(102.0) == 4_000


# The walk down


def test_a_silent_feed_walks_the_cap_to_the_floor_between_3_and_10_periods() -> None:
    """From 8,000 to 1,000 W in seven periods: 1,000 W a second at a period of one."""
    made = tracker(granted=8_000, period=1.0)
    assert [made.cap_watts(100.0 + silent) for silent in (0, 2.9, 3, 4, 6.5, 9, 10, 11, 1e6)] == [
        pytest.approx(watts) for watts in (8_000, 8_000, 8_000, 7_000, 4_500, 2_000, 1_000, 1_000, 1_000)
    ]
    assert [made.is_walking_down(100.0 + silent) for silent in (0, 3, 3.1, 20)] == [False, False, True, True]


def test_t_is_at_most_ten_seconds_while_nothing_is_heard() -> None:
    """A source of 15-minute values whose feed is silent: the floor after 100 s, not after hours."""
    made = tracker(granted=8_000, period=900.0)
    assert made.cap_watts(130.0) == 8_000
    assert made.cap_watts(165.0) == pytest.approx(4_500)
    assert made.cap_watts(200.0) == 1_000


def test_a_living_feed_gives_a_slow_source_three_of_its_own_periods() -> None:
    """Good repeats every second show that the feed lives; the measurement itself is old only after 45 min."""
    made = tracker(granted=8_000, period=900.0)
    for second in range(1, 2_800):
        take(made, 8_000, now=100.0 + second, measured_at=1000.0, period=900.0)
        assert (made.cap_watts(100.0 + second) == 8_000) == (second <= 2_700)


def test_a_period_shorter_than_the_readings_starts_no_walk_between_two_of_them() -> None:
    """A fast replay divides its period; readings still come once a second."""
    made = tracker(granted=8_000, period=0.01)
    assert made.cap_watts(103.0) == 8_000
    assert made.cap_watts(110.0) == 1_000


@pytest.mark.parametrize("quality", ["suspect", "fallback"])
def test_a_doubtful_reading_does_not_stop_a_walk(quality: str) -> None:
    """DESIGN §7: no new good measurement by any path, whatever the reason."""
    silent, doubtful = tracker(granted=8_000), tracker(granted=8_000)
    for tenth in range(1, 150):
        now = 100.0 + tenth / 10
        take(doubtful, 8_000, now=now, measured_at=1000.0 + tenth, quality=quality)
        assert doubtful.cap_watts(now) <= silent.cap_watts(now)
    assert doubtful.cap_watts(115.0) == 1_000


def test_a_repeated_measurement_does_not_stop_its_own_walk() -> None:
    """The feed lives but measures nothing new: at 10 T the cap is the floor all the same."""
    made = tracker(granted=8_000)
    for second in range(1, 15):
        take(made, 8_000, now=100.0 + second, measured_at=1000.0)
    assert made.cap_watts(114.0) == 1_000


def test_a_repeat_with_a_larger_grant_cannot_raise_a_walk_under_way() -> None:
    """An old measurement is no news of more power."""
    made = tracker(granted=8_000)
    before = made.cap_watts(106.0)
    take(made, 12_000, now=106.0, measured_at=1000.0)
    assert made.cap_watts(106.0) <= before


def test_a_new_good_measurement_ends_a_walk_even_from_a_clock_that_stepped_back() -> None:
    """Another observation time is a new one; the writer's clock decides nothing."""
    made = tracker(granted=8_000)
    assert made.cap_watts(120.0) == 1_000
    take(made, 6_000, now=120.0, measured_at=900.0)
    assert made.cap_watts(120.0) == 6_000
    assert not made.is_walking_down(120.0)


readings = st.lists(
    st.tuples(
        st.floats(0.01, 20),  # since the one before
        st.floats(0, 20_000),
        st.sampled_from(["good", "suspect", "fallback"]),
        st.booleans(),  # is it a new measurement
        st.sampled_from([0.1, 1.0, 5.0, 900.0]),
    ),
    max_size=25,
)


@given(taken=readings, silences=st.lists(st.floats(0, 50), min_size=1, max_size=10))
def test_the_cap_is_never_above_the_last_good_grants_cap(
    taken: list[tuple[float, float, str, bool, float]], silences: list[float]
) -> None:
    """After any history the cap lies between floor and that cap, and only falls while nothing comes."""
    made = CapTracker(rule=FIRM)
    now, measured, last_good = 0.0, 0.0, 0.0
    for gap, granted, quality, is_new, period in taken:
        now += gap
        measured += is_new
        before = made.cap_watts(now)
        take(made, granted, now=now, measured_at=measured, quality=quality, period=period)
        if quality == "good":
            last_good = max(last_good, granted) if not is_new else granted
        else:
            assert made.cap_watts(now) <= before
        assert 1_000 <= made.cap_watts(now) <= FIRM.cap_watts(last_good)
    caps = []
    for silence in silences:
        now += silence
        caps.append(made.cap_watts(now))
    assert caps == sorted(caps, reverse=True)
    assert min(caps) >= 1_000
    assert made.cap_watts(now + 100.0) == 1_000


@given(
    granted=st.floats(0, 20_000),
    period=st.floats(0.01, 2_000),
    silences=st.lists(st.floats(0, 20_000), min_size=1, max_size=20).map(sorted),
)
def test_a_walk_starts_at_3_t_falls_linearly_and_ends_at_10_t(
    granted: float, period: float, silences: list[float]
) -> None:
    """With T = the period, but 1 s at least and 10 s at most in silence; compared with the definition."""
    made = tracker(granted=granted, period=period)
    t = min(max(period, 1.0), 10.0)
    full = FIRM.cap_watts(granted)
    for silence in silences:
        share = min(1.0, max(0.0, (10 * t - silence) / (7 * t)))
        expected = 1_000 + (full - 1_000) * share
        assert made.cap_watts(100.0 + silence) == pytest.approx(expected, abs=1e-3)


# The ride-through

LIMITS = RideThrough(seconds=5.0, joules=10_000.0, recovery_seconds=5.0)


def account(limits: RideThrough = LIMITS, *, idle: float = 0.0) -> RideThroughAccount:
    """One whose clock has started at 0 s, within its cap."""
    made = RideThroughAccount(limits=limits, idle_watts=idle)
    made.observe(draw_watts=0.0, cap_watts=1_000.0, now=0.0)
    return made


def test_the_default_energy_is_the_whole_site_for_the_whole_time() -> None:
    """12 kW × 5 s; another figure where one is named, also none at all."""
    assert RideThrough.for_site(max_site_watts=12_000).joules == 60_000
    assert RideThrough.for_site(max_site_watts=12_000, seconds=2, joules=7).joules == 7
    assert RideThrough.for_site(max_site_watts=12_000, joules=0.0).joules == 0


def test_the_first_observation_only_starts_the_clock() -> None:
    """There is no time before it to account for."""
    made = RideThroughAccount(limits=LIMITS)
    made.observe(draw_watts=5_000, cap_watts=0, now=77.0)
    assert (made.exceeded_seconds, made.joules_left, made.episodes) == (0, 10_000, 1)


def test_time_above_the_cap_within_the_ride_through_is_not_exceeded() -> None:
    """1 kW above for exactly five seconds uses half of the energy."""
    made = account()
    made.observe(draw_watts=2_000, cap_watts=1_000, now=5.0)
    assert made.exceeded_seconds == 0
    assert made.joules_left == 5_000
    assert made.is_in_episode
    assert account().episode_at is None


def test_time_beyond_the_ride_through_is_exceeded() -> None:
    """1 kW above for eight seconds: three too many, in however many steps it is seen."""
    once, often = account(), account()
    once.observe(draw_watts=2_000, cap_watts=1_000, now=8.0)
    for tenth in range(1, 81):
        often.observe(draw_watts=2_000, cap_watts=1_000, now=tenth / 10)
    assert once.exceeded_seconds == pytest.approx(3.0)
    assert often.exceeded_seconds == pytest.approx(3.0)


def test_energy_beyond_what_the_battery_carries_is_exceeded() -> None:
    """5 kW above uses 10 kJ in two seconds: of four, two are too many though the time is not up."""
    made = account()
    made.observe(draw_watts=6_000, cap_watts=1_000, now=4.0)
    assert made.exceeded_seconds == pytest.approx(2.0)
    assert made.joules_left == 0


def test_a_further_fall_does_not_restart_an_episode() -> None:
    """Five seconds from the first excess, whatever the cap does meanwhile."""
    made = account(RideThrough(seconds=5.0, joules=1e9))
    made.observe(draw_watts=2_000, cap_watts=1_000, now=4.0)
    made.observe(draw_watts=2_000, cap_watts=500, now=8.0)
    assert made.exceeded_seconds == pytest.approx(3.0)
    assert made.episodes == 1
    assert made.episode_at == 0.0


def test_a_short_dip_below_the_cap_does_not_end_an_episode() -> None:
    """Within the cap for less than the recovery time: the clock of the episode goes on."""
    made = account(RideThrough(seconds=5.0, joules=1e9, recovery_seconds=5.0))
    made.observe(draw_watts=2_000, cap_watts=1_000, now=4.0)
    made.observe(draw_watts=900, cap_watts=1_000, now=8.9)
    assert made.is_in_episode
    made.observe(draw_watts=2_000, cap_watts=1_000, now=9.9)
    assert made.exceeded_seconds == pytest.approx(1.0)
    assert made.episodes == 1


def test_an_episode_ends_when_the_draw_has_stayed_within_the_cap() -> None:
    """After five seconds at the cap the next excess has the whole time again."""
    made = account(RideThrough(seconds=5.0, joules=1e9, recovery_seconds=5.0))
    made.observe(draw_watts=2_000, cap_watts=1_000, now=5.0)
    made.observe(draw_watts=1_000, cap_watts=1_000, now=10.0)
    assert not made.is_in_episode
    made.observe(draw_watts=2_000, cap_watts=1_000, now=15.0)
    assert made.exceeded_seconds == 0
    assert made.episodes == 2


def test_energy_refills_only_by_what_is_left_below_the_cap() -> None:
    """Time alone refills nothing, and it never holds more than the whole."""
    made = account()
    made.observe(draw_watts=3_000, cap_watts=1_000, now=4.0)
    assert made.joules_left == 2_000
    made.observe(draw_watts=1_000, cap_watts=1_000, now=100.0)
    assert made.joules_left == 2_000
    made.observe(draw_watts=500, cap_watts=1_000, now=102.0)
    assert made.joules_left == 3_000
    made.observe(draw_watts=0, cap_watts=1_000, now=1_000.0)
    assert made.joules_left == 10_000


def test_what_is_empty_gets_no_emptier() -> None:
    """After an hour above the cap as much as it holds fills it again; until then all of that hour counts."""
    made = account(RideThrough(seconds=math.inf, joules=10_000.0))
    for second in range(3_600):
        made.observe(draw_watts=1_000, cap_watts=0, now=second + 1.0)
    assert made.exceeded_seconds == pytest.approx(3_590.0)
    made.observe(draw_watts=0, cap_watts=1_000, now=3_604.0)
    assert made.joules_left == 4_000
    made.observe(draw_watts=1_000, cap_watts=0, now=3_610.0)
    assert made.exceeded_seconds == pytest.approx(3_592.0)


def test_time_above_a_cap_below_idle_is_shown_apart_as_well() -> None:
    """With every engine stopped nothing more could be done; it counts all the same."""
    made = account(RideThrough(seconds=1.0, joules=1e9), idle=800.0)
    made.observe(draw_watts=900, cap_watts=500, now=3.0)
    made.observe(draw_watts=1_900, cap_watts=800, now=4.0)
    assert made.exceeded_seconds == pytest.approx(3.0)
    assert made.below_idle_seconds == pytest.approx(2.0)


def test_a_clock_that_steps_back_adds_nothing() -> None:
    """Neither then nor when it has caught up."""
    made = account(RideThrough(seconds=0.0, joules=1e9))
    made.observe(draw_watts=2_000, cap_watts=1_000, now=4.0)
    made.observe(draw_watts=2_000, cap_watts=1_000, now=1.0)
    made.observe(draw_watts=2_000, cap_watts=1_000, now=4.0)
    assert made.exceeded_seconds == pytest.approx(4.0)


def test_the_time_left_is_the_lesser_of_clock_and_energy() -> None:
    """10 kJ carry 4 kW for two and a half seconds, 1 kW for the whole five."""
    made = account()
    assert made.seconds_left(0.0) == 5.0
    assert made.seconds_left(0.0, excess_watts=4_000) == 2.5
    assert made.seconds_left(0.0, excess_watts=1_000) == 5.0
    made.observe(draw_watts=2_000, cap_watts=1_000, now=3.0)
    assert made.seconds_left(3.0) == 2.0
    assert made.seconds_left(4.0) == 1.0
    assert made.seconds_left(9.0) == 0.0
    assert made.seconds_left(3.0, excess_watts=7_000) == 1.0


steps = st.lists(
    st.tuples(st.floats(0.01, 8), st.floats(0, 5_000), st.floats(0, 5_000)), min_size=1, max_size=40
)


def run(made: RideThroughAccount, taken: list[tuple[float, float, float]]) -> float:
    """The seconds above the cap, whatever the ride-through says."""
    now, above = 0.0, 0.0
    for elapsed, draw, cap in taken:
        now += elapsed
        made.observe(draw_watts=draw, cap_watts=cap, now=now)
        above += elapsed if draw > cap else 0.0
    return above


@given(taken=steps)
def test_a_draw_that_keeps_its_cap_is_never_counted(taken: list[tuple[float, float, float]]) -> None:
    """No episode, no exceeded time, all the energy."""
    made = account()
    run(made, [(elapsed, min(draw, cap), cap) for elapsed, draw, cap in taken])
    assert (made.exceeded_seconds, made.below_idle_seconds, made.episodes) == (0, 0, 0)
    assert made.joules_left == 10_000
    assert made.seconds_left(1e9) == 5.0


@given(taken=steps, idle=st.floats(0, 5_000))
def test_exceeded_time_is_part_of_the_time_above_the_cap(
    taken: list[tuple[float, float, float]], idle: float
) -> None:
    """And what is below idle is a part of that; energy left stays between nothing and the whole."""
    made = account(idle=idle)
    above = run(made, taken)
    assert 0 <= made.below_idle_seconds <= made.exceeded_seconds <= above + 1e-9
    assert 0 <= made.joules_left <= 10_000


@given(taken=steps)
def test_without_any_ride_through_all_time_above_the_cap_is_exceeded(
    taken: list[tuple[float, float, float]],
) -> None:
    """No seconds allowed, or no energy: either alone is enough."""
    for limits in (RideThrough(seconds=0.0, joules=math.inf), RideThrough(seconds=math.inf, joules=0.0)):
        made = account(limits)
        above = run(made, [(elapsed, max(draw, cap), cap) for elapsed, draw, cap in taken])
        assert made.exceeded_seconds == pytest.approx(above, abs=1e-6)


@given(taken=steps)
def test_a_longer_ride_through_never_counts_more(taken: list[tuple[float, float, float]]) -> None:
    """More seconds or more joules can only help."""
    base, longer, larger = account(), account(), account()
    longer.limits = RideThrough(seconds=9.0, joules=10_000.0)
    larger.limits = RideThrough(seconds=5.0, joules=20_000.0)
    for made in (base, longer, larger):
        run(made, taken)
    assert longer.exceeded_seconds <= base.exceeded_seconds + 1e-9
    assert larger.exceeded_seconds <= base.exceeded_seconds + 1e-9


@given(taken=steps)
def test_the_account_agrees_with_the_definition_taken_in_small_steps(
    taken: list[tuple[float, float, float]],
) -> None:
    """A second reading of DESIGN §7, each stretch above the cap cut at the earlier limit."""
    made = account()
    run(made, taken)
    now, joules, exceeded = 0.0, 0.0, 0.0
    episode_at: float | None = None
    within_at: float | None = None
    for elapsed, draw, cap in taken:
        start, now = now, now + elapsed
        if draw <= cap:
            within_at = start if within_at is None else within_at
            if now - within_at >= 5.0:
                episode_at = None
            joules = max(0.0, joules - (cap - draw) * elapsed)
            continue
        within_at = None
        episode_at = start if episode_at is None else episode_at
        until_time = episode_at + 5.0
        until_energy = start + (10_000.0 - joules) / (draw - cap)
        exceeded += max(0.0, now - max(start, min(until_time, until_energy)))
        joules = min(10_000.0, joules + (draw - cap) * elapsed)
    assert made.exceeded_seconds == pytest.approx(exceeded, abs=1e-6)
