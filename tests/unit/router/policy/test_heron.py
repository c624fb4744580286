"""Plan, live signals, forecast: who gets more of the requests, and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.views import FEATURES, candidate, info, outlook, snapshot_of, view

from fleet.records import InstanceReport
from fleet.request import ClassSlo
from router.policy.candidate import Candidate
from router.policy.plan_view import PlanView
from router.policy.policies import make_policy
from router.policy.snapshot import NOTHING_KNOWN, Freshness, Snapshot

LIVE = {"ttft_seconds_p50": 0.5, "itl_seconds_p50": 0.02, "prefill_tokens_per_second": 1000.0}
LONG = FEATURES._replace(prompt_tokens=1000, expected_output_tokens=1000)
"""1 s of prefill and 20 s of decode."""


def weights(
    candidates: list[Candidate], context: Snapshot = NOTHING_KNOWN, now: float = 100.0, **parameters: Any
) -> list[float]:
    policy = make_policy("heron", parameters)
    return list(policy.weigh(candidates, LONG, context, turn=0, now=now))


def shares(*arguments: Any, **parameters: Any) -> list[float]:
    got = weights(*arguments, **parameters)
    return [round(weight / sum(got), 3) for weight in got]


def powered(*candidates: Candidate, draw: float = 3000.0, **outlooks: Any) -> Snapshot:
    """Sites that draw so much, each with its own farm and its outlook."""
    context = snapshot_of(
        candidates,
        **{
            one.view.site_id: {
                "draw_watts": draw,
                "info": info(one.view.site_id, farm_id=f"farm-{one.view.site_id}"),
            }
            for one in candidates
        },
    )
    for points in outlooks.values():
        context = context.with_power(points)
    return context


def test_with_nothing_known_room_decides():
    """As `least_loaded`; stale sites get a quarter."""
    two = [candidate("a", 10.0), candidate("b", 40.0)]
    assert shares(two) == [0.2, 0.8]
    assert shares(two, room_exponent=2) == [0.059, 0.941]
    stale = [candidate("a", 10.0), candidate("b", 10.0, Freshness.STALE)]
    assert shares(stale) == [0.8, 0.2]


def test_the_faster_site_gets_more_and_an_unknown_time_is_the_mean():
    """21 s, 41 s, and 31 s for the one that says nothing."""
    slow = LIVE | {"itl_seconds_p50": 0.04}
    three = [candidate("a", **LIVE), candidate("b", **slow), candidate("c")]
    a, b, c = weights(three, time_exponent=1, first_token_weight=0)
    assert a / b == pytest.approx(41.0 / 21.0)
    assert a / c == pytest.approx(31.0 / 21.0)


def test_prompts_sent_before_and_the_round_trip_count():
    """Ten prompts of a second each are ten seconds more, until they are read; a clock that jumps forgets."""
    busy, far, free = (candidate(name, **LIVE) for name in "abc")
    far.load.round_trip_seconds = 10.0
    policy = make_policy("heron", {"time_exponent": 1, "first_token_weight": 0})

    def weigh(now: float) -> list[float]:
        return list(policy.weigh([busy, far, free], LONG, NOTHING_KNOWN, turn=0, now=now))

    a, b, c = weigh(100.0)
    assert a == c
    for _ in range(10):
        policy.sent(busy.view, LONG, 100.0)
    a, b, c = weigh(100.0)
    assert a == pytest.approx(b)
    assert c / a == pytest.approx(31.0 / 21.0)
    assert weigh(110.0)[0] == c
    policy.sent(busy.view, LONG, 5.0)
    assert weigh(5.0)[0] == pytest.approx(c * 21.0 / 22.0)


def test_a_second_before_the_first_token_counts_more():
    """Two sites that end at the same time: the one that begins sooner."""
    soon = candidate("a", ttft_seconds_p50=1.0, itl_seconds_p50=0.02)
    late = candidate("b", ttft_seconds_p50=11.0, itl_seconds_p50=0.01)
    assert shares([soon, late], first_token_weight=0) == [0.5, 0.5]
    assert shares([soon, late])[0] > 0.9


def test_room_counts_as_far_as_the_engines_sustain_it():
    """Two instances at 800 MHz end fewer requests than at 1,980, whatever room they say; unknown ones are
    taken at their word."""

    def instances(clock: int) -> tuple[InstanceReport, ...]:
        return tuple(
            InstanceReport(instance_id=f"i-{n}", state="ready", tensor_parallel_degree=4, gpu_clock_mhz=clock)
            for n in range(2)
        )

    def configurations(name: str) -> dict[str, Any]:
        profile = "llama-3.1-70b/h100/tp4"
        known = [
            {"model": "m", "tensor_parallel_degree": 4, "gpu_clock_mhz": clock, "profile_id": profile}
            for clock in (800, 1980)
        ]
        return {"info": info(name, configurations=known if name != "c" else [])}

    busy = LIVE | {"running_requests": 40, "capacity_requests": 600.0, "ready_instances": 2}
    three = [
        candidate("a", 500.0, instances=instances(800), **busy),
        candidate("b", 500.0, instances=instances(1980), **busy),
        candidate("c", 500.0, instances=instances(800), **busy),
    ]
    context = snapshot_of(three, **{name: configurations(name) for name in "abc"})
    a, b, c = weights(three, context)
    assert a < b <= c
    assert shares(three, context, capacity=False) == [0.333, 0.333, 0.333]


def test_a_site_whose_power_will_not_last_gets_less():
    """Both draw 3 kW now; the one that may be left with nothing in 20 s loses, and only with the forecast."""
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    steady = outlook("a", 5000.0, (60.0, 5000.0, 5000.0, 5000.0))
    falling = outlook("b", 5000.0, (10.0, 0.0, 0.0, 5000.0), (60.0, 0.0, 0.0, 5000.0))
    context = powered(*two, a=steady, b=falling)
    assert shares(two, context)[1] < 0.1
    assert shares(two, context, forecast=False) == [0.5, 0.5]


def test_a_shallow_fall_slows_and_does_not_break():
    """Clocks can follow it: the site still gets its part, a smaller one."""
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    shallow = outlook("b", 5000.0, (10.0, 2000.0, 2000.0, 2000.0))
    part = shares(two, powered(*two, a=outlook("a", 5000.0), b=shallow))[1]
    assert 0.1 < part < 0.4


def test_a_short_answer_ends_before_the_fall():
    """The same fall is no matter for what is over within the ride-through."""
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    falling = outlook("b", 5000.0, (30.0, 0.0, 0.0, 0.0))
    context = powered(*two, a=outlook("a", 5000.0), b=falling)
    policy = make_policy("heron")
    a, b = policy.weigh(two, FEATURES, context, turn=0, now=100.0)
    assert a == pytest.approx(b)


def test_without_a_forecast_the_grant_of_now_counts():
    """A grant that has just fallen below what the site needs, before its own report says so."""
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    context = powered(*two, a=outlook("a", 5000.0), b=outlook("b", 100.0))
    assert shares(two, context)[1] < 0.1


def test_unknown_power_is_neither_none_nor_plenty():
    """No reading, or one that is too old: as the others."""
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    assert shares(two, powered(*two, a=outlook("a", 5000.0))) == [0.5, 0.5]
    old = outlook("b", 0.0, arrived_at=0.0)
    assert shares(two, powered(*two, a=outlook("a", 5000.0), b=old)) == [0.5, 0.5]


def test_the_plan_is_a_prior_that_live_figures_correct():
    """A site that it leaves out is not lost, and one without room does not get its fraction."""
    plan = PlanView(epoch=1, valid_until_at=200.0, weights={"m": {"SS": {"a": 0.9, "b": 0.1}}})
    context = Snapshot(plan=plan)
    even = [candidate("a"), candidate("b"), candidate("c")]
    a, b, c = weights(even, context)
    assert a > b > c > 0
    assert shares([candidate("a", 2.0), candidate("b", 60.0)], context)[1] > 0.9
    assert shares(even, context, now=201.0) == [0.333, 0.333, 0.333]
    assert shares(even, context, plan_exponent=0) == [0.333, 0.333, 0.333]


def test_a_farm_that_is_short_of_power_packs():
    """Its fullest site gets most of what is the farm's; the other farm's part stays as it is."""
    three = [
        candidate("a", running_requests=2),
        candidate("b", running_requests=9),
        candidate("c", running_requests=0),
    ]
    context = snapshot_of(
        three, a={"info": info("a")}, b={"info": info("b")}, c={"info": info("c", farm_id="other")}
    )
    for site_id in "abc":
        context = context.with_power(outlook(site_id, 1500.0))
    assert shares(three, context) == [0.133, 0.533, 0.333]
    assert shares(three, context, packing=0) == [0.333, 0.333, 0.333]
    for site_id in "abc":
        context = context.with_power(outlook(site_id, 6000.0))
    assert shares(three, context) == [0.333, 0.333, 0.333]


def test_packing_fills_no_site_whose_power_goes():
    """The fuller of a farm's two has nothing left in ten seconds, by every quantile."""
    two = [candidate("a", running_requests=2, **LIVE), candidate("b", running_requests=9, **LIVE)]
    context = snapshot_of(
        two, **{name: {"draw_watts": 1000.0, "info": info(name)} for name in ("a", "b")}
    ).with_power(outlook("a", 1500.0))
    assert shares(two, context.with_power(outlook("b", 1500.0)))[1] > 0.5
    falling = outlook("b", 1500.0, (10.0, 0.0, 0.0, 0.0), (60.0, 0.0, 0.0, 0.0))
    assert shares(two, context.with_power(falling))[1] < 0.01


def test_a_newer_record_is_worked_out_anew():
    """What is remembered is of one report and one reading."""
    policy = make_policy("heron")
    two = [candidate("a", **LIVE), candidate("b", **LIVE)]
    even = policy.weigh(two, LONG, NOTHING_KNOWN, turn=0, now=100.0)
    slower = [two[0], candidate("b", **(LIVE | {"itl_seconds_p50": 0.2}))]
    later = policy.weigh(slower, LONG, NOTHING_KNOWN, turn=1, now=101.0)
    assert even[0] == even[1]
    assert later[0] > 10 * later[1]


def test_what_is_remembered_is_bounded_whatever_models_sites_name():
    """A site may name any model; so may a thousand of them, one after the other."""
    policy: Any = make_policy("heron")
    for number in range(1000):
        two = [candidate("a", model=f"m{number}"), candidate("b", model=f"m{number}")]
        features = LONG._replace(model=f"m{number}")
        policy.weigh(two, features, NOTHING_KNOWN, turn=0, now=100.0)
    assert len(policy._forecasts) <= 256


SLO = ClassSlo(ttft_seconds=5.0, e2e_seconds=100.0)
CONFIGURATION = {
    "model": "m",
    "tensor_parallel_degree": 4,
    "gpu_clock_mhz": 1980,
    "profile_id": "llama-3.1-70b/h100/tp4",
}
READY = InstanceReport(instance_id="i", state="ready", tensor_parallel_degree=4, gpu_clock_mhz=1980)
PROMISED = FEATURES._replace(prompt_tokens=1000, expected_output_tokens=200, slo=SLO)


def known_sites(*names: str) -> tuple[list[Candidate], Snapshot]:
    """Sites of one 70B instance each, whose profile is known."""
    found = [
        candidate(name, 100.0, instances=(READY,), capacity_requests=64.0, running_requests=0.0)
        for name in names
    ]
    infos = {name: {"info": info(name, configurations=[CONFIGURATION])} for name in names}
    return found, snapshot_of(found, **infos)


def test_beyond_what_a_site_sustains_within_the_slo_a_request_waits():
    """Not for want of room: it would be late, and make others late."""
    found, context = known_sites("a", "b")
    policy = make_policy("heron", {"burst_seconds": 0.5})
    sent = {"a": 0, "b": 0}
    for number in range(200):
        got = policy.weigh(found, PROMISED, context, turn=number, now=100.0)
        if not sum(got):
            break
        one = found[max((0, 1), key=got.__getitem__)].view
        sent[one.site_id] += 1
        policy.sent(one, PROMISED, 100.0)
    assert 2 <= min(sent.values()) <= max(sent.values()) <= 20
    assert sum(policy.weigh(found, PROMISED, context, turn=0, now=101.0)) > 0, "a second later there is time"


def test_without_an_slo_or_without_triage_nobody_waits():
    """`[router.slo]` is what asks for it; flex is not promised anything."""
    found, context = known_sites("a")
    for parameters, features in (
        ({}, PROMISED._replace(slo=None)),
        ({}, PROMISED._replace(tier="flex")),
        ({"burst_seconds": 0}, PROMISED),
    ):
        policy = make_policy("heron", parameters)
        for _ in range(200):
            assert policy.weigh(found, features, context, turn=0, now=100.0)[0] > 0
            policy.sent(found[0].view, features, 100.0)


def test_a_site_where_it_cannot_be_in_time_is_left_out_and_one_that_nobody_knows_is_not():
    """A round trip longer than the whole SLO; and a site without a profile."""
    found, context = known_sites("far", "near")
    found.append(candidate("unknown", 100.0))
    found[0].load.round_trip_seconds = 6.0
    policy = make_policy("heron")
    far, near, unknown = policy.weigh(found, PROMISED, context, turn=0, now=100.0)
    assert far == 0.0
    assert near > 0.0
    assert unknown > 0.0


def test_dear_requests_wait_before_cheap_ones():
    """A long prompt with a long answer takes a site many times as long."""
    found, context = known_sites("a")
    policy = make_policy("heron", {"burst_seconds": 0.5})
    dear = PROMISED._replace(prompt_tokens=6000, expected_output_tokens=800)
    cheap = PROMISED._replace(prompt_tokens=200, expected_output_tokens=50)
    for number in range(400):
        for features in (dear, cheap):
            policy.weigh(found, features, context, turn=number, now=100.0)
    while sum(policy.weigh(found, dear, context, turn=0, now=100.0)):
        policy.sent(found[0].view, dear, 100.0)
    assert sum(policy.weigh(found, cheap, context, turn=0, now=100.0)) > 0


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 8000), st.integers(1, 900)), max_size=60),
    st.lists(st.tuples(st.integers(1, 8000), st.integers(1, 900), st.floats(0, 2)), max_size=8),
)
@settings(deadline=None, max_examples=50)
def test_who_is_said_to_wait_still_would_if_it_were_looked_at(
    before: list[tuple[str, int, int]], asked: list[tuple[int, int, float]]
):
    """Whatever went where, for requests of any size at any later time, asked twice; and the reverse, as both
    sites are known."""
    found, context = known_sites("a", "b")
    views = tuple(one.view for one in found)
    policy = make_policy("heron", {"burst_seconds": 0.3})
    policy.weigh(found, PROMISED, context, turn=0, now=100.0)
    for site_id, prompt, output in before:
        features = PROMISED._replace(prompt_tokens=prompt, expected_output_tokens=output)
        policy.sent(found["ab".index(site_id)].view, features, 100.0)
    policy.is_again = True
    for prompt, output, later in asked:
        features = PROMISED._replace(prompt_tokens=prompt, expected_output_tokens=output)
        for now in (100.0 + later, 100.0):
            looked_at = sum(policy.weigh(found, features, context, turn=0, now=now)) == 0.0
            assert policy.is_shut(views, features, now) == looked_at


def test_who_waits_is_looked_at_properly_only_where_that_may_help():
    """Shut while every serving site is, by the same records; open once one has time."""
    found, context = known_sites("a", "b")
    views = [one.view for one in found]
    policy = make_policy("heron", {"burst_seconds": 0.5})
    assert not policy.is_shut(views, PROMISED, 100.0), "nothing is worked out yet"
    while sum(got := policy.weigh(found, PROMISED, context, turn=0, now=100.0)):
        policy.sent(found[got[1] > got[0]].view, PROMISED, 100.0)
    assert policy.is_shut(views, PROMISED, 100.0)
    dark = view("c", state="dark")
    assert policy.is_shut([*views, dark], PROMISED, 100.0)
    assert not policy.is_shut([*views, view("c")], PROMISED, 100.0), "nobody asked about that one yet"
    assert not policy.is_shut([dark], PROMISED, 100.0), "that is no power, and not the policy's choice"
    assert not policy.is_shut(views, PROMISED._replace(slo=None), 100.0)
    assert not policy.is_shut(views, PROMISED, 101.0), "a second later there is time"
