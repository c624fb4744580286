"""When a server goes off and on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from power_feed.allocator import Allocator, SiteClaim
from power_feed.server_switch import HOUR_SECONDS, ServerSwitch, SwitchRule, SwitchView


def view(granted: float, is_on: bool | None = True, **values: object) -> SwitchView:
    return SwitchView(granted_watts=granted, is_on=is_on, **values)  # type: ignore[arg-type]


def test_a_dark_server_without_a_grant_goes_off_at_once() -> None:
    """As soon as its report, written since the grant went, says so."""
    switch = ServerSwitch()
    assert switch.decide(view(0.0, report_state="dark", heard_at=9.0), 10.0) is None
    assert switch.decide(view(0.0, report_state="draining", heard_at=11.0), 11.0) is None
    assert switch.decide(view(0.0, report_state="dark", heard_at=12.0), 12.0) == "off"


def test_after_the_ride_through_it_goes_off_whatever_its_report_says() -> None:
    """At the last look before its end; also when it says nothing at all."""
    switch = ServerSwitch()
    assert switch.decide(view(0.0, report_state="serving", heard_at=1.0), 0.0) is None
    assert switch.decide(view(0.0, report_state="serving", heard_at=4.25), 4.5) is None
    assert switch.decide(view(0.0, report_state="serving", heard_at=4.5), 4.75) == "off"
    assert ServerSwitch().decide(view(0.0, is_on=None), 0.0) is None


def test_a_server_that_boots_goes_off_at_once() -> None:
    """Nothing runs on it yet: no ride-through is spent on it."""
    switch = off_at(100.0)
    assert switch.decide(view(1000.0, is_on=False), 400.0) == "on"
    assert switch.decide(view(1000.0, heard_at=90.0, report_state="dark"), 401.0) is None
    assert switch.decide(view(0.0, heard_at=90.0, report_state="dark"), 410.0) == "off"


def test_a_grant_that_comes_back_in_time_leaves_it_on() -> None:
    """And once it has stayed as long as an agent's ride-through takes to recover, the time starts anew."""
    switch = ServerSwitch()
    switch.decide(view(0.0), 0.0)
    for second in range(4, 9):
        assert switch.decide(view(1000.0), float(second)) is None
    assert switch.decide(view(0.0), 9.0) is None
    assert switch.decide(view(0.0), 13.5) is None
    assert switch.decide(view(0.0), 13.75) == "off"


def test_a_grant_that_comes_back_for_a_moment_begins_no_new_ride_through() -> None:
    """The agent's is spent as well: its server would be over the cap."""
    switch = ServerSwitch()
    switch.decide(view(0.0), 0.0)
    assert switch.decide(view(1000.0), 4.0) is None
    assert switch.decide(view(0.0), 4.5) is None
    assert switch.decide(view(1000.0), 5.5) is None
    assert switch.decide(view(0.0), 8.0) == "off"


def test_a_ride_through_that_began_before_the_grant_was_nothing_ends_earlier() -> None:
    """The power fell in steps: the report says how old it is, and it is counted from when that came."""
    switch = ServerSwitch()
    assert switch.decide(view(900.0, heard_at=9.5, episode_seconds=1.5), 9.5) is None
    assert switch.decide(view(0.0, heard_at=9.5, episode_seconds=1.5), 10.0) is None
    assert switch.decide(view(0.0, heard_at=9.5, episode_seconds=1.5), 12.5) is None
    assert switch.decide(view(0.0, heard_at=9.5, episode_seconds=1.5), 12.75) == "off"


def test_the_word_that_came_fastest_counts() -> None:
    """What a slow report says began later, began no later."""
    switch = ServerSwitch()
    switch.decide(view(0.0, heard_at=10.0, episode_seconds=2.0), 10.0)
    assert switch.decide(view(0.0, heard_at=12.0, episode_seconds=1.0), 12.5) is None
    assert switch.decide(view(0.0, heard_at=12.0, episode_seconds=1.0), 12.75) == "off"


def test_an_episode_of_another_time_shortens_nothing() -> None:
    """Its report came longer before the grant went than an agent takes to recover, or it is none at all."""
    for heard_at, age in ((4.9, 3.0), (11.0, None), (11.0, -3.0), (11.0, float("nan"))):
        switch = ServerSwitch()
        switch.decide(view(0.0, heard_at=heard_at, episode_seconds=age), 10.0)
        assert switch.decide(view(0.0, heard_at=heard_at, episode_seconds=age), 14.5) is None
        assert switch.decide(view(0.0, heard_at=heard_at, episode_seconds=age), 14.75) == "off"


AGES = st.none() | st.floats() | st.floats(0, 20)
LOOKS = st.lists(
    st.tuples(st.sampled_from([0.25, 1.0, 3.0]), st.sampled_from([0.0, 0.0, 900.0]), AGES, st.floats(0, 8)),
    min_size=1,
    max_size=60,
)


@given(LOOKS)
def test_an_episodes_age_only_makes_a_switch_act_earlier_on_a_server_without_a_grant(
    looks: list[tuple[float, float, float | None, float]],
) -> None:
    """Whatever it is and however old: with a grant nothing goes off, without one nothing stays on longer."""
    told, untold, now = ServerSwitch(), ServerSwitch(), 100.0
    for step, granted, age, ago in looks:
        now += step
        by_age = told.decide(view(granted, heard_at=now - ago, episode_seconds=age), now)
        without = untold.decide(view(granted, heard_at=now - ago), now)
        if granted > 0:
            assert by_age is None
        if "off" in (by_age, without):
            assert by_age == "off"
            return


def test_it_is_off_only_once_its_controller_says_so_and_is_told_again_meanwhile() -> None:
    """A command that shows no effect is repeated; what is not known to be off may draw."""
    switch = ServerSwitch()
    switch.decide(view(0.0), 0.0)
    assert switch.decide(view(0.0), 6.0) == "off"
    assert switch.decide(view(0.0), 7.0) is None
    assert not switch.is_off
    assert switch.decide(view(0.0), 16.0) == "off"
    assert switch.decide(view(0.0, is_on=False), 17.0) is None
    assert switch.is_off
    assert switch.decide(view(0.0, is_on=None), 18.0) is None
    assert switch.is_off


def off_at(seconds: float, rule: SwitchRule | None = None) -> ServerSwitch:
    """A server that was switched off, and is off at that moment."""
    switch = ServerSwitch(rule=rule or SwitchRule())
    switch.decide(view(0.0), seconds - 6.0)
    assert switch.decide(view(0.0), seconds - 0.5) == "off"
    assert switch.decide(view(0.0, is_on=False), seconds) is None
    return switch


def test_a_grant_switches_it_on_after_its_rest() -> None:
    """It counts as on from the moment it is told, and as starting until it is heard."""
    switch = off_at(100.0)
    assert switch.decide(view(2000.0, is_on=False), 101.0) is None
    assert switch.decide(view(2000.0, is_on=False), 220.0) == "on"
    booting = view(2000.0, is_on=False)
    assert switch.decide(booting, 221.0) is None
    assert not switch.is_off
    assert switch.is_starting(booting, 221.0)
    assert switch.decide(booting, 230.0) == "on"
    up = view(2000.0, heard_at=300.0, report_state="serving")
    assert switch.decide(up, 300.0) is None
    assert not switch.is_starting(up, 300.0)
    assert not switch.is_starting(view(2000.0), 220.0 + 600.0)


def test_starts_are_bounded_within_an_hour() -> None:
    """Then it stays off, which is within any cap."""
    rule = SwitchRule(min_off_seconds=1.0, max_starts_per_hour=2)
    switch = ServerSwitch(rule=rule)
    on = [0.0]
    for second in range(0, 2000, 10):
        is_on = switch._ordered != "off"
        granted = 0.0 if (second // 10) % 4 < 2 else 2000.0
        if switch.decide(view(granted, is_on=is_on), float(second)) == "on":
            on.append(float(second))
    assert len(on) - 1 == 2
    assert switch.is_off
    assert switch.decide(view(2000.0, is_on=False), on[1] + HOUR_SECONDS + 1) == "on"


def test_where_firm_power_covers_the_idle_draw_nothing_presses() -> None:
    """A short lull costs no start; a long one saves what the server would draw."""
    switch = ServerSwitch()
    lull = view(0.0, is_idle_firm=True, report_state="dark", heard_at=10.0)
    assert switch.decide(lull, 0.0) is None
    assert switch.decide(lull, 299.0) is None
    assert switch.decide(lull, 300.0) == "off"


def test_a_server_that_is_found_off_is_started_without_a_rest() -> None:
    """Somebody else switched it off, or it was off when the feed came up."""
    switch = ServerSwitch()
    assert switch.decide(view(0.0, is_on=False), 0.0) is None
    assert switch.is_off
    assert switch.decide(view(2000.0, is_on=False), 1.0) == "on"


def test_a_server_of_unknown_state_that_gives_no_sign_of_life_is_woken() -> None:
    """The feed was restarted while it was off, and its switch cannot tell: a packet, and more of them."""
    switch = ServerSwitch()
    silent = view(2000.0, is_on=None)
    assert switch.decide(silent, 0.0) is None
    assert switch.decide(silent, 9.0) is None
    assert switch.decide(silent, 10.0) == "on"
    assert switch.decide(silent, 15.0) is None
    assert switch.decide(silent, 20.0) == "on"
    assert switch.state(silent, 21.0).is_starting
    up = view(2000.0, is_on=None, heard_at=90.0)
    assert [switch.decide(up, now) for now in (90.0, 300.0, 689.0)] == [None, None, None]


def test_a_server_that_is_found_on_may_be_booting() -> None:
    """The feed came up with it: it has a start's time to be heard, and no longer; without a grant it goes."""
    switch = ServerSwitch()
    assert switch.decide(view(2000.0), 0.0) is None
    assert switch.state(view(0.0), 599.0).is_unheard
    assert not switch.state(view(0.0, is_on=False), 1.0).is_unheard
    assert not switch.state(view(0.0, heard_at=5.0), 6.0).is_unheard
    assert not switch.state(view(0.0), 600.0).is_unheard
    assert [switch.decide(view(0.0), now) for now in (601.0, 605.0, 607.0)] == [None, None, "off"]


def test_signs_of_life_keep_a_server_of_unknown_state_from_being_told_anything() -> None:
    """A report or an open stream; and it is told again once it was silent for as long as a start takes."""
    switch = ServerSwitch()
    assert switch.decide(view(2000.0, is_on=None, heard_at=1.0), 1.0) is None
    assert switch.decide(view(2000.0, is_on=None, heard_at=1.0), 600.9) is None
    assert switch.decide(view(2000.0, is_on=None, heard_at=1.0, is_listening=True), 700.0) is None
    assert switch.decide(view(2000.0, is_on=None, heard_at=1.0), 700.0) == "on"


def test_without_a_grant_nothing_of_unknown_state_is_woken() -> None:
    """It is told to go off, again and again: what is not known to be off may draw."""
    switch = ServerSwitch()
    commands = [switch.decide(view(0.0, is_on=None), float(now)) for now in range(60)]
    assert set(commands) == {None, "off"}
    assert commands.count("off") == 6


def test_a_server_whose_off_command_failed_is_woken_by_the_next_grant() -> None:
    """It was off already, so nobody was there to obey; its state stays unknown."""
    switch = ServerSwitch()
    switch.decide(view(0.0, is_on=None), 0.0)
    assert switch.decide(view(0.0, is_on=None), 6.0) == "off"
    assert not switch.state(view(2000.0, is_on=None), 10.0).is_lost
    assert switch.decide(view(2000.0, is_on=None), 10.0) is None
    assert switch.state(view(2000.0, is_on=None), 16.0).is_lost
    assert switch.decide(view(2000.0, is_on=None), 16.0) == "on"


def test_a_start_that_comes_to_nothing_is_followed_by_a_longer_rest_each_time() -> None:
    """Ten minutes of packets, then ten of rest, twenty, forty, an hour; a report ends that."""
    switch = ServerSwitch()
    silent = view(2000.0, is_on=None)
    told = [now for now in range(0, 14_000, 10) if switch.decide(silent, float(now)) == "on"]
    starts = [now for last, now in zip([-100, *told], told, strict=False) if now - last > 10]
    assert starts == [10, 1210, 3010, 6010, 10210]
    assert all(any(0 <= now - start < 600 for start in starts) for now in told)
    assert switch.state(silent, 13_000.0).is_resting
    heard = view(2000.0, is_on=None, heard_at=14_500.0)
    assert [switch.decide(silent, 14_410.0), switch.decide(heard, 14_500.0)] == ["on", None]
    assert not switch.state(heard, 14_500.0).is_resting
    again = view(2000.0, is_on=None, heard_at=14_500.0)
    assert switch.decide(again, 15_100.0) == "on"
    assert switch.decide(again, 15_700.0) is None
    assert switch.decide(again, 16_300.0) == "on"


def test_a_start_that_ended_because_the_power_went_has_not_failed() -> None:
    """Gusts: the server is started anew as soon as it is rested, with no wait that grows."""
    switch = off_at(-200.0)
    assert switch.decide(view(2000.0, is_on=False), 0.0) == "on"
    assert switch.decide(view(0.0), 100.0) == "off"
    assert switch.decide(view(0.0, is_on=False), 110.0) is None
    assert switch.decide(view(0.0, is_on=False), 600.0) is None
    assert not switch.state(view(0.0, is_on=False), 600.0).is_resting
    assert switch.decide(view(2000.0, is_on=False), 700.0) == "on"


def test_a_boot_that_takes_longer_than_it_may_is_forgiven_once_it_is_heard() -> None:
    """It counted as failed; its report, or its open stream, says that it came up all the same."""
    for sign in ({"heard_at": 660.0}, {"is_listening": True}):
        switch = off_at(-200.0)
        assert switch.decide(view(2000.0, is_on=False), 0.0) == "on"
        assert switch.decide(view(2000.0), 600.0) is None
        assert switch.state(view(0.0, is_on=None), 601.0).is_resting
        assert switch.decide(view(2000.0, **sign), 660.0) is None
        assert switch.decide(view(0.0), 700.0) is None
        assert switch.decide(view(0.0), 706.0) == "off"
        assert switch.decide(view(0.0, is_on=False), 710.0) is None
        assert switch.decide(view(2000.0, is_on=False), 830.0) == "on"


def test_at_a_farm_of_several_a_restarted_feed_wakes_a_lost_server_and_gives_up_for_a_while() -> None:
    """With the allocator: first its old owner's walk-down must be over; later its power goes to the other."""
    switch, allocator = ServerSwitch(), Allocator(period_seconds=1.0)
    terms = {"min_grant_watts": 1000.0, "max_grant_watts": 5000.0, "idle_watts": 950.0}
    told, grants = [], {}
    for now in [float(second) for second in range(1500)]:
        a = SiteClaim(
            site_id="a",
            is_listening=False,
            server=switch.state(view(0.0, is_on=None), now),
            **terms,  # type: ignore[arg-type]
        )
        b = SiteClaim(site_id="b", heard_at=now, draw_watts=900.0, **terms)  # type: ignore[arg-type]
        grants[now] = allocator.allocate(7000.0, [a, b], now)
        if switch.decide(view(grants[now]["a"], is_on=None), now) == "on":
            told.append(now)
        assert sum(grants[now].values()) <= 7000.0
    assert told[0] <= 45.0
    assert [grants[now]["a"] > 0 for now in (300.0, 900.0, 1400.0)] == [True, False, True]
    assert grants[900.0]["b"] == 5000.0


def test_a_server_that_reports_is_on_whatever_its_switch_says() -> None:
    """Somebody started it by hand, or the switch is another server's; last words do not count."""
    switch = off_at(100.0)
    assert switch.decide(view(0.0, is_on=False, report_state="dark", heard_at=104.0), 104.0) is None
    assert switch.is_off
    assert switch.decide(view(0.0, is_on=False, report_state="serving", heard_at=130.0), 130.0) == "off"
    assert not switch.is_off
    assert switch.decide(view(0.0, is_on=False, heard_at=130.0), 141.0) is None
    assert switch.is_off


def test_a_server_that_reports_while_its_controller_is_away_is_on() -> None:
    """It was off when that was last asked, and came up by itself: it counts, and is told off till it goes."""
    switch = off_at(100.0)
    assert switch.decide(view(0.0, is_on=None, heard_at=104.0), 110.0) is None
    assert switch.is_off
    reports = [
        (now, switch.decide(view(0.0, is_on=None, heard_at=now), now)) for now in (130.0, 135.0, 140.5)
    ]
    assert reports == [(130.0, "off"), (135.0, None), (140.5, "off")]
    assert not switch.is_off
    assert switch.decide(view(0.0, is_on=False, heard_at=140.5), 152.0) is None
    assert switch.is_off


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 2000.0]),
            st.sampled_from([True, False, None]),
            st.sampled_from([None, "serving", "draining", "dark"]),
            st.floats(0.1, 200.0),
        ),
        max_size=200,
    )
)
@settings(deadline=None)
def test_whatever_happens_commands_fit_the_grant_and_starts_are_bounded(
    steps: list[tuple[float, bool | None, str | None, float]],
) -> None:
    """Off only without a grant, on only with one; after the ride-through it is off or was just told to be."""
    switch = ServerSwitch()
    now, emptied_at, told_at = 0.0, None, float("-inf")
    starts: list[float] = []
    last = None
    for granted, is_on, state, wait in steps:
        now += wait
        emptied_at = None if granted > 0 else (now if emptied_at is None else emptied_at)
        command = switch.decide(
            view(granted, is_on, report_state=state, heard_at=None if state is None else now), now
        )
        if command == "on":
            assert granted > 0
            if last != "on":
                starts.append(now)
        if command == "off":
            assert granted == 0
            told_at = now
        last = command or last
        if emptied_at is not None and now - emptied_at > 5.0:
            assert switch.is_off or now - told_at < switch.rule.retry_seconds
    for start in starts:
        assert sum(start <= other < start + HOUR_SECONDS for other in starts) <= 4
