"""What one instance sustains, how many requests it then runs, and what it draws: the fluid view. Pure.

Everybody who needs a rate asks here: the planner, the `heron` policy, the governor and the bound. The engine
(site_agent/emulation/engine.py) is seen as a flow: every step starts r requests of a class with p prompt
tokens and n output tokens, so b = r · (n − 1) decode, and

    T(r) = itl_seconds(b, clock, kv) + r · p ÷ prefill rate          one step
    rate = r ÷ T(r)                                                   requests per second

which grows with r. r ends where a step's prompt tokens fill its chunk (C), where `max_concurrency` requests
run (b and those in prefill), or where their tokens fill the KV cache. A request then takes

    TTFT = wait + max(1, p ÷ C) · itl_seconds(b) + (1 + r) · p ÷ prefill rate
    E2E  = TTFT + k · full step + (n − 1 − k) · T

`wait` is half a step, the prompts before it (M/D/1, each served in S = p ÷ C · itl_seconds(b) + p ÷ prefill
rate), and a free slot (Sakasegawa's M/D/c). k of its steps carry a full chunk of the prompts that it left
behind in that queue. Bursts wait longer; preemption is left out.
tests/unit/fleet/test_capacity_against_engine.py holds all of it to the engine itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fleet.performance import PerformanceProfile

_REMEMBERED = 65_536
"""Answers kept by each function: 9 classes × 21 configurations × a few hundred distinct rates."""
_HALVINGS = 40
_MOST_LOAD = 0.98
"""Nearer to 1 a queue has no end; an SLO is never met there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A request's size: the mean of its class."""

    prompt_tokens: float
    output_tokens: float

    def __post_init__(self) -> None:
        """Refuse what no engine can be asked for.

        Raises:
            ValueError: less than one token, or not a number.
        """
        for name in ("prompt_tokens", "output_tokens"):
            value = getattr(self, name)
            if not 1 <= value < math.inf:
                raise ValueError(f"{name} is {value}; a request has at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Longest good times of a request, the network's not counted."""

    ttft_seconds: float
    e2e_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """One instance at a steady rate."""

    requests_per_second: float
    running: float
    """Requests in prefill and decode together, in the mean; below 1 it is idle for part of the time."""
    step_seconds: float
    ttft_seconds: float
    e2e_seconds: float


def alone_seconds(profile: PerformanceProfile, clock_mhz: float, work: Work) -> tuple[float, float]:
    """TTFT and E2E of one request on an empty instance."""
    ttft = profile.prefill_seconds(work.prompt_tokens, clock_mhz)
    context = work.prompt_tokens + work.output_tokens / 2
    return ttft, ttft + (work.output_tokens - 1) * profile.itl_seconds(1, clock_mhz, context)


def reference_slo(profiles: Iterable[PerformanceProfile], work: Work, factor: float = 5.0) -> Slo:
    """`factor` × one request alone, on whichever profile is fastest at full clock.

    Raises:
        ValueError: no profile.
    """
    alone = [alone_seconds(profile, profile.full_clock_mhz, work) for profile in profiles]
    if not alone:
        raise ValueError("an SLO refers to the fastest configuration; there is none")
    return Slo(
        ttft_seconds=factor * min(ttft for ttft, _ in alone),
        e2e_seconds=factor * min(e2e for _, e2e in alone),
    )


@lru_cache(maxsize=_REMEMBERED)
def requests_per_second(
    profile: PerformanceProfile,
    clock_mhz: float,
    work: Work,
    *,
    max_concurrency: int,
    slo: Slo | None = None,
) -> float:
    """The most that one instance sustains; 0 where a request does not fit or no rate meets the SLO."""
    most = _most_started(profile, work, max_concurrency)
    if most <= 0:
        return 0.0
    if slo is not None:
        most = min(most, _MOST_LOAD * profile.prefill_chunk_tokens / work.prompt_tokens)
        slots = _slots(profile, work, max_concurrency)
        most = _last_that_meets(profile, clock_mhz, work, most, slots, slo)
    return most / _step_seconds(profile, clock_mhz, work, most) if most > 0 else 0.0


@lru_cache(maxsize=_REMEMBERED)
def operating_point(
    profile: PerformanceProfile,
    clock_mhz: float,
    work: Work,
    requests_per_second: float,
    *,
    max_concurrency: int,
) -> OperatingPoint:
    """The instance at this rate, or at the most that it sustains if that is less."""
    most = _most_started(profile, work, max_concurrency)
    if most <= 0 or requests_per_second <= 0:
        ttft, e2e = alone_seconds(profile, clock_mhz, work)
        step = profile.itl_seconds(1, clock_mhz, work.prompt_tokens + work.output_tokens / 2)
        return OperatingPoint(
            requests_per_second=0.0, running=0.0, step_seconds=step, ttft_seconds=ttft, e2e_seconds=e2e
        )
    started = _started_at(profile, clock_mhz, work, requests_per_second, most)
    step = _step_seconds(profile, clock_mhz, work, started)
    rate = started / step
    slots = _slots(profile, work, max_concurrency)
    wait, ttft, e2e = _times(profile, clock_mhz, work, started, slots)
    return OperatingPoint(
        requests_per_second=rate,
        running=min(rate * (e2e - wait), float(max_concurrency)),
        step_seconds=step,
        ttft_seconds=ttft,
        e2e_seconds=e2e,
    )


def mean_running(
    profile: PerformanceProfile,
    clock_mhz: float,
    work: Work,
    requests_per_second: float,
    *,
    max_concurrency: int,
) -> float:
    """Requests in prefill and decode together, in the mean (Little's law), at most `max_concurrency`."""
    point = operating_point(profile, clock_mhz, work, requests_per_second, max_concurrency=max_concurrency)
    return point.running


def busy_watts(
    profile: PerformanceProfile, clock_mhz: float, running: float, *, prefill_ratio: float = 0.0
) -> float:
    """Draw of an awake instance with this mean number of running requests.

    Below one request it is idle for the rest of the time. `prefill_ratio` is the share of all its time that
    goes to prompts; what the measured rows have of that in them, up to a tenth, counts twice.
    """
    at_work = profile.watts(max(1.0, running), clock_mhz)
    share = min(1.0, max(0.0, running))
    in_prefill = min(share, prefill_ratio) * (profile.prefill_watts(clock_mhz) - at_work)
    return profile.idle_watts + share * (at_work - profile.idle_watts) + in_prefill


def prefill_ratio(
    profile: PerformanceProfile, clock_mhz: float, work: Work, requests_per_second: float
) -> float:
    """Share of an instance's time that goes to prompts at this rate."""
    return min(1.0, requests_per_second * work.prompt_tokens / profile.prefill_rate(clock_mhz))


def prefill_steps(profile: PerformanceProfile, work: Work) -> float:
    """Steps that a request spends in prefill."""
    return max(1.0, work.prompt_tokens / profile.prefill_chunk_tokens)


def _most_started(profile: PerformanceProfile, work: Work, max_concurrency: int) -> float:
    """Requests per step that chunk, slots and KV cache allow; at least one request at a time if it fits."""
    slots = _slots(profile, work, max_concurrency)
    steps = work.output_tokens - 1 + prefill_steps(profile, work)
    return min(profile.prefill_chunk_tokens / work.prompt_tokens, slots / steps)


def _slots(profile: PerformanceProfile, work: Work, max_concurrency: int) -> float:
    """Requests that can run together; 0 where one does not fit."""
    prompt, output = work.prompt_tokens, work.output_tokens
    if prompt + output > min(profile.kv_tokens, profile.max_model_len) or max_concurrency < 1:
        return 0.0
    in_prefill = prefill_steps(profile, work)
    kv_of_one = ((output - 1) * (prompt + output / 2) + in_prefill * prompt) / (output - 1 + in_prefill)
    free_kv = profile.kv_tokens - prompt / 2  # in the mean half a prompt's room is too small for the next one
    return min(float(max_concurrency), max(1.0, free_kv / kv_of_one))


def _decode_seconds(profile: PerformanceProfile, clock_mhz: float, work: Work, started: float) -> float:
    decoding = started * (work.output_tokens - 1)
    if decoding <= 0:
        return profile.prefill_step_seconds(clock_mhz)
    kv = decoding * (work.prompt_tokens + work.output_tokens / 2)
    kv += started * prefill_steps(profile, work) * work.prompt_tokens / 2
    return profile.itl_seconds(decoding, clock_mhz, kv)


def _step_seconds(profile: PerformanceProfile, clock_mhz: float, work: Work, started: float) -> float:
    prefill = started * work.prompt_tokens / profile.prefill_rate(clock_mhz)
    return _decode_seconds(profile, clock_mhz, work, started) + prefill


def _slot_wait(slots: float, running: float, residence: float) -> float:
    """Sakasegawa's M/D/c: seconds until one of the slots is free."""
    load = min(running / slots, _MOST_LOAD)
    return float(load ** (math.sqrt(2 * (slots + 1)) - 1)) / (slots * (1 - load)) * residence / 2


def _times(
    profile: PerformanceProfile, clock_mhz: float, work: Work, started: float, slots: float
) -> tuple[float, float, float]:
    """Wait, TTFT (the wait in it), E2E."""
    chunk, prompt = profile.prefill_chunk_tokens, work.prompt_tokens
    decode = _decode_seconds(profile, clock_mhz, work, started)
    prompt_seconds = prompt / profile.prefill_rate(clock_mhz)
    step = decode + started * prompt_seconds
    service = prompt / chunk * decode + prompt_seconds
    flow = started / step if step > 0 else 0.0  # nothing started, and a step that costs nothing by itself
    load = min(flow * service, _MOST_LOAD)
    ahead = load * load / (2 * (1 - load))
    behind = min((load + ahead) / (1 - load), slots - 1)
    output = work.output_tokens - 1
    full_steps = min(output, behind * prompt / chunk)
    full_step = max(step, decode + chunk / prompt * prompt_seconds)
    prefill = prefill_steps(profile, work) * decode + (1 + started) * prompt_seconds
    generation = full_steps * full_step + (output - full_steps) * step
    residence = prefill + generation
    wait = decode / 2 + ahead / max(load, 1e-9) * service
    wait += _slot_wait(slots, flow * residence, residence)
    return wait, wait + prefill, wait + residence


def _last_that_meets(
    profile: PerformanceProfile, clock_mhz: float, work: Work, most: float, slots: float, slo: Slo
) -> float:
    """The highest r up to `most` that meets the SLO; 0 if none does."""

    def is_met(started: float) -> bool:
        _, ttft, e2e = _times(profile, clock_mhz, work, started, slots)
        return ttft <= slo.ttft_seconds and e2e <= slo.e2e_seconds

    if is_met(most):
        return most
    low, high = 0.0, most
    if not is_met(low):
        return 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if is_met(middle):
            low = middle
        else:
            high = middle
    return low


def _started_at(profile: PerformanceProfile, clock_mhz: float, work: Work, rate: float, most: float) -> float:
    """The r with r ÷ T(r) = `rate`; `most` where that is more than it sustains."""
    if most / _step_seconds(profile, clock_mhz, work, most) <= rate:
        return most
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle < rate * _step_seconds(profile, clock_mhz, work, middle):
            low = middle
        else:
            high = middle
    return high
