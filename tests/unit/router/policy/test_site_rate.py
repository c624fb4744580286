"""What a site sustains as it runs now."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from support.views import info, site, view

from fleet.capacity import Work, requests_per_second
from fleet.profile import PROFILES
from fleet.profile_record import ProfileInfo
from fleet.records import InstanceReport, SiteInfo
from fleet.request import ClassSlo
from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.site_forecast import EnginesRates, SiteForecast
from router.policy.site_rate import Engines, engines_of, engines_rate, work_of, work_step

PROFILE = "llama-3.1-70b/h100/tp4"


def told(profile_id: str | None = PROFILE) -> SiteInfo:
    configuration = {
        "model": "m",
        "tensor_parallel_degree": 4,
        "gpu_clock_mhz": 1800,
        "profile_id": profile_id,
    }
    return info("a", configurations=[configuration])


def instance(number: int, **changes: Any) -> InstanceReport:
    values: dict[str, Any] = {"state": "ready", "tensor_parallel_degree": 4, "gpu_clock_mhz": 1800}
    return InstanceReport(instance_id=f"i-{number}", **(values | changes))


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (100, 1), (1000, 200), (7000, 800)])
def test_sizes_are_taken_to_within_a_step(prompt: int, output: int):
    """Each length to within 20 %."""
    work = work_of(work_step(prompt, output))
    assert work.prompt_tokens == pytest.approx(prompt, rel=0.2)
    assert work.output_tokens == pytest.approx(output, rel=0.2)


def test_sizes_that_make_no_sense_have_a_step():
    """0, and more than any model takes."""
    assert work_of(work_step(0, 0)).prompt_tokens == 1.0
    assert work_of(work_step(10**12, 10**12)).output_tokens < 1e10


def test_the_rate_is_that_of_all_ready_instances():
    """By the profile; those that start do not count."""
    step = work_step(1000, 200)
    work = work_of(step)
    one = requests_per_second(
        PROFILES[PROFILE],
        1800.0,
        Work(prompt_tokens=work.prompt_tokens, output_tokens=work.output_tokens),
        max_concurrency=100,
    )
    seen = view(instances=(instance(0), instance(1), instance(2, state="starting")), capacity_requests=200.0)
    engines = engines_of(seen, told())
    assert engines is not None
    assert engines_rate(engines, step) == pytest.approx(2 * one)


def test_what_is_unknown_has_no_rate():
    """No SiteInfo, no profile of that name, no instances, no clock, no slots."""
    ready = view(instances=(instance(0),))
    assert engines_of(ready, told()) is not None
    assert engines_of(ready, None) is None
    assert engines_of(ready, told("another")) is None
    assert engines_of(ready, told(None)) is None
    assert engines_of(view(), told()) is None
    assert engines_of(view(instances=(instance(0, gpu_clock_mhz=None),)), told()) is None
    assert engines_of(view(instances=(instance(0),), capacity_requests=None), told()) is None


def test_a_site_that_tells_of_its_own_profile_is_judged_by_it():
    """Whatever it calls it."""
    slow = replace(PROFILES[PROFILE], prefill_tokens_per_second=500.0)
    seen, step = view(instances=(instance(0),)), work_step(1000, 200)
    own = told().model_copy(update={"profiles": (ProfileInfo.of(slow),)})
    one, other = engines_of(seen, told()), engines_of(seen, own)
    assert one is not None
    assert other is not None
    assert engines_rate(other, step) < engines_rate(one, step) / 3
    named = ProfileInfo.of(replace(slow, profile_id="another"))
    assert engines_of(seen, told("another").model_copy(update={"profiles": (named,)})) is not None


def test_what_engines_sustain_is_kept_for_as_long_as_they_stay_as_they_are():
    """Over newer reports, and at other sites that have such; another clock, or another SLO of the same size,
    is worked out anew."""
    load, told_site = Load(Breaker(), "a"), site(view("a"), info=told())
    step = work_step(1000, 200)
    known: dict[Engines | None, EnginesRates] = {}

    def forecast(clock: int, waiting: int, name: str = "a") -> SiteForecast:
        engines = (instance(0, gpu_clock_mhz=clock),)
        seen = view(name, instances=engines, capacity_requests=200.0, waiting_requests=waiting)
        return SiteForecast(seen, told_site, None, load, 0.05, known)

    first = forecast(1800, 0)
    rate = first.rate(step)
    assert forecast(1800, 1).rates == {step: rate}
    assert forecast(1800, 1, "b").rates == {step: rate}
    slower = forecast(900, 1)
    assert slower.rates == {}
    assert (slower.rate(step) or 0.0) < (rate or 0.0)
    loose, tight = ClassSlo(e2e_seconds=60.0), ClassSlo(e2e_seconds=1e-3)
    assert first.cost_seconds(step, loose, None) == pytest.approx(1.0 / (rate or 0.0), rel=0.2)
    assert first.cost_seconds(step, tight, None) == math.inf
    assert forecast(1800, 2).cost_seconds(step, loose, 100.0) == math.inf, "the network is too slow"
