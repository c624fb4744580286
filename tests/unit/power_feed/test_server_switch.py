"""When a server goes off and on."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

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
    """Also when it says nothing at all."""
    switch = ServerSwitch()
    assert switch.decide(view(0.0, report_state="serving", heard_at=1.0), 0.0) is None
    assert switch.decide(view(0.0, report_state="serving", heard_at=5.0), 5.0) is None
    assert switch.decide(view(0.0, report_state="serving", heard_at=5.0), 5.1) == "off"
    assert ServerSwitch().decide(view(0.0, is_on=None), 0.0) is None


def test_a_server_that_boots_goes_off_at_once() -> None:
    """Nothing runs on it yet: no ride-through is spent on it."""
    switch = off_at(100.0)
    assert switch.decide(view(1000.0, is_on=False), 400.0) == "on"
    assert switch.decide(view(1000.0, heard_at=90.0, report_state="dark"), 401.0) is None
    assert switch.decide(view(0.0, heard_at=90.0, report_state="dark"), 410.0) == "off"


def test_a_grant_that_comes_back_in_time_leaves_it_on() -> None:
    """The time without a grant starts anew."""
    switch = ServerSwitch()
    switch.decide(view(0.0), 0.0)
    switch.decide(view(1000.0), 4.0)
    assert switch.decide(view(0.0), 5.0) is None
    assert switch.decide(view(0.0), 9.0) is None
    assert switch.decide(view(0.0), 10.1) == "off"


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
