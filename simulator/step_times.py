"""How long an engine's steps last, from its profile, as tables: looked up for each run of steps. Pure."""

from __future__ import annotations

from functools import lru_cache

from fleet.profile import PerformanceProfile

KV_PROBE_TOKENS = 100_000.0
"""Where the profile's KV term is read off; it is linear."""


@lru_cache(maxsize=4096)
def step_times(
    profile: PerformanceProfile, clock_mhz: int, most_running: int
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    """(ITL by decoding sequences, its slope per KV token, prefill tokens per second)."""
    counts = range(1, most_running + 1)
    base = [profile.itl_seconds(count, clock_mhz) for count in counts]
    full = [_itl_with_kv(profile, count, clock_mhz) for count in counts]
    slopes = [(high - low) / KV_PROBE_TOKENS for low, high in zip(base, full, strict=True)]
    rate = profile.prefill_tokens_per_second * profile.speed_ratio(clock_mhz)
    return (0.0, *base), (0.0, *slopes), rate


def _itl_with_kv(profile: PerformanceProfile, running: int, clock_mhz: int) -> float:
    return profile.itl_seconds(running, clock_mhz)
