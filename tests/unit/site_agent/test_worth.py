"""What a configuration is worth: what it ends in time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.capacity import Slo, reference_slo, requests_per_second
from fleet.profile import PROFILES, SitePowerModel
from site_agent.limits import MeanWork
from site_agent.site_model import SiteModel, assumed_profile
from site_agent.worth import TYPICAL_WORK, Worth

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(overhead_ratio=1.1, host_idle_watts=600),
    instances=2,
    max_concurrency=64,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[2], TP[8]),
)
EVERY = [MODEL.uniform(count, degree) for degree in (4, 2, 8) for count in range(1, MODEL.most(degree) + 1)]


def test_it_is_the_rate_within_the_slo_not_tokens() -> None:
    """Four of two GPUs make more tokens than two of four, and end far fewer in time."""
    worth = Worth(model=MODEL)
    two, four = MODEL.uniform(4, 2), MODEL.uniform(2, 4)
    assert MODEL.output_tokens_per_second(two, 1980) > MODEL.output_tokens_per_second(four, 1980)
    assert worth.of(two, 1980) < 0.5 * worth.of(four, 1980)
    slo = reference_slo(TP.values(), TYPICAL_WORK, 5.0)
    rate = 2 * requests_per_second(TP[4], 1980, TYPICAL_WORK, max_concurrency=64, slo=slo)
    assert worth.of(four, 1980) == pytest.approx(rate, rel=0.01)


def test_the_worthiest_that_fits_is_found() -> None:
    """Nothing below the least; two GPUs where four do not fit; all of them at full power."""
    worth = Worth(model=MODEL)
    assert worth.best(EVERY, 1500).layout == ()
    assert worth.best(EVERY, 1900).layout == MODEL.uniform(1, 2)
    assert worth.best(EVERY, 2200).layout == MODEL.uniform(1, 4)
    assert worth.best(EVERY, MODEL.full_watts).layout == MODEL.uniform(2, 4)
    for budget in range(1300, 6500, 100):
        found = worth.best(EVERY, budget)
        assert not found.awake or MODEL.worst_watts(found.layout, found.clock_mhz) <= budget
        assert worth.under(found.layout, budget) == worth.of(found.layout, found.clock_mhz)


def test_longer_requests_are_fewer_and_a_drifting_mean_changes_nothing() -> None:
    """The mean is put on a grid."""
    worth = Worth(model=MODEL)
    layout = MODEL.uniform(1)
    before = worth.of(layout, 1980)
    worth.learn(None)
    assert worth.of(layout, 1980) == before
    worth.learn(MeanWork(prompt_tokens=2000, output_tokens=600))
    long = worth.of(layout, 1980)
    assert long < before
    worth.learn(MeanWork(prompt_tokens=2020, output_tokens=606))
    assert worth.of(layout, 1980) == long


def test_the_configured_slo_counts() -> None:
    """A loose one lets an instance take more."""
    loose = replace(MODEL, slo=Slo(ttft_seconds=60, e2e_seconds=600))
    layout = MODEL.uniform(1)
    assert Worth(model=loose).of(layout, 800) > Worth(model=MODEL).of(layout, 800)


def test_an_slo_that_nothing_meets_and_work_that_fits_nowhere_still_have_an_order() -> None:
    """By the rate however late, and by tokens per second: more instances and faster ones are worth more."""
    hopeless = Worth(model=replace(MODEL, slo=Slo(ttft_seconds=1e-6, e2e_seconds=1e-6)))
    endless = Worth(model=MODEL)
    endless.learn(MeanWork(prompt_tokens=10_000_000, output_tokens=10_000_000))
    for worth in (hopeless, endless):
        assert worth.of(MODEL.uniform(2), 1980) > worth.of(MODEL.uniform(1), 1980) > 0
        assert worth.of(MODEL.uniform(1), 1980) > worth.of(MODEL.uniform(1), 800)


def test_unknown_hardware_is_worth_its_instances() -> None:
    """An assumed profile is as good as another."""
    profile = assumed_profile(model="tiny", stopped_watts=10, idle_watts=100, busy_watts=300)
    model = SiteModel(
        profile=profile, power=SitePowerModel(), instances=3, max_concurrency=8, clocks_mhz=(1000,)
    )
    worth = Worth(model=model)
    assert worth.best([model.uniform(count) for count in range(4)], 10_000).awake == 3
    worth.learn(MeanWork(prompt_tokens=5, output_tokens=0.2))
    assert worth.of(model.uniform(2), 1000) > worth.of(model.uniform(1), 1000)
