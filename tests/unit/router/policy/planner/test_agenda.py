"""When to plan, and how."""

from __future__ import annotations

from router.policy.planner.agenda import Agenda

MOST = {"a": 7000.0, "b": 7000.0}


def begun(agenda: Agenda, watts: dict[str, float], now: float) -> None:
    """A slow plan is made of this fleet."""
    agenda.look(watts, MOST, now)
    assert agenda.due(now) == "slow"
    agenda.begun("slow", now)


def test_a_new_leader_plans_at_once_and_then_on_the_clock() -> None:
    """Every interval."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0, "b": 5000.0}, 0.0)
    agenda.begun("fast", 890.0)
    assert agenda.due(899.0) is None
    assert agenda.due(900.0) == "slow"


def test_fast_plans_come_every_few_seconds() -> None:
    """Load and power drift; no slow plan follows such a one."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    assert agenda.due(1.0) is None
    agenda.solved("slow")
    assert agenda.due(1.0) == "fast"
    agenda.begun("fast", 1.0)
    assert agenda.due(15.9) is None
    assert agenda.due(16.0) == "fast"
    agenda.begun("fast", 16.0)
    agenda.begun("fast", 100.0)
    assert agenda.due(110.0) is None


def test_a_power_event_is_a_fast_plan_at_once() -> None:
    """A move of 15 % of what the site may draw; less is the slow plan's."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0, "b": 5000.0}, 0.0)
    agenda.begun("fast", 1.0)
    agenda.look({"a": 4000.0, "b": 5000.0}, MOST, 10.0)
    assert agenda.due(10.0) is None
    agenda.look({"a": 3900.0, "b": 5000.0}, MOST, 11.0)
    assert agenda.due(11.0) == "fast"
    agenda.begun("fast", 11.0)
    agenda.look({"a": 3900.0, "b": 5000.0}, MOST, 20.0)
    assert agenda.due(20.0) is None


def test_fast_plans_have_a_pause() -> None:
    """Power that trembles does not make the planner run without end."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.look({"a": 1000.0}, MOST, 10.0)
    agenda.begun("fast", 10.0)
    agenda.look({"a": 5000.0}, MOST, 10.2)
    assert agenda.due(10.2) is None
    assert agenda.due(11.0) == "fast"


def test_a_site_that_comes_or_goes_is_a_slow_plan_once_all_is_quiet() -> None:
    """After it has settled, and not more often than once a minute."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0, "b": 5000.0}, 0.0)
    agenda.begun("fast", 50.0)
    agenda.look({"a": 5000.0}, {"a": 7000.0}, 40.0)
    assert agenda.due(59.0) is None
    assert agenda.due(60.0) == "slow"
    agenda.begun("slow", 60.0)
    agenda.begun("fast", 110.0)
    agenda.look({"a": 5000.0, "b": 5000.0}, MOST, 118.0)
    assert agenda.due(120.0) is None
    assert agenda.due(121.0) == "slow"


def test_a_slow_plan_follows_a_fast_one() -> None:
    """Only it may start what the lost power took; after a pause, for power may move on."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.look({"a": 1000.0}, MOST, 70.0)
    agenda.begun("fast", 70.0)
    assert agenda.due(72.0) is None
    assert agenda.due(73.0) == "slow"


def test_more_load_than_was_planned_for_is_a_slow_plan() -> None:
    """Engines that the last plan stopped must start again; within a tenth nothing happens."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.planned_for(10.0)
    agenda.begun("fast", 105.0)
    agenda.look_at_load(11.4, 100.0)
    assert agenda.due(110.0) is None
    agenda.look_at_load(11.6, 115.0)
    agenda.look_at_load(40.0, 117.0)
    assert agenda.due(118.0) == "slow"


def test_a_failed_plan_is_tried_again_after_a_pause() -> None:
    """Not at once: what failed would fail again."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.failed("slow", 5.0)
    assert agenda.due(34.0) is None
    assert agenda.due(35.0) == "slow"


def test_a_slow_plan_is_followed_by_a_fast_one() -> None:
    """It was made of an older power, and of what is to run; what runs gets the load."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.begun("fast", 2.0)
    agenda.solved("fast")
    assert agenda.due(4.0) is None
    agenda.solved("slow")
    assert agenda.due(4.0) == "fast"


def test_a_clock_that_jumps_back_makes_a_new_plan() -> None:
    """It cannot be told how old the last one is."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 1000.0)
    assert agenda.due(10.0) == "slow"


def test_a_site_whose_power_becomes_known_is_no_power_event() -> None:
    """There is nothing that it moved from."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    agenda.begun("fast", 1.0)
    agenda.look({"a": 5000.0, "b": 7000.0}, MOST, 5.0)
    assert agenda.due(5.0) is None


def test_the_power_of_a_site_that_cannot_be_planned_for_is_no_event() -> None:
    """It says nothing of its configurations: no plan would use what it gained or lost."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0, "foreign": 3000.0}, 0.0)
    agenda.begun("fast", 1.0)
    agenda.look({"a": 5000.0, "foreign": 0.0}, MOST, 5.0)
    assert agenda.due(5.0) is None


def test_power_that_keeps_moving_does_not_put_the_slow_plan_off() -> None:
    """It waits for the first move to settle, not for the last."""
    agenda = Agenda(interval_seconds=900.0)
    begun(agenda, {"a": 5000.0}, 0.0)
    for power, now in ((1000.0, 70.0), (5000.0, 71.0), (1000.0, 72.0)):
        agenda.look({"a": power}, MOST, now)
        agenda.begun("fast", now)
    assert agenda.due(73.0) == "slow"
