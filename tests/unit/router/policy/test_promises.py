"""What a request is promised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.views import FEATURES, info, site, view

from fleet.capacity import alone_seconds
from fleet.profile import PROFILES
from fleet.profile_record import ProfileInfo
from fleet.request import ClassSlo
from router.policy.promises import LOOK_SECONDS, MAX_PROFILES, Promises
from router.policy.site_rate import work_of, work_step
from router.policy.snapshot import NOTHING_KNOWN, Snapshot

FAST, SLOW = "llama-3.1-70b/h100/tp8", "llama-3.1-70b/h100/tp2"
OWN = ClassSlo(ttft_seconds=1.0)


def fleet(**profile_ids: str | None) -> Snapshot:
    """Sites with a configuration of these profiles each; None: a site that says nothing of itself."""
    snapshot = NOTHING_KNOWN
    for name, profile_id in profile_ids.items():
        known: dict[str, Any] = {"model": "m", "tensor_parallel_degree": 8, "profile_id": profile_id}
        told = None if profile_id is None else info(name, configurations=[known, known | {"model": "other"}])
        snapshot = snapshot.with_site(site(view(name), info=told))
    return snapshot


def test_nothing_is_promised_unless_asked_for():
    """And then it costs nothing."""
    assert not Promises({}, None)
    assert Promises({}, None).of(FEATURES, fleet(a=FAST), 100.0) is None
    assert Promises({"SS": OWN}, None)
    assert Promises({}, 5.0)


def test_a_class_s_own_table_wins_and_flex_has_none():
    """`[router.slo.SS]` before `slo_factor`."""
    promises = Promises({"SS": OWN}, 5.0)
    assert promises.of(FEATURES, fleet(a=FAST), 100.0) is OWN
    assert promises.of(FEATURES._replace(tier="flex"), fleet(a=FAST), 100.0) is None
    assert promises.of(FEATURES._replace(request_class="LL"), fleet(a=FAST), 100.0) not in (None, OWN)
    assert Promises({"LL": OWN}, None).of(FEATURES, fleet(a=FAST), 100.0) is None


def test_the_factor_is_of_one_alone_on_the_fastest_that_any_site_announces():
    """Both times of its own size."""
    features = FEATURES._replace(prompt_tokens=1000, expected_output_tokens=200)
    found = Promises({}, 5.0).of(features, fleet(a=SLOW, b=FAST, c=None), 100.0)
    work = work_of(work_step(1000, 200))
    ttft, e2e = alone_seconds(PROFILES[FAST], 1980, work)
    assert found == ClassSlo(ttft_seconds=pytest.approx(5 * ttft), e2e_seconds=pytest.approx(5 * e2e))


def test_a_profile_that_a_site_tells_of_counts_as_a_shipped_one():
    """The fastest of all that are announced, whoever knows it."""
    quick: dict[str, Any] = {"step_overhead_seconds": 1e-3, "prefill_tokens_per_second": 1e5}
    mine = replace(PROFILES[FAST], profile_id="mine", **quick)
    features = FEATURES._replace(prompt_tokens=1000, expected_output_tokens=200)
    known = {"model": "m", "tensor_parallel_degree": 8, "profile_id": "mine"}
    told = info("b", configurations=[known], profiles=[ProfileInfo.of(mine)])
    found = Promises({}, 5.0).of(features, fleet(a=FAST).with_site(site(view("b"), info=told)), 100.0)
    ttft, _ = alone_seconds(mine, 1980, work_of(work_step(1000, 200)))
    assert found is not None
    assert found.ttft_seconds == pytest.approx(5 * ttft)


def test_profiles_are_bounded_too():
    """Any number of sites, each with one of its own: the first of them count."""
    snapshot = NOTHING_KNOWN
    for number in range(MAX_PROFILES + 6):
        mine = ProfileInfo.of(replace(PROFILES[FAST], profile_id="mine", idle_watts=700.0 + number))
        known = {"model": "m", "tensor_parallel_degree": 8, "profile_id": "mine"}
        told = info(f"s{number:03}", configurations=[known], profiles=[mine])
        snapshot = snapshot.with_site(site(view(told.site_id), info=told))
    promises = Promises({}, 5.0)
    assert promises.of(FEATURES, snapshot, 100.0) is not None
    assert len(promises._models["m"].profiles) == MAX_PROFILES


def test_without_a_profile_nothing_is_promised():
    """Nobody knows what it takes alone."""
    for snapshot in (NOTHING_KNOWN, fleet(a=None), fleet(a="nobody/knows/it")):
        assert Promises({}, 5.0).of(FEATURES, snapshot, 100.0) is None


def test_what_sites_announce_is_looked_at_again_after_a_while():
    """A faster one came; a clock that jumps back does no harm."""
    promises = Promises({}, 5.0)
    first = promises.of(FEATURES, fleet(a=SLOW), 100.0)
    both = fleet(a=SLOW, b=FAST)
    assert promises.of(FEATURES, both, 100.0 + LOOK_SECONDS / 2) is first
    later = promises.of(FEATURES, both, 100.0 + LOOK_SECONDS)
    assert first is not None
    assert later is not None
    assert (later.ttft_seconds or 0) < (first.ttft_seconds or 0)
    assert promises.of(FEATURES, both, 100.0 + 2 * LOOK_SECONDS) is later
    assert promises.of(FEATURES, both, 5.0) is later


def test_models_are_bounded():
    """Whatever names come."""
    promises = Promises({}, 5.0)
    for number in range(1000):
        promises.of(FEATURES._replace(model=f"m{number}"), fleet(a=FAST), 100.0)
    assert promises.of(FEATURES, fleet(a=FAST), 100.0) is not None
    assert len(promises._models) <= 256
