"""What holds of every policy, whatever the figures: weights that can be sampled, nobody who must not be."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.views import FEATURES, info, loads, view

from fleet.records import InstanceReport, SiteInfo
from fleet.request import ClassSlo
from router.policy.candidate import Candidate
from router.policy.dispatch import choose
from router.policy.outlook import Horizon, PowerOutlook, Quantiles
from router.policy.plan_view import PlanView
from router.policy.policies import POLICIES, make_policy
from router.policy.snapshot import NOTHING_KNOWN, Freshness, SiteView, Snapshot

NAMES = sorted(POLICIES)
FIGURES = st.sampled_from([None, 0.0, math.nan, math.inf, -1.0, 1e-300, 1e300, 1.0, 0.5, 7.0, 4000.0])
STATES = st.sampled_from(["serving", "serving", "serving", "draining", "dark", "faulted"])
NOWS = st.floats(-1e6, 1e6)
READY = InstanceReport(instance_id="i", state="ready", tensor_parallel_degree=4, gpu_clock_mhz=1980)


@st.composite
def models(draw: st.DrawFn, site_id: str) -> Any:
    figure = lambda: draw(FIGURES)  # noqa: E731
    return view(
        site_id,
        state=draw(STATES),
        arrived_at=draw(st.sampled_from([100.0, 95.0, 50.0, 1e5])),
        is_confirmed=draw(st.booleans()),
        ready_instances=draw(st.sampled_from([None, 0, 1, 3])),
        headroom_requests=draw(st.sampled_from([None, 0.0, 1.0, 40.0])),
        capacity_requests=draw(st.sampled_from([None, 0.0, 20.0])),
        running_requests=draw(st.sampled_from([None, 0, 9])),
        waiting_requests=draw(st.sampled_from([None, 0, 50])),
        kv_cache_usage_ratio=figure(),
        prefill_tokens_per_second=figure(),
        itl_seconds_p50=figure(),
        itl_seconds_p99=figure(),
        ttft_seconds_p50=figure(),
        ttft_seconds_p99=figure(),
        instances=draw(st.sampled_from([(), (READY,), (READY, READY)])),
    )


def known_info(site_id: str) -> SiteInfo:
    """Of a site whose profile is known."""
    configuration = {
        "model": "m",
        "tensor_parallel_degree": 4,
        "gpu_clock_mhz": 1980,
        "profile_id": "llama-3.1-70b/h100/tp4",
    }
    return info(site_id, configurations=[configuration])


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    snapshot = NOTHING_KNOWN
    for site_id in ("a", "b", "c", "d")[: draw(st.integers(0, 4))]:
        one = draw(models(site_id))
        powerless = info(site_id, 0, server_idle_watts=0.0)
        site = SiteView(
            site_id=site_id,
            agent_id="agent",
            state=one.state,
            sequence=1,
            arrived_at=one.arrived_at,
            is_confirmed=True,
            ingress_url="http://127.0.0.1:1",
            observed_at_unix_seconds=0.0,
            cap_watts=draw(FIGURES),
            draw_watts=draw(FIGURES),
            headroom_watts=draw(FIGURES),
            region=draw(st.sampled_from([None, "north"])),
            info=draw(st.sampled_from([None, info(site_id), powerless, known_info(site_id)])),
            models=(one,),
        )
        snapshot = snapshot.with_site(site)
        if draw(st.booleans()):
            watts = Quantiles(*(draw(FIGURES) or 0.0 for _ in range(3)))
            outlook = PowerOutlook(
                site_id=site_id,
                granted_power_watts=draw(FIGURES) or 0.0,
                quality="good",
                arrived_at=draw(st.sampled_from([100.0, 0.0])),
                forecast=(Horizon(10.0, watts), Horizon(60.0, watts)) if draw(st.booleans()) else (),
            )
            snapshot = snapshot.with_power(outlook)
    if draw(st.booleans()):
        parts = {site_id: draw(FIGURES) or 0.0 for site_id in ("a", "c", "x")}
        plan = PlanView(epoch=1, valid_until_at=draw(NOWS), weights={"m": {"SS": parts}})
        snapshot = snapshot.with_plan(plan)
    return snapshot


SLOS = (None, ClassSlo(), ClassSlo(ttft_seconds=1e-9), ClassSlo(ttft_seconds=2.0, e2e_seconds=30.0))


@pytest.mark.parametrize("name", NAMES)
@given(snapshot=snapshots(), now=NOWS, later=NOWS, slo=st.sampled_from(SLOS))
@settings(max_examples=100, deadline=None)
def test_weights_are_finite_and_not_negative_whatever_is_known(
    name: str, snapshot: Snapshot, now: float, later: float, slo: ClassSlo | None
):
    """NaN, infinity, 0 and nothing at all come in; what comes out can be sampled, and not all is 0 unless the
    policy may hold, or is choosy about a request with an SLO. Clocks may jump."""
    features = FEATURES._replace(slo=slo)
    views = snapshot.models.get("m", ())
    known = loads(*(one.site_id for one in views))
    candidates = [Candidate(one, 3.0, Freshness.FRESH, known[one.site_id]) for one in views]
    if not candidates:
        return
    policy = make_policy(name)
    for at in (now, later, now):
        weights = policy.weigh(candidates, features, snapshot, turn=5, now=at)
        assert len(weights) == len(candidates)
        assert all(0.0 <= weight < math.inf for weight in weights)
        assert math.isfinite(sum(weights))
        assert policy.may_hold or (policy.is_choosy and slo is not None) or sum(weights) > 0.0
        serving = [one.is_serving for one in views]
        if policy.is_choosy and all(serving) and policy.is_shut(views, features, at):
            assert sum(weights) == 0.0
        for one, weight in zip(candidates, weights, strict=True):
            if weight > 0.0:
                policy.sent(one.view, features, at)


@pytest.mark.parametrize("name", NAMES)
@given(snapshot=snapshots(), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_nothing_is_sent_where_it_must_not_go(name: str, snapshot: Snapshot, seed: int):
    """Not to one that is dark, draining, faulted, empty or without room; the same dice give the same."""
    views = snapshot.models.get("m", ())
    chosen = [
        choose(
            views,
            loads(*(one.site_id for one in views)),
            policy=make_policy(name),
            features=FEATURES,
            excluded={},
            is_resume=False,
            reserve_ratio=0.1,
            turn=1,
            now=101.0,
            rng=random.Random(seed),
            context=snapshot,
        )
        for _ in range(2)
    ]
    one = chosen[0]
    assert chosen[1] is one
    if one is not None:
        assert one.state == "serving"
        assert one.ready_instances != 0
        is_old = 101.0 - one.arrived_at > 10.0  # its figures count as unknown
        assert is_old or one.headroom_requests is None or one.headroom_requests >= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_fleet_and_one_site(name: str):
    """Nowhere to go, and only one way to."""
    common: dict[str, Any] = {
        "policy": make_policy(name),
        "features": FEATURES,
        "excluded": {},
        "is_resume": False,
        "reserve_ratio": 0.1,
        "turn": 1,
        "now": 101.0,
        "rng": random.Random(1),
    }
    assert choose((), {}, **common) is None
    chosen = choose((view("a"),), loads("a"), **common)
    assert chosen is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_large_fleet_is_weighed_too(name: str):
    """With a plan, too."""
    views = tuple(view(f"{number:04d}") for number in range(300))
    plan = PlanView(epoch=1, valid_until_at=1e9, weights={"m": {"SS": {"0007": 1.0}}})
    snapshot = Snapshot(models={"m": views}, plan=plan)
    chosen = choose(
        views,
        loads(*(one.site_id for one in views)),
        policy=make_policy(name),
        features=FEATURES,
        excluded={},
        is_resume=False,
        reserve_ratio=0.1,
        turn=1,
        now=101.0,
        rng=random.Random(1),
        context=snapshot,
    )
    assert chosen is not None
    assert chosen.site_id == "0007" or name != "planned"
