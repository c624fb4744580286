"""A performance profile on the wire: what a site reckons its engines with, in its own SiteInfo. Pure.

Rule: what is taken here can be computed with. Every value has a range, rows and clocks ascend, a larger batch
is never faster and no part of a step is longer than the step: whatever the clock, batch or context, a step
takes some time, and neither none nor less. `fleet.profiles.measured` keeps the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Annotated, Self

from pydantic import Field, model_validator

from fleet.performance import DEFAULT_PREFILL_CHUNK_TOKENS, ClockModel, PerformanceProfile, ProfileRow
from fleet.wire import Items, Text, WirePart

MAX_SITE_PROFILES = 8
"""One a tensor-parallel degree."""
MAX_PROFILE_ROWS = 64
MAX_PROFILE_CLOCKS = 64
"""Eight such profiles, and a configuration for each of their clocks, are within a record's size."""
LEAST_STEP_SECONDS = 1e-6
"""Of a step without context: a kernel's launch alone takes longer."""
ROUNDING = 1e-9
"""Of a step: fitted coefficients come to it only so nearly."""
_REMEMBERED = 4096
"""Profiles made of records. Equal ones are one object, which makes comparing them cheap."""

Batch = Annotated[int, Field(ge=1, le=1 << 16)]
Clock = Annotated[int, Field(ge=1, le=20_000)]
InstanceWatts = Annotated[float, Field(ge=0, le=1e6)]
StepSeconds = Annotated[float, Field(ge=0, le=3600)]
Tokens = Annotated[int, Field(ge=1, le=1 << 30)]
Share = Annotated[float, Field(ge=0, le=1)]
_CLOCK = ClockModel()


class ProfileRowInfo(WirePart):
    """One running batch at full clock."""

    running_requests: Batch
    watts: InstanceWatts
    """All GPUs of the instance together."""
    itl_seconds: StepSeconds
    kv_tokens: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    """All requests' context together, that `itl_seconds` was taken with."""


class ClockPowerInfo(WirePart):
    """Watts above idle at a clock, beside those at full clock."""

    clock_ratio: Annotated[float, Field(gt=0, le=1)]
    dynamic_ratio: Share


class ClockModelInfo(WirePart):
    """How time and watts follow the clock; what is missing is as `fleet.performance.ClockModel` has it."""

    memory_sensitivity: Share = _CLOCK.memory_sensitivity
    compute_sensitivity: Share = _CLOCK.compute_sensitivity
    other_sensitivity: Share = _CLOCK.other_sensitivity
    prefill_sensitivity: Share = _CLOCK.prefill_sensitivity
    decode_constant_share: Share = _CLOCK.decode_constant_share
    prefill_constant_share: Share = _CLOCK.prefill_constant_share
    power_exponent: Annotated[float, Field(ge=0, le=10)] = _CLOCK.power_exponent
    power_points: Annotated[Items[ClockPowerInfo], Field(max_length=MAX_PROFILE_CLOCKS)] = ()
    """Measured, in place of the last three; ascending, the last 1 and 1."""

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.power_points:
            _check_rising("power_points.clock_ratio", [one.clock_ratio for one in self.power_points])
            last = self.power_points[-1]
            if (last.clock_ratio, last.dynamic_ratio) != (1.0, 1.0):
                raise ValueError("power_points must end at 1 and 1: they are ratios to full clock")
        return self


class ProfileInfo(WirePart):
    """One instance of one model at one tensor-parallel degree, as the site itself reckons with it."""

    profile_id: Annotated[str, Field(min_length=1, max_length=512)]
    model: Text = ""
    gpu_model: Text = ""
    tensor_parallel_degree: Annotated[int, Field(ge=1, le=4096)]
    full_clock_mhz: Clock
    clocks_mhz: Annotated[Items[Clock], Field(max_length=MAX_PROFILE_CLOCKS)] = ()
    """Ascending, the last the full clock; missing: that one alone."""
    stopped_watts: InstanceWatts
    """All its GPUs without an engine."""
    idle_watts: InstanceWatts
    """Engine awake and empty."""
    rows: Annotated[Items[ProfileRowInfo], Field(min_length=1, max_length=MAX_PROFILE_ROWS)]
    prefill_tokens_per_second: Annotated[float, Field(ge=1e-3, le=1e8)]
    step_overhead_seconds: StepSeconds = 0.0
    prefill_chunk_tokens: Tokens = DEFAULT_PREFILL_CHUNK_TOKENS
    prefill_watts: InstanceWatts | None = None
    """At full clock, of nothing but prefill; missing: as the last row."""
    kv_seconds_per_token: Annotated[float, Field(ge=0, le=1)] = 0.0
    weights_seconds: StepSeconds = 0.0
    compute_seconds_per_request: StepSeconds = 0.0
    kv_tokens: Tokens
    max_model_len: Tokens
    clock_model: ClockModelInfo = ClockModelInfo()
    source: Text = ""
    """Where it is from, for people; begins with measured, derived, modelled or assumed."""

    @model_validator(mode="after")
    def _can_be_computed_with(self) -> Self:
        if self.clocks_mhz:
            _check_rising("clocks_mhz", self.clocks_mhz)
            if self.clocks_mhz[-1] != self.full_clock_mhz:
                raise ValueError(f"the last of clocks_mhz must be full_clock_mhz, {self.full_clock_mhz}")
        if self.stopped_watts > self.idle_watts:
            raise ValueError("stopped_watts is above idle_watts")
        busy = [row.watts for row in self.rows]
        busy += [] if self.prefill_watts is None else [self.prefill_watts]
        if min(busy) < self.idle_watts:
            raise ValueError(f"an instance at work draws {min(busy):g} W, less than its idle_watts")
        _check_rising("rows.running_requests", [row.running_requests for row in self.rows])
        self._check_steps()
        return self

    def _check_steps(self) -> None:
        before = 0.0
        for number, row in enumerate(self.rows, 1):
            step = row.itl_seconds - row.kv_tokens * self.kv_seconds_per_token
            parts = self.weights_seconds + row.running_requests * self.compute_seconds_per_request
            if step < LEAST_STEP_SECONDS or step < before - ROUNDING * row.itl_seconds:
                than = "any engine needs" if step < LEAST_STEP_SECONDS else "one of a smaller batch"
                raise ValueError(f"row {number}: without context a step takes {step:.3g} s, less than {than}")
            if parts > step:
                raise ValueError(
                    f"row {number}: weights_seconds and compute_seconds_per_request are {parts:.3g} s of a "
                    f"step of {step:.3g} s without context"
                )
            before = max(before, step)

    @cached_property
    def profile(self) -> PerformanceProfile:
        """What decisions compute with; one object for all equal records."""
        return _profile_of(self)

    @classmethod
    def of(cls, profile: PerformanceProfile) -> Self:
        """The same profile as a record.

        Raises:
            pydantic.ValidationError: a value that records do not carry, or too many rows or clocks.
        """
        clock = profile.clock_model
        sources = {row.watts_source or row.source for row in profile.rows}
        source = next((one for one in sorted(sources) if one.startswith("assumed")), profile.rows[0].source)
        fits = _parts_that_fit(profile)
        return cls(
            profile_id=profile.profile_id,
            model=profile.model,
            gpu_model=profile.gpu_model,
            tensor_parallel_degree=profile.tensor_parallel_degree,
            full_clock_mhz=profile.full_clock_mhz,
            clocks_mhz=profile.clocks_mhz,
            stopped_watts=profile.stopped_watts,
            idle_watts=profile.idle_watts,
            rows=tuple(
                ProfileRowInfo(
                    running_requests=row.running_requests,
                    watts=row.watts,
                    itl_seconds=row.itl_seconds,
                    kv_tokens=row.kv_tokens,
                )
                for row in profile.rows
            ),
            prefill_tokens_per_second=profile.prefill_tokens_per_second,
            step_overhead_seconds=profile.step_overhead_seconds,
            prefill_chunk_tokens=profile.prefill_chunk_tokens,
            prefill_watts=profile.prefill_watts_at_full_clock,
            kv_seconds_per_token=profile.kv_seconds_per_token,
            weights_seconds=fits * profile.weights_seconds,
            compute_seconds_per_request=fits * profile.compute_seconds_per_request,
            kv_tokens=profile.kv_tokens,
            max_model_len=profile.max_model_len,
            clock_model=ClockModelInfo(
                memory_sensitivity=clock.memory_sensitivity,
                compute_sensitivity=clock.compute_sensitivity,
                other_sensitivity=clock.other_sensitivity,
                prefill_sensitivity=clock.prefill_sensitivity,
                decode_constant_share=clock.decode_constant_share,
                prefill_constant_share=clock.prefill_constant_share,
                power_exponent=clock.power_exponent,
                power_points=tuple(
                    ClockPowerInfo(clock_ratio=ratio, dynamic_ratio=watts)
                    for ratio, watts in clock.power_points
                ),
            ),
            source=source[:512],
        )


@lru_cache(maxsize=_REMEMBERED)
def _profile_of(info: ProfileInfo) -> PerformanceProfile:
    clock = info.clock_model
    points = tuple((one.clock_ratio, one.dynamic_ratio) for one in clock.power_points)
    return PerformanceProfile(
        profile_id=info.profile_id,
        model=info.model,
        gpu_model=info.gpu_model,
        tensor_parallel_degree=info.tensor_parallel_degree,
        full_clock_mhz=info.full_clock_mhz,
        clocks_mhz=info.clocks_mhz or (info.full_clock_mhz,),
        stopped_watts=info.stopped_watts,
        idle_watts=info.idle_watts,
        prefill_tokens_per_second=info.prefill_tokens_per_second,
        kv_tokens=info.kv_tokens,
        max_model_len=info.max_model_len,
        rows=tuple(
            ProfileRow(
                running_requests=row.running_requests,
                watts=row.watts,
                itl_seconds=row.itl_seconds,
                kv_tokens=row.kv_tokens,
                source=info.source,
            )
            for row in info.rows
        ),
        idle_source=info.source,
        prefill_source=info.source,
        step_overhead_seconds=info.step_overhead_seconds,
        prefill_chunk_tokens=info.prefill_chunk_tokens,
        prefill_watts_at_full_clock=info.prefill_watts,
        kv_seconds_per_token=info.kv_seconds_per_token,
        weights_seconds=info.weights_seconds,
        compute_seconds_per_request=info.compute_seconds_per_request,
        clock_model=ClockModel(**clock.model_dump(exclude={"power_points"}), power_points=points),
    )


def _parts_that_fit(profile: PerformanceProfile) -> float:
    """1; a little less where rounding made the parts of a step longer than the step."""
    ratio = 1.0
    for row in profile.rows:
        step = row.itl_seconds - row.kv_tokens * profile.kv_seconds_per_token
        parts = profile.weights_seconds + row.running_requests * profile.compute_seconds_per_request
        if step < parts <= step * (1 + ROUNDING):
            ratio = min(ratio, (1 - ROUNDING) * step / parts)
    return ratio


def _check_rising(name: str, values: Sequence[float]) -> None:
    if any(low >= high for low, high in itertools.pairwise(values)):
        raise ValueError(f"{name} must ascend, each once")
