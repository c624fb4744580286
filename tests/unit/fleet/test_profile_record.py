"""A profile on the wire: the same figures on both ends, and nothing that cannot be computed with."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_records import golden_value
from support.measured import document_of, row_of

from fleet import capacity
from fleet.capacity import Work
from fleet.profile import LLAMA_70B_H100_TP4, PROFILES, PerformanceProfile, profile_of
from fleet.profile_record import MAX_PROFILE_ROWS, MAX_SITE_PROFILES, ProfileInfo
from fleet.profiles.document import ProfileDocumentError
from fleet.profiles.measured import fit_profile
from fleet.records import SiteInfo
from fleet.wire import MAX_RECORD_BYTES, RecordError

TRUTH = LLAMA_70B_H100_TP4
WORKS = (Work(prompt_tokens=1, output_tokens=1), Work(prompt_tokens=1000, output_tokens=200))


def over_the_wire(profile: PerformanceProfile) -> PerformanceProfile:
    """What a reader makes of it."""
    return ProfileInfo.model_validate_json(ProfileInfo.of(profile).model_dump_json()).profile


def measured() -> PerformanceProfile:
    """Of rows at three clocks."""
    return fit_profile(
        document_of(
            [
                row_of(TRUTH, batch, prompt, clock)
                for clock, prompt, batch in itertools.product((1980, 1400, 800), (512, 4096), (1, 8, 64))
            ]
        )
    )


@pytest.mark.parametrize("profile", [*PROFILES.values(), measured()], ids=lambda one: one.profile_id)
def test_both_ends_reckon_with_the_same_figures(profile: PerformanceProfile) -> None:
    """To the last bit: a plan is made of what the site governs by."""
    found = over_the_wire(profile)
    for batch, clock, kv in itertools.product((1, 8, 20, 500), (800, 1111, 1980), (0, 50_000)):
        assert found.itl_seconds(batch, clock, kv) == profile.itl_seconds(batch, clock, kv)
        assert found.watts(batch, clock) == profile.watts(batch, clock)
        assert found.prefill_seconds(3000, clock) == profile.prefill_seconds(3000, clock)
        assert found.prefill_watts(clock) == profile.prefill_watts(clock)
    same = ("clocks_mhz", "kv_tokens", "max_model_len", "stopped_watts", "clock_model")
    assert [getattr(found, name) for name in same] == [getattr(profile, name) for name in same]


def test_equal_records_are_one_profile() -> None:
    """A hundred sites with the same file: comparing theirs costs nothing."""
    assert over_the_wire(TRUTH) is over_the_wire(TRUTH)
    assert over_the_wire(TRUTH) is not over_the_wire(replace(TRUTH, idle_watts=461.0))


def test_a_site_s_own_word_goes_over_a_shipped_name_and_counts_for_that_site_alone() -> None:
    """What it does not tell of is the shipped one of that name, or nobody's."""
    plain = SiteInfo.model_validate(golden_value("SiteInfo") | {"profiles": []}, strict=False)
    own = plain.model_copy(update={"profiles": (ProfileInfo.of(replace(TRUTH, idle_watts=500.0)),)})
    assert profile_of(plain, TRUTH.profile_id) is TRUTH
    assert profile_of(plain, "mine") is None
    assert profile_of(plain, None) is None
    found = profile_of(own, TRUTH.profile_id)
    assert found is not None
    assert found.idle_watts == 500.0
    assert profile_of(plain, TRUTH.profile_id) is TRUTH


def told(**changes: Any) -> bytes:
    """A SiteInfo with the golden profile, changed."""
    value = golden_value("SiteInfo")
    value["profiles"] = [value["profiles"][0] | changes]
    return json.dumps(value).encode()


ROW = {"running_requests": 1, "watts": 1500.0, "itl_seconds": 0.02, "kv_tokens": 0.0}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rows": []}, "profiles.0.rows"),
        ({"rows": [ROW, ROW]}, "rows.running_requests must ascend"),
        ({"rows": [ROW, ROW | {"running_requests": 2, "itl_seconds": 0.019}]}, "row 2: without context"),
        ({"rows": [ROW | {"itl_seconds": 0.0}]}, "row 1: without context"),
        ({"rows": [ROW | {"kv_tokens": 1e9}]}, "row 1: without context"),
        ({"rows": [ROW | {"itl_seconds": math.nan}]}, "itl_seconds"),
        ({"rows": [ROW | {"watts": math.inf}]}, "watts"),
        ({"rows": [ROW | {"watts": -1.0}]}, "watts"),
        (
            {"rows": [ROW | {"running_requests": batch} for batch in range(1, MAX_PROFILE_ROWS + 2)]},
            "profiles.0.rows",
        ),
        ({"weights_seconds": 0.011}, "row 1: weights_seconds"),
        ({"compute_seconds_per_request": 1e-3}, "weights_seconds and compute_seconds_per_request are"),
        ({"clocks_mhz": [1980, 800]}, "clocks_mhz must ascend"),
        ({"clocks_mhz": [800, 1400]}, "the last of clocks_mhz must be full_clock_mhz, 1980"),
        ({"clocks_mhz": list(range(1900, 1981))}, "clocks_mhz"),
        ({"stopped_watts": 921.0}, "stopped_watts is above idle_watts"),
        ({"rows": [ROW | {"watts": 919.0}]}, "at work draws 919 W, less than its idle_watts"),
        ({"prefill_watts": 900.0}, "at work draws 900 W"),
        ({"prefill_tokens_per_second": 0.0}, "prefill_tokens_per_second"),
        ({"prefill_chunk_tokens": 0}, "prefill_chunk_tokens"),
        ({"kv_tokens": 0}, "kv_tokens"),
        ({"clock_model": {"memory_sensitivity": 1.5}}, "memory_sensitivity"),
        ({"clock_model": {"power_points": [{"clock_ratio": 0.5, "dynamic_ratio": 0.5}]}}, "end at 1 and 1"),
        ({"clock_model": None}, "clock_model"),
        ({"profile_id": ""}, "profile_id"),
        ({"profile_id": None}, "profile_id"),
        ({"tensor_parallel_degree": True}, "tensor_parallel_degree"),
    ],
)
def test_what_cannot_be_computed_with_is_refused(changes: dict[str, Any], why: str) -> None:
    """With the place; never an engine of no or of negative seconds."""
    with pytest.raises(RecordError) as caught:
        SiteInfo.from_json(told(**changes))
    assert caught.value.reason == "malformed"
    assert why in str(caught.value)


def test_a_profile_is_told_once_and_there_are_few() -> None:
    """Twice the same name would be two words on one thing."""
    value = golden_value("SiteInfo")
    [one] = value["profiles"]
    for profiles, why in (
        ([one, one | {"idle_watts": 999.0}], "listed twice"),
        ([one | {"profile_id": str(number)} for number in range(MAX_SITE_PROFILES + 1)], "profiles"),
    ):
        with pytest.raises(RecordError, match=why):
            SiteInfo.from_json(json.dumps(value | {"profiles": profiles}).encode())
    assert SiteInfo.from_json(json.dumps(value | {"profiles": None}).encode()).profiles == ()


def test_as_many_as_there_may_be_are_within_a_record() -> None:
    """With as many rows and clocks, and a configuration for each clock."""
    rows = [
        ROW | {"running_requests": 60_000 + batch, "itl_seconds": 0.0123456789012345 + batch}
        for batch in range(MAX_PROFILE_ROWS)
    ]
    value = golden_value("SiteInfo")
    [one], configuration = value["profiles"], value["configurations"][1]
    names = [f"{one['profile_id']}-{number}" for number in range(MAX_SITE_PROFILES)]
    clocks = list(range(1917, 1981))
    points = [{"clock_ratio": clock / 1980, "dynamic_ratio": clock / 1980} for clock in clocks]
    full = one | {"rows": rows, "clocks_mhz": clocks, "compute_seconds_per_request": 0.0}
    full["weights_seconds"] = 0.0
    full["clock_model"] = one["clock_model"] | {"power_points": points}
    value["profiles"] = [full | {"profile_id": name} for name in names]
    value["configurations"] = [
        configuration | {"profile_id": name, "gpu_clock_mhz": clock} for name in names for clock in clocks
    ]
    record = SiteInfo.model_validate(value, strict=False)
    assert len(record.to_json()) < MAX_RECORD_BYTES
    assert SiteInfo.from_json(record.to_json()) == record


shares = st.sampled_from([0.0, 0.1, 1.0])
steps = st.sampled_from([1e-6, 1e-3, 0.5, 3000.0])
watts = st.sampled_from([0.0, 1e-9, 500.0, 1e6])
whole = st.sampled_from([1, 2, 100, 1 << 16, 1 << 30])


@st.composite
def extreme_profiles(draw: st.DrawFn) -> dict[str, Any]:
    """At the edges of every range; nearly all of them may be taken."""
    batches = sorted(draw(st.sets(st.sampled_from([1, 2, 100, 1 << 16]), min_size=1)))
    bases = sorted(draw(st.lists(steps, min_size=len(batches), max_size=len(batches))))
    per_token = draw(st.sampled_from([0.0, 1e-12, 1e-6]))
    contexts = draw(st.lists(st.sampled_from([0.0, 1e3, 1e8]), min_size=4, max_size=4))
    weights = draw(st.sampled_from([0.0, 0.3, 0.99])) * bases[0]
    compute = min((base - weights) / batch for base, batch in zip(bases, batches, strict=True))
    idle = draw(watts)
    return {
        "profile_id": "extreme",
        "tensor_parallel_degree": 1,
        "full_clock_mhz": draw(st.sampled_from([1, 1980, 20_000])),
        "stopped_watts": idle * draw(shares),
        "idle_watts": idle,
        "rows": [
            {
                "running_requests": batch,
                "watts": max(idle, draw(watts)),
                "itl_seconds": base + context * per_token,
                "kv_tokens": context,
            }
            for batch, base, context in zip(batches, bases, contexts, strict=False)
        ],
        "prefill_tokens_per_second": draw(st.sampled_from([1e-3, 1e4, 1e8])),
        "step_overhead_seconds": draw(st.sampled_from([0.0, 0.01, 3600.0])),
        "prefill_chunk_tokens": draw(whole),
        "prefill_watts": draw(st.none() | watts.map(lambda one: max(idle, one))),
        "kv_seconds_per_token": per_token,
        "weights_seconds": weights,
        "compute_seconds_per_request": compute * draw(st.sampled_from([0.0, 0.5, 0.999])),
        "kv_tokens": draw(whole),
        "max_model_len": draw(whole),
        "clock_model": {
            "memory_sensitivity": draw(shares),
            "compute_sensitivity": draw(shares),
            "other_sensitivity": draw(shares),
            "prefill_sensitivity": draw(shares),
            "power_exponent": draw(st.sampled_from([0.0, 2.4, 10.0])),
        },
    }


@settings(max_examples=300)
@given(extreme_profiles())
def test_whatever_is_taken_gives_times_rates_and_watts_that_can_be(value: dict[str, Any]) -> None:
    """At any clock that a report may say and any size: finite, a step above zero, no rate below."""
    try:
        profile = ProfileInfo.model_validate(value, strict=False).profile
    except ValueError as error:
        assert "a step takes" in str(error)  # noqa: PT017 -- rounding, at the least step that there may be
        return
    for clock, work in itertools.product((0, 1, 800, 1980, 20_000), WORKS):
        for batch in (0.5, 1, 7, 1e5):
            assert 0 < profile.itl_seconds(batch, clock, batch * 100) < math.inf
            assert 0 <= capacity.busy_watts(profile, clock, batch) < math.inf
        ttft, e2e = capacity.alone_seconds(profile, clock, work)
        assert 0 < ttft <= e2e < math.inf
        rate = capacity.requests_per_second(profile, clock, work, max_concurrency=64)
        slo = capacity.reference_slo([profile], work)
        within = capacity.requests_per_second(profile, clock, work, max_concurrency=64, slo=slo)
        assert 0 <= within * (1 - 1e-9) <= rate < math.inf
        assert math.isfinite(capacity.mean_running(profile, clock, work, rate, max_concurrency=64))


seconds = st.floats(1e-3, 10)
any_row = st.builds(
    row_of,
    st.just(TRUTH),
    st.sampled_from([1, 2, 16, 300]),
    st.sampled_from([1, 512, 9000]),
    st.sampled_from([1980, 1975, 1400, 210]),
    itl_seconds_p50=seconds,
    ttft_seconds_p50=st.none() | seconds,
    output_tokens_per_second=st.floats(1e-3, 1e5),
    watts=st.none() | st.floats(0, 5000),
    requests=st.integers(0, 500),
)


@settings(max_examples=200)
@given(st.lists(any_row, min_size=1, max_size=12), st.none() | st.floats(0, 3000))
def test_whatever_was_measured_can_be_told(measurements: list[Any], idle_watts: float | None) -> None:
    """The fit keeps the record's rules, whatever the rows."""
    try:
        profile = fit_profile(document_of(measurements, idle_watts=idle_watts))
    except ProfileDocumentError:
        return
    for batch, clock in itertools.product((1, 16), profile.clocks_mhz):
        found = over_the_wire(profile).itl_seconds(batch, clock, 1000)
        assert found == pytest.approx(profile.itl_seconds(batch, clock, 1000), rel=1e-6)
