"""Filter, score, pick."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.views import FEATURES, loads, view

from fleet.request import ClassSlo, RequestFeatures
from router.policy.baselines import LeastLoaded
from router.policy.candidate import Candidate
from router.policy.dispatch import FOREVER, NOT_YET, choose, has_other_site
from router.policy.load import Load
from router.policy.parameters import NoParameters
from router.policy.policies import make_policy
from router.policy.snapshot import ModelView


def pick(
    views: Sequence[ModelView],
    known: Mapping[str, Load] | None = None,
    *,
    now: float = 101.0,
    excluded: Mapping[str, int] | None = None,
    is_resume: bool = False,
    reserve_ratio: float = 0.1,
    turn: int = 1,
    may_probe: bool = True,
) -> str | None:
    chosen = choose(
        views,
        known if known is not None else loads(*(one.site_id for one in views)),
        policy=make_policy("least_loaded"),
        features=FEATURES,
        excluded=excluded or {},
        is_resume=is_resume,
        reserve_ratio=reserve_ratio,
        turn=turn,
        now=now,
        rng=random.Random(1),
        may_probe=may_probe,
    )
    assert chosen is not NOT_YET
    return None if chosen is None else chosen.site_id


class Choosy(LeastLoaded):
    """Nothing with an SLO is worth a place."""

    is_choosy = True

    def weigh(
        self, candidates: Sequence[Candidate], features: RequestFeatures, *_: Any, **__: Any
    ) -> Sequence[float]:
        return [float(features.slo is None)] * len(candidates)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_choosy_policy_has_a_request_with_an_slo_wait_and_no_other(names: str):
    """A resume goes on at any cost, and without room there is nothing to choose."""
    promised = FEATURES._replace(slo=ClassSlo(ttft_seconds=1.0))
    views = [view(name) for name in names]

    def chosen(features: RequestFeatures, sites: Sequence[ModelView], *, is_resume: bool = False) -> Any:
        return choose(
            sites,
            loads(*names),
            policy=Choosy(NoParameters()),
            features=features,
            excluded={},
            is_resume=is_resume,
            reserve_ratio=0.0,
            turn=1,
            now=101.0,
            rng=random.Random(1),
        )

    assert chosen(promised, views) is NOT_YET
    assert chosen(promised, views, is_resume=True) in views
    assert chosen(FEATURES, views) in views
    assert chosen(promised, [view("a", headroom_requests=0.0)]) is None


def test_only_serving_sites_are_chosen():
    """Draining, dark, faulted and empty ones are not."""
    views = [
        view("a", state="draining"),
        view("b", state="dark"),
        view("c", state="faulted"),
        view("d", ready_instances=0),
        view("e"),
    ]
    assert pick(views) == "e"


def test_unknown_ready_instances_are_not_zero():
    """A foreign site need not say how many it has."""
    assert pick([view("a", ready_instances=None)]) == "a"


def test_a_full_site_is_not_chosen():
    """Less the reserve for resumes: 2 of 20."""
    assert pick([view("a", headroom_requests=2.0)]) is None
    assert pick([view("a", headroom_requests=3.0)]) == "a"


def test_the_reserve_is_of_what_the_site_can_hold_now():
    """It has 200 slots, but its SLO has room for 8 with 12 running: 2 stay free, not 20."""
    tight = {"capacity_requests": 200.0, "running_requests": 12}
    assert pick([view("a", headroom_requests=8.0, **tight)]) == "a"
    assert pick([view("a", headroom_requests=2.0, **tight)]) == "a"
    assert pick([view("a", headroom_requests=1.0, **tight)]) is None


def test_a_resume_may_use_the_reserve():
    """That is what it is for."""
    assert pick([view("a", headroom_requests=1.0)], is_resume=True) == "a"


def test_a_resume_that_finds_no_room_takes_a_slot_that_sites_keep_for_resumes():
    """Its report leaves them out: no room, and 4 of 100 slots are free."""
    known = loads("a", "b")
    full = view("a", headroom_requests=0.0, capacity_requests=100.0, running_requests=96)
    known["a"].reported(full)
    assert pick([full], known) is None
    for _ in range(4):
        assert pick([full], known, is_resume=True) == "a"
        known["a"].begin()
    assert pick([full], known, is_resume=True) is None
    roomy = view("b", headroom_requests=1.0)
    known["a"].end()
    assert {pick([full, roomy], known, is_resume=True, turn=turn) for turn in range(20)} == {"b"}
    known["a"].pushed_back("power", None, 101.0)
    assert pick([full], known, is_resume=True) is None


def test_in_a_large_fleet_without_fresh_reports_the_site_with_room_is_found():
    """As soon as anybody has heard of it last."""
    names = [f"s{number:03}" for number in range(200)]
    views = [view(name, arrived_at=80.0) for name in names]
    known = loads(*names)
    for name in names[:150] + names[151:]:
        known[name].pushed_back("capacity", 5.0, 101.0)
    assert {pick(views, known, turn=turn) for turn in range(20)} == {"s150"}


def test_an_excluded_site_is_left_out_for_ever_or_until_it_reports_anew():
    """Failed: never again; pushed back: until the next report."""
    assert pick([view("a")], excluded={"a": FOREVER}) is None
    assert pick([view("a", sequence=5)], excluded={"a": 5}) is None
    assert pick([view("a", sequence=6)], excluded={"a": 5}) == "a"


def test_a_site_with_an_open_breaker_is_left_out():
    """Until its probe."""
    known = loads("a", "b")
    for _ in range(3):
        known["a"].breaker.fail(101.0)
    assert pick([view("a"), view("b", headroom_requests=4.0)], known) == "b"
    assert pick([view("a")], known, now=102.5) == "a"


@pytest.mark.parametrize("is_resume", [False, True])
@pytest.mark.parametrize("room", [0.0, 4.0])
def test_a_request_that_met_an_error_is_no_probe(is_resume: bool, room: float):
    """Also where a resume would go to a site that reports no room and has a slot."""
    known = loads("a")
    for _ in range(3):
        known["a"].breaker.fail(101.0)
    views = [view("a", headroom_requests=room, capacity_requests=8.0, running_requests=4.0)]
    has_place = room > 0 or is_resume
    assert pick(views, known, now=102.5, is_resume=is_resume) == ("a" if has_place else None)
    assert pick(views, known, now=102.5, is_resume=is_resume, may_probe=False) is None


def test_an_expired_site_is_used_only_where_no_fresher_one_serves():
    """Even if the fresher one is full: staleness ranks."""
    old, full = view("a", arrived_at=80.0), view("b", headroom_requests=0.0)
    assert pick([old, full]) is None
    assert pick([old, view("b", state="dark")]) == "a"
    assert pick([old]) == "a"


def test_requests_spread_in_proportion_to_room():
    """Evenly: of any few in a row, no site gets much more than its part."""
    views = [view("a", headroom_requests=12.0), view("b", headroom_requests=32.0)]
    known = loads("a", "b")
    picks = [pick(views, known, turn=turn) for turn in range(400)]
    assert 98 <= picks.count("a") <= 102  # 10 : 30 after the reserve
    assert all(1 <= picks[at : at + 8].count("a") <= 3 for at in range(392))


def test_a_resume_waits_while_earlier_resumes_are_being_read():
    """Paced by the target's prefill."""
    known = loads("a")
    known["a"].send_resume(10_000, view(prefill_tokens_per_second=1000.0), 101.0)
    assert pick([view("a")], known, is_resume=True) is None
    assert pick([view("a")], known) == "a"


def test_another_site_is_one_that_did_not_fail():
    """A dark one counts: its power may come back."""
    views = [view("a"), view("b", state="dark")]
    assert has_other_site(views, {"a": FOREVER})
    assert not has_other_site(views, {"a": FOREVER, "b": FOREVER})
    assert has_other_site(views, {"a": FOREVER, "b": 3})


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["serving", "draining", "dark", "faulted"]),
            st.one_of(st.none(), st.integers(0, 40)),
            st.floats(0, 30),
            st.integers(0, 40),
        ),
        max_size=8,
    ),
    st.integers(0, 1000),
)
def test_nothing_goes_where_there_is_no_room(
    sites: list[tuple[str, int | None, float, int]], seed: int
) -> None:
    """Whatever the fleet looks like: no dispatch to a site that does not serve or has no headroom."""
    views, known = [], {}
    for index, (state, headroom, age, sent) in enumerate(sites):
        name = f"s{index}"
        views.append(view(name, state=state, headroom_requests=headroom, arrived_at=101.0 - age))
        known[name] = loads(name)[name]
        known[name].in_flight = sent
    chosen = pick(views, known, turn=seed)
    if chosen is not None:
        one = next(one for one in views if one.site_id == chosen)
        assert one.state == "serving"
        is_expired = 101.0 - one.arrived_at > 10.0
        assert known[chosen].room(one, 101.0, is_expired) >= 1
