"""What one instance can take at its clock: slots, SLO, prompts that wait, KV cache, watts. Pure.

Whatever is unknown is None (or empty) and limits nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from fleet.profile import PerformanceProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What a request may take here; None: no limit."""

    ttft_seconds: float | None = None
    e2e_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance can take, at the clock that it has. `limits_of` makes them from a profile."""

    max_concurrency: int
    within_slo: int | None = None
    """Running requests at which a request of mean size still meets its SLO; None: no SLO, or no profile."""
    prefill_tokens: float | None = None
    """Prompt tokens that may wait for their prefill; None: any."""
    kv_tokens: float | None = None
    """Of its KV cache; None: unknown."""
    watts: tuple[float, ...] = ()
    """Of its GPUs with 0, 1, … `max_concurrency` running, never falling; empty: unknown."""

    best_concurrency: int = field(init=False)
    """Slots that new requests may take."""

    def __post_init__(self) -> None:
        most = self.max_concurrency
        object.__setattr__(
            self, "best_concurrency", most if self.within_slo is None else min(most, self.within_slo)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanWork:
    """The site's recent mean request, in tokens."""

    prompt_tokens: float
    output_tokens: float


def limits_of(
    profile: PerformanceProfile,
    clock_mhz: int,
    *,
    max_concurrency: int,
    slo: Slo | None = None,
    mean: MeanWork | None = None,
) -> Limits:
    """An instance's limits from its profile. An SLO that even one request alone misses still admits one."""
    within_slo, prefill_tokens = None, None
    if slo is not None and slo.ttft_seconds is not None:
        left = slo.ttft_seconds - profile.prefill_step_seconds(clock_mhz)
        prefill_tokens = max(1.0, left * profile.prefill_rate(clock_mhz))
    if slo is not None and slo.e2e_seconds is not None and mean is not None:
        left = slo.e2e_seconds - profile.prefill_seconds(math.ceil(mean.prompt_tokens), clock_mhz)
        itl_seconds = left / max(1.0, mean.output_tokens)
        context = mean.prompt_tokens + mean.output_tokens / 2
        within_slo = _most_running(profile, clock_mhz, itl_seconds, context, max_concurrency)
    return Limits(
        max_concurrency=max_concurrency,
        within_slo=within_slo,
        prefill_tokens=prefill_tokens,
        kv_tokens=float(profile.kv_tokens),
        watts=instance_watts(profile, clock_mhz, max_concurrency),
    )


@lru_cache(maxsize=256)
def instance_watts(profile: PerformanceProfile, clock_mhz: int, max_concurrency: int) -> tuple[float, ...]:
    """Watts of an instance's GPUs with 0 … `max_concurrency` running; where rows fall, the higher before."""
    watts, most = [], 0.0
    for running in range(max_concurrency + 1):
        most = max(most, profile.watts(running, clock_mhz))
        watts.append(most)
    return tuple(watts)


def _most_running(
    profile: PerformanceProfile,
    clock_mhz: int,
    itl_seconds: float,
    context_tokens: float,
    max_concurrency: int,
) -> int:
    """The largest batch, each with this context, whose token gap is at most this; 1 at least."""
    low, high = 1, max_concurrency
    while low < high:
        middle = (low + high + 1) // 2
        if profile.itl_seconds(middle, clock_mhz, middle * context_tokens) <= itl_seconds:
            low = middle
        else:
            high = middle - 1
    return low
