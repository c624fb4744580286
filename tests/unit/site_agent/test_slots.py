"""Who comes in, where, how many more, and why not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.seats import ready_instances

from fleet.instance import InstanceState
from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from site_agent.instance import Instance
from site_agent.limits import Limits, MeanWork, limits_of
from site_agent.slots import Ask, Pushback, Slots, Ticket

NEW, RESUME = Ask(), Ask(is_resume=True)


def site(
    count: int = 2, max_concurrency: int = 4, reserve: float = 0.0, limits: Limits | None = None
) -> Slots:
    return Slots(
        seats=ready_instances(count),
        limits=limits or Limits(max_concurrency=max_concurrency),
        resume_reserve_ratio=reserve,
        start_seconds=2.0,
    )


def fill(slots: Slots, instance_id: str, count: int, ask: Ask = NEW) -> list[Ticket]:
    return [slots.enter(instance_id, ask) for _ in range(count)]


def chosen(slots: Slots, ask: Ask = NEW, tried: tuple[str, ...] = ()) -> str:
    """The instance's id, or the reason."""
    found = slots.choose(ask, tried)
    return found.reason if isinstance(found, Pushback) else found.instance_id


# Slots and the reserve


def test_headroom_is_what_is_free_less_the_reserve() -> None:
    """A tenth of eight is rounded up to one."""
    slots = site(reserve=0.1)
    assert (slots.slots(), slots.reserve(), slots.headroom()) == (8, 1, 7)
    tickets = fill(slots, "i0", 3)
    assert slots.headroom() == 4
    for ticket in tickets:
        slots.leave(ticket)
    assert (slots.headroom(), slots.total_in_flight) == (7, 0)


def test_the_reserve_never_takes_the_last_slot() -> None:
    """A site with one slot still serves new requests."""
    assert site(count=1, max_concurrency=1, reserve=0.5).headroom() == 1


def test_a_question_about_a_stream_that_goes_on_there_comes_in_while_it_drains() -> None:
    """Else the stream, which is let finish, could not be told to its client."""
    slots = site(count=1)
    [instance] = slots.seats
    question = Ask(is_resume=True, takes_slot=False)
    instance.state = InstanceState.DRAINING
    assert chosen(slots, question) == "i0"
    slots.is_closed = True
    assert chosen(slots, question) == "i0"
    assert chosen(slots, Ask(takes_slot=False)) == "draining"
    assert chosen(slots, RESUME) == "draining"
    instance.state = InstanceState.STOPPED
    assert chosen(slots, question) == "draining"


def test_draining_instances_take_nothing_and_keep_what_they_have() -> None:
    """Their slots count no more."""
    slots = site()
    fill(slots, "i0", 2)
    slots.seats[0].move(InstanceState.DRAINING, 1.0)
    assert (slots.headroom(), slots.running("i0"), chosen(slots)) == (4, 2, "i1")


def test_an_instance_that_is_being_stopped_is_not_chosen() -> None:
    """Its engine has failed, whatever its state says."""
    slots = site()
    slots.seats[0].is_stopping = True
    assert {chosen(slots) for _ in range(3)} == {"i1"}


@pytest.mark.parametrize(
    ("is_closed", "is_short", "states", "reason"),
    [
        (True, False, [], "draining"),
        (False, True, [InstanceState.DRAINING], "draining"),
        (False, True, [InstanceState.DRAINING, InstanceState.STOPPED], "power"),
        (False, False, [InstanceState.DRAINING, InstanceState.STOPPED], "capacity"),
    ],
)
def test_a_pushback_says_why(
    is_closed: bool, is_short: bool, states: list[InstanceState], reason: str
) -> None:
    """Routers treat the reasons differently."""
    slots = site(count=1)
    for state in states:
        slots.seats[0].move(state, 1.0)
    slots.is_closed, slots.is_short_of_power = is_closed, is_short
    found = slots.choose(NEW)
    assert isinstance(found, Pushback)
    assert found.reason == reason
    assert found.retry_after_seconds > 0
    assert slots.headroom() == 0


def test_a_full_site_lets_a_resume_in_only_from_the_reserve() -> None:
    """And when that is gone too, nothing."""
    slots = site(count=1, max_concurrency=4, reserve=0.25)
    fill(slots, "i0", 3)
    assert (chosen(slots), chosen(slots, RESUME)) == ("capacity", "i0")
    fill(slots, "i0", 1)
    assert chosen(slots, RESUME) == "capacity"


def test_an_instance_that_failed_the_request_is_not_asked_again() -> None:
    """When all have, it is over here."""
    assert chosen(site(), tried=("i0",)) == "i1"
    assert chosen(site(), tried=("i0", "i1")) == "capacity"


# Affinity


def test_affinity_is_spread_evenly_and_stays_when_an_instance_goes() -> None:
    """Rendezvous hashing: only the keys of the instance that went move."""
    slots = site(count=3, max_concurrency=100)
    asks = [Ask(affinity=f"session-{number}".encode()) for number in range(300)]
    before = [chosen(slots, ask) for ask in asks]
    assert all(60 < before.count(name) < 140 for name in ("i0", "i1", "i2"))
    slots.seats[2].move(InstanceState.DRAINING, 1.0)
    assert all(chosen(slots, ask) == home for ask, home in zip(asks, before, strict=True) if home != "i2")


def test_a_busy_home_is_left_for_the_same_other_one_every_time() -> None:
    """A quarter of the slots more than the least loaded one: the second has the cache then."""
    slots = site(count=3, max_concurrency=20)
    for number in range(20):
        ask = Ask(affinity=f"session-{number}".encode())
        home = chosen(slots, ask)
        tickets = fill(slots, home, 5)
        assert chosen(slots, ask) == home
        tickets += fill(slots, home, 1)
        second = chosen(slots, ask)
        assert second != home
        tickets += fill(slots, second, 1)
        assert chosen(slots, ask) == second
        for ticket in tickets:
            slots.leave(ticket)


# Power


def test_a_request_that_would_draw_more_than_the_cap_is_pushed_back_for_power() -> None:
    """An empty instance costs 1,300 W at its first request; a busy one nearly nothing at its next."""
    slots = site(limits=limits_of(PROFILE, 1980, max_concurrency=64))
    fill(slots, "i0", 10)
    slots.set_power(cap_watts=5000, expected_watts=4900)
    assert (chosen(slots), chosen(slots, tried=("i0",))) == ("i0", "power")
    slots.set_power(cap_watts=5000, expected_watts=5001)
    assert chosen(slots) == "power"
    assert (chosen(slots, RESUME), slots.headroom()) == ("power", 0)


def test_watts_of_what_has_just_come_in_count_before_any_meter_shows_them() -> None:
    """Else a burst between two turns of the power loop would pass the cap."""
    slots = site(limits=Limits(max_concurrency=4, watts=(100, 200, 300, 400, 500)))
    slots.set_power(cap_watts=1000, expected_watts=800)
    assert slots.headroom() == 2
    tickets = fill(slots, "i0", 1) + fill(slots, "i1", 1)
    assert (chosen(slots), slots.headroom()) == ("power", 0)
    for ticket in tickets:
        slots.leave(ticket)
    assert chosen(slots) == "power", "what leaves is taken off by the next measurement"
    slots.set_power(cap_watts=1000, expected_watts=200)
    assert slots.headroom() == 8


def test_overhead_counts() -> None:
    """100 W at the GPUs are 150 W at the site."""
    slots = site(count=1, limits=Limits(max_concurrency=4, watts=(0, 100, 200, 300, 400)))
    slots.overhead_ratio = 1.5
    slots.set_power(cap_watts=300, expected_watts=0)
    assert slots.headroom() == 2


def test_where_waking_an_empty_instance_is_too_much_a_busy_one_still_has_headroom() -> None:
    """The first request costs 90 W, the second 10: with 100 W it is one and then one more."""
    slots = site(count=3, limits=Limits(max_concurrency=5, watts=(10, 100, 110, 150, 150, 400)))
    slots.set_power(cap_watts=100, expected_watts=0)
    fill(slots, "i0", 1)
    assert slots.headroom() == 1
    assert chosen(slots) == "i0"


def test_without_a_word_on_power_nothing_is_refused_for_it() -> None:
    """Unknown limits nothing."""
    slots = site(limits=Limits(max_concurrency=4, watts=(0, 1e9, 1e9, 1e9, 1e9)))
    assert (chosen(slots), slots.headroom()) == ("i0", 8)


# SLO and KV cache


def test_new_requests_stay_inside_the_slo_and_resumes_need_not() -> None:
    """A stream that was promised goes on, late rather than never."""
    slots = site(count=1, limits=Limits(max_concurrency=8, within_slo=2))
    fill(slots, "i0", 1)
    assert slots.headroom() == 1
    fill(slots, "i0", 1)
    assert (chosen(slots), chosen(slots, RESUME), slots.headroom()) == ("capacity", "i0", 0)


def test_prompts_that_wait_for_prefill_keep_others_out_until_their_first_token() -> None:
    """A long prompt is let in where nothing waits, however long it is."""
    slots = site(count=1, limits=Limits(max_concurrency=8, prefill_tokens=1000))
    long = Ask(prompt_tokens=5000, shows_first_token=True)
    assert chosen(slots, long) == "i0"
    ticket = slots.enter("i0", long)
    assert (chosen(slots, Ask(prompt_tokens=1, shows_first_token=True)), slots.waiting_tokens()) == (
        "capacity",
        0.0,
    )
    slots.begin_decode(ticket)
    assert (chosen(slots, long), slots.waiting_tokens()) == ("i0", 1000.0)
    slots.leave(ticket)
    assert slots.waiting_tokens() == 1000.0


def test_what_will_not_fit_the_kv_cache_is_pushed_back() -> None:
    """Prompt and expected output count in full from the start; an empty engine takes what it is given."""
    slots = site(count=1, limits=Limits(max_concurrency=8, kv_tokens=1000))
    big = Ask(prompt_tokens=700, output_tokens=100)
    assert chosen(slots, Ask(prompt_tokens=5000)) == "i0"
    ticket = slots.enter("i0", big)
    assert (chosen(slots, big), chosen(slots, Ask(prompt_tokens=200))) == ("capacity", "i0")
    slots.mean = MeanWork(prompt_tokens=60, output_tokens=40)
    assert slots.headroom() == 2
    assert chosen(slots, Ask(prompt_tokens=170)) == "capacity", "its output is unknown: the mean is taken"
    slots.leave(ticket)
    assert slots.headroom() == 8


# Always

asks = st.builds(
    Ask,
    is_resume=st.booleans(),
    takes_slot=st.booleans(),
    prompt_tokens=st.floats(0, 500),
    output_tokens=st.none() | st.floats(0, 500),
    shows_first_token=st.booleans(),
)


@given(
    steps=st.lists(st.tuples(asks, st.integers(0, 9), st.floats(-200, 900)), max_size=60),
    limits=st.builds(
        Limits,
        max_concurrency=st.just(5),
        within_slo=st.none() | st.integers(1, 6),
        prefill_tokens=st.none() | st.floats(1, 2000),
        kv_tokens=st.none() | st.floats(1, 2000),
        watts=st.sampled_from([(), (10, 100, 110, 150, 150, 400)]),
    ),
)
def test_what_headroom_promises_comes_in_and_counts_return_to_zero(
    steps: list[tuple[Ask, int, float]], limits: Limits
) -> None:
    """Requests of the mean size come in exactly as often as said, whatever came and went before."""
    slots = site(count=3, limits=limits, reserve=0.1)
    slots.mean = MeanWork(prompt_tokens=20, output_tokens=30)
    mean = Ask(prompt_tokens=20, output_tokens=30, shows_first_token=True)
    tickets: list[Ticket] = []
    for ask, leave, room in steps:
        slots.set_power(cap_watts=room, expected_watts=0)
        if tickets and leave < 4:
            slots.leave(tickets.pop(leave % len(tickets)))
        found = slots.choose(ask)
        if isinstance(found, Instance):
            tickets.append(slots.enter(found.instance_id, ask))
    promised, room = slots.headroom(), slots.choose(mean)
    assert (promised > 0) == isinstance(room, Instance)
    came: list[Ticket] = []
    while isinstance(found := slots.choose(mean), Instance):
        came.append(slots.enter(found.instance_id, mean))
    assert len(came) == promised
    for ticket in tickets + came:
        slots.leave(ticket)
    assert slots.total_in_flight == 0
    assert all(slots.running(f"i{index}") == 0 for index in range(3))
    assert slots.waiting_tokens() in (None, 3 * (limits.prefill_tokens or 0))
