"""What a site sustains as it runs now."""

from __future__ import annotations

from typing import Any

import pytest
from support.views import info, view

from fleet.capacity import Work, requests_per_second
from fleet.profile import PROFILES
from fleet.records import InstanceReport, SiteInfo
from router.policy.site_rate import site_rate, work_of, work_step

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
    assert site_rate(seen, told(), step) == pytest.approx(2 * one)


def test_what_is_unknown_has_no_rate():
    """No SiteInfo, no profile of that name, no instances, no clock, no slots."""
    step = work_step(1000, 200)
    ready = view(instances=(instance(0),))
    assert site_rate(ready, told(), step) is not None
    assert site_rate(ready, None, step) is None
    assert site_rate(ready, told("another"), step) is None
    assert site_rate(ready, told(None), step) is None
    assert site_rate(view(), told(), step) is None
    assert site_rate(view(instances=(instance(0, gpu_clock_mhz=None),)), told(), step) is None
    assert site_rate(view(instances=(instance(0),), capacity_requests=None), told(), step) is None
