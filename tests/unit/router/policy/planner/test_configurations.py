"""What a configuration is said to draw under the planned load."""

from __future__ import annotations

import pytest

from fleet.capacity import busy_watts, mean_running, prefill_ratio, requests_per_second
from fleet.profile import LLAMA_70B_H100_TP4 as PROFILE
from router.policy.planner.configurations import TYPICAL_WORKS, configuration_of, slos_of


@pytest.mark.parametrize("name", ["SL", "LS"])
def test_full_watts_have_the_prompts_in_them(name: str) -> None:
    """Of one class alone: its batch, and its share of prefill, which short prompts hardly have."""
    slos, work = slos_of([PROFILE], TYPICAL_WORKS), TYPICAL_WORKS[name]  # type: ignore[index]
    found = configuration_of(
        PROFILE,
        1980,
        works=TYPICAL_WORKS,
        slos=slos,
        rates={name: 1.0},  # type: ignore[dict-item]
        max_concurrency=64,
        start_seconds=60.0,
    )
    slo = slos[name]  # type: ignore[index]
    rate = requests_per_second(PROFILE, 1980, work, max_concurrency=64, slo=slo)
    running = mean_running(PROFILE, 1980, work, rate, max_concurrency=64)
    batch = busy_watts(PROFILE, 1980, running)
    share = prefill_ratio(PROFILE, 1980, work, rate)
    assert found.full_watts == pytest.approx(busy_watts(PROFILE, 1980, running, prefill_ratio=share))
    assert (found.full_watts - batch > 200) == (name == "LS")
