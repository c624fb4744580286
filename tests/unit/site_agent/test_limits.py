"""What an instance can take, from its profile."""

from __future__ import annotations

import pytest

from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from site_agent.limits import MeanWork, Slo, instance_watts, limits_of


def test_limits_come_from_the_profile_at_its_clock() -> None:
    """A lower clock takes fewer within the same SLO, and fewer prompt tokens wait."""
    slo, mean = Slo(ttft_seconds=1.0, e2e_seconds=6.0), MeanWork(prompt_tokens=850, output_tokens=200)
    full = limits_of(PROFILE, 1980, max_concurrency=256, slo=slo, mean=mean)
    low = limits_of(PROFILE, 800, max_concurrency=256, slo=slo, mean=mean)
    assert full.prefill_tokens == pytest.approx(10_500 * (1 - 0.01582), rel=1e-3)
    assert full.within_slo is not None
    gap_seconds = (6.0 - PROFILE.prefill_seconds(850, 1980)) / 200
    assert PROFILE.itl_seconds(full.within_slo, 1980, full.within_slo * 950) <= gap_seconds
    assert PROFILE.itl_seconds(full.within_slo + 1, 1980, (full.within_slo + 1) * 950) > gap_seconds
    assert low.within_slo is not None
    assert low.within_slo < full.within_slo
    assert low.prefill_tokens is not None
    assert low.prefill_tokens < full.prefill_tokens
    impossible = limits_of(PROFILE, 800, max_concurrency=256, slo=Slo(e2e_seconds=0.01), mean=mean)
    assert impossible.within_slo == 1


def test_a_profile_whose_watts_fall_somewhere_is_taken_as_level_there() -> None:
    """At batch 32 less was measured than at 16."""
    watts = instance_watts(PROFILE, 1980, 64)
    assert len(watts) == 65
    assert watts[0] == PROFILE.idle_watts
    assert list(watts) == sorted(watts)
