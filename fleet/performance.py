"""What an instance can do and what it draws: the performance profile (DESIGN §3). Pure.

Rows hold one instance at full clock over the running batch; between them values are interpolated, outside
they are clamped and flagged. An engine step is made of parts that a lower clock slows down differently:

    step = other(batch) · other' + batch · compute · compute' + (weights + kv tokens · kv) · memory'

where x' = 1 − s + s ÷ g, g = clock ÷ full clock, s = that part's sensitivity in `ClockModel`. A step without
a decoding request lasts `step_overhead_seconds`; every prompt token in a step adds 1 ÷ prefill rate.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

DEFAULT_PREFILL_CHUNK_TOKENS = 2048
"""Most prompt tokens in one engine step: vLLM's `max_num_batched_tokens` as its documentation advises."""


UNKNOWN_KV_TOKENS = 1 << 30
"""KV cache of an engine that does not say: limits nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One operating point of one instance at full clock."""

    running_requests: int
    watts: float
    """All GPUs of the instance together."""
    itl_seconds: float
    """One decode step, with the KV tokens below in use."""
    kv_tokens: float = 0.0
    """All requests' context together while it was measured."""
    source: str
    """Begins with `measured`, `derived` (from measured figures), `modelled` or `assumed`."""
    watts_source: str = ""
    """The same of `watts`; empty: `source` is of both."""

    @property
    def is_measured(self) -> bool:
        """Measured, or worked out from measured figures of the same run."""
        return self.source.startswith(("measured", "derived"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockModel:
    """How time and watts follow the clock: modelled, no public table resolves clocks for a 70B model on H100.

    Sensitivity 0: as fast at any clock; 1: time inversely as the clock. Dynamic watts (above idle)
    are multiplied by share + (1 − share) · g^exponent: the memory's part does not follow the SM clock, the
    rest follows frequency × voltage². docs/profiles.md has the reasons and what is known from elsewhere.
    """

    memory_sensitivity: float = 0.1
    """Streaming weights and KV cache."""
    compute_sensitivity: float = 1.0
    """Matrix products."""
    other_sensitivity: float = 0.5
    """Launches, all-reduce, sampling, the host's share."""
    prefill_sensitivity: float = 0.9
    """Mostly matrix products."""
    decode_constant_share: float = 0.25
    prefill_constant_share: float = 0.1
    power_exponent: float = 2.4
    power_points: tuple[tuple[float, float], ...] = ()
    """Where measured: (g, dynamic watts ÷ those at full clock), ascending, the last (1, 1). They stand for
    the formula, in decode and prefill: straight between them (a little too much: the curve is hollow), flat
    below the first."""


@dataclass(frozen=True, kw_only=True)
class PerformanceProfile:
    """An instance of one model on one GPU type at one tensor-parallel degree."""

    profile_id: str
    model: str
    gpu_model: str
    tensor_parallel_degree: int
    full_clock_mhz: int
    clocks_mhz: tuple[int, ...]
    """Ascending; the last is the full clock."""
    stopped_watts: float
    """GPUs of the instance without an engine."""
    idle_watts: float
    """Engine awake and empty."""
    prefill_tokens_per_second: float
    """Of each further prompt token in a step, at full clock."""
    kv_tokens: int
    max_model_len: int
    rows: tuple[ProfileRow, ...]
    """Ascending by running requests."""
    idle_source: str
    prefill_source: str
    step_overhead_seconds: float = 0.0
    """A step that only prefills, beyond its tokens: weights are read and kernels launched all the same."""
    prefill_chunk_tokens: int = DEFAULT_PREFILL_CHUNK_TOKENS
    prefill_watts_at_full_clock: float | None = None
    """All GPUs while they only prefill; None: unknown, taken as the highest row."""
    kv_seconds_per_token: float = 0.0
    """What one token of context adds to a decode step, at full clock."""
    weights_seconds: float = 0.0
    """The memory's part of every step: the weights read once."""
    compute_seconds_per_request: float = 0.0
    """The matrix products' part of a decode step, for each request in it."""
    clock_model: ClockModel = ClockModel()
    kv_source: str = ""

    def __hash__(self) -> int:
        """Cheap, for memoised functions of a profile; equality still compares everything.

        Of the figures too: sites may have any number of profiles of one name. What is kept has no text in it,
        whose hash is another in every process: profiles go from one to the next.
        """
        return hash(self.profile_id) ^ self._figures_hash

    @property
    def has_assumed_watts(self) -> bool:
        """Whether nobody measured, or worked out, what an instance draws at work."""
        return any((row.watts_source or row.source).startswith("assumed") for row in self.rows)

    def speed_ratio(self, clock_mhz: float) -> float:
        """Prompt tokens per second at this clock ÷ at full clock (modelled)."""
        return 1 / self._slowdown(self.clock_model.prefill_sensitivity, clock_mhz)

    def dynamic_power_ratio(self, clock_mhz: float) -> float:
        """Watts above idle while decoding at this clock ÷ at full clock (modelled)."""
        return self._power_ratio(self.clock_model.decode_constant_share, clock_mhz)

    def itl_seconds(self, running_requests: float, clock_mhz: float, kv_tokens: float = 0.0) -> float:
        """One decode step of a batch whose requests hold `kv_tokens` of context together."""
        model = self.clock_model
        at_full = self._interpolate(running_requests, self._itl)
        memory = self.weights_seconds + self.kv_seconds_per_token * kv_tokens
        if clock_mhz == self.full_clock_mhz:
            return at_full + memory - self.weights_seconds
        within = min(max(running_requests, self._running[0]), self._running[-1])
        compute = self.compute_seconds_per_request * within
        other = at_full - self.weights_seconds - compute
        return (
            other * self._slowdown(model.other_sensitivity, clock_mhz)
            + compute * self._slowdown(model.compute_sensitivity, clock_mhz)
            + memory * self._slowdown(model.memory_sensitivity, clock_mhz)
        )

    def kv_seconds(self, clock_mhz: float) -> float:
        """What one token of context adds to a decode step at this clock; `itl_seconds` is linear in it."""
        return self.kv_seconds_per_token * self._slowdown(self.clock_model.memory_sensitivity, clock_mhz)

    def prefill_rate(self, clock_mhz: float) -> float:
        """Prompt tokens per second within a step."""
        return self.prefill_tokens_per_second * self.speed_ratio(clock_mhz)

    def prefill_step_seconds(self, clock_mhz: float) -> float:
        """A step that only prefills, without its tokens' own time."""
        other = self.step_overhead_seconds - min(self.weights_seconds, self.step_overhead_seconds)
        model = self.clock_model
        return other * self._slowdown(model.other_sensitivity, clock_mhz) + (
            self.step_overhead_seconds - other
        ) * self._slowdown(model.memory_sensitivity, clock_mhz)

    def prefill_seconds(self, prompt_tokens: float, clock_mhz: float) -> float:
        """Time to first token of one prompt alone on the engine."""
        steps = max(1, -(-prompt_tokens // self.prefill_chunk_tokens))
        return steps * self.prefill_step_seconds(clock_mhz) + prompt_tokens / self.prefill_rate(clock_mhz)

    def watts(self, running_requests: float, clock_mhz: float) -> float:
        """Draw of all GPUs of an awake instance, with the share of prefill that the measured load had."""
        if running_requests <= 0:
            return self.idle_watts
        busy = self._interpolate(running_requests, self._watts)
        return self.idle_watts + (busy - self.idle_watts) * self.dynamic_power_ratio(clock_mhz)

    def prefill_watts(self, clock_mhz: float) -> float:
        """Draw of all GPUs of an instance that prefills without pause."""
        full = self.prefill_watts_at_full_clock
        full = self._watts[-1] if full is None else full
        ratio = self._power_ratio(self.clock_model.prefill_constant_share, clock_mhz)
        return self.idle_watts + (full - self.idle_watts) * ratio

    def is_inside(self, running_requests: float) -> bool:
        """Whether the batch lies within the rows (else values are clamped)."""
        return self.rows[0].running_requests <= running_requests <= self.rows[-1].running_requests

    def _slowdown(self, sensitivity: float, clock_mhz: float) -> float:
        return 1 - sensitivity + sensitivity * self.full_clock_mhz / max(1, clock_mhz)

    def _power_ratio(self, constant_share: float, clock_mhz: float) -> float:
        g = clock_mhz / self.full_clock_mhz
        if self.clock_model.power_points:
            return interpolate(*zip(*self.clock_model.power_points, strict=True), at=g)
        return constant_share + (1 - constant_share) * float(g**self.clock_model.power_exponent)

    @cached_property
    def _figures_hash(self) -> int:
        rows = tuple((one.running_requests, one.watts, one.itl_seconds, one.kv_tokens) for one in self.rows)
        figures = [value for value in vars(self).values() if isinstance(value, int | float)]
        return hash((*figures, self.clocks_mhz, self.clock_model, rows))

    @cached_property
    def _running(self) -> tuple[int, ...]:
        return tuple(row.running_requests for row in self.rows)

    @cached_property
    def _watts(self) -> tuple[float, ...]:
        return tuple(row.watts for row in self.rows)

    @cached_property
    def _itl(self) -> tuple[float, ...]:
        """The rows' decode steps without any context."""
        return tuple(row.itl_seconds - row.kv_tokens * self.kv_seconds_per_token for row in self.rows)

    def _interpolate(self, running_requests: float, values: tuple[float, ...]) -> float:
        return interpolate(self._running, values, at=running_requests)


def interpolate(places: tuple[float, ...], values: tuple[float, ...], *, at: float) -> float:
    """Straight between the places, which ascend; outside the value at the end."""
    position = bisect_right(places, at)
    if position == 0:
        return values[0]
    if position == len(places):
        return values[-1]
    low, high = places[position - 1], places[position]
    share = (at - low) / (high - low)
    return values[position - 1] + share * (values[position] - values[position - 1])
