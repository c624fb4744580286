"""What a site's engines sustain as they run now: their configurations, through `fleet.capacity`. Pure.

Rule: None where any part is unknown (no SiteInfo, no profile, no clock): a site is then judged by its room.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fleet.capacity import Slo, Work, requests_per_second
from fleet.profile import PerformanceProfile, profile_of
from fleet.records import SiteInfo
from router.policy.snapshot import ModelView

STEPS = 64
"""Of each length: 2^32 tokens and more are the last."""


def work_step(prompt_tokens: int, output_tokens: int) -> int:
    """Which of the sizes it is: both lengths to within √2, as one small figure (this is per request)."""
    prompt = (prompt_tokens * prompt_tokens).bit_length()
    output = (output_tokens * output_tokens).bit_length()
    return (prompt if prompt < STEPS else STEPS - 1) * STEPS + (output if output < STEPS else STEPS - 1)


@lru_cache(maxsize=STEPS * STEPS)
def work_of(step: int) -> Work:
    """The middle of a step."""
    prompt, output = divmod(step, STEPS)
    return Work(prompt_tokens=_tokens(prompt), output_tokens=_tokens(output))


def _tokens(bits: int) -> float:
    return max(1.0, float(2.0 ** ((bits - 0.5) / 2)))


class Engines(NamedTuple):
    """What is ready at a site, as far as its rate depends on it."""

    kinds: tuple[tuple[PerformanceProfile, float, int], ...]
    """(profile, clock in MHz, how many of them)."""
    max_concurrency: int
    """Of each."""


def engines_of(view: ModelView, info: SiteInfo | None) -> Engines | None:
    """None where any part is unknown, or nothing is ready."""
    if info is None or not view.instances:
        return None
    ready: dict[tuple[int | None, int | None], int] = {}
    for one in view.instances:
        if one.state == "ready":
            kind = one.tensor_parallel_degree, one.gpu_clock_mhz
            ready[kind] = ready.get(kind, 0) + 1
    slots = view.capacity_requests
    if not ready or not slots:
        return None
    kinds = []
    for (degree, clock), count in ready.items():
        profile = profile_of(info, _profile_id(view.model, info, degree))
        if profile is None or clock is None:
            return None
        kinds.append((profile, float(clock), count))
    return Engines(tuple(kinds), max(1, int(slots / sum(ready.values()))))


def engines_rate(engines: Engines, step: int, slo: Slo | None = None) -> float:
    """Requests of this `work_step` per second, of all of them together; `slo`: within it."""
    work, total = work_of(step), 0.0
    most = engines.max_concurrency
    for profile, clock, count in engines.kinds:
        total += count * requests_per_second(profile, clock, work, max_concurrency=most, slo=slo)
    return total


def _profile_id(model: str, info: SiteInfo, degree: int | None) -> str | None:
    """Of any clock: a site also sets clocks between those that it names."""
    for one in info.configurations:
        if one.tensor_parallel_degree == degree and one.model == model:
            return one.profile_id
    return None
