"""How long an engine's steps last, from its profile, as a table: looked up for each run of steps. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fleet.profile import PerformanceProfile


class StepTimes(NamedTuple):
    """At one clock."""

    itl_seconds: tuple[float, ...]
    """By decoding sequences, without context."""
    kv_seconds: float
    """What a token in the KV cache adds to it."""
    prefill_rate: float
    """Prompt tokens per second within a step."""
    prefill_step_seconds: float
    """A step in which nothing decodes, without its tokens' own time."""


@lru_cache(maxsize=4096)
def step_times(profile: PerformanceProfile, clock_mhz: int, most_running: int) -> StepTimes:
    """The table of one profile at one clock."""
    counts = range(1, most_running + 1)
    return StepTimes(
        itl_seconds=(0.0, *(profile.itl_seconds(count, clock_mhz) for count in counts)),
        kv_seconds=profile.kv_seconds(clock_mhz),
        prefill_rate=profile.prefill_rate(clock_mhz),
        prefill_step_seconds=profile.prefill_step_seconds(clock_mhz),
    )
