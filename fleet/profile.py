"""What an engine can do and what it draws: the performance profile (DESIGN §3). Pure.

Measured rows at full clock are interpolated over the running batch; outside the rows the value is clamped
and flagged. Clocks scale the rows by a model that is marked as modelled:

* throughput × 1 / (0.65 + 0.35 / g), dynamic power × (0.25 + 0.75 · g^2.4), g = clock ÷ full clock
  (FACTS.md, "a fluid estimate"; issue 4 replaces it by a fitted one).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One operating point of one instance at full clock."""

    running_requests: int
    watts: float
    """All GPUs of the instance together."""
    itl_seconds: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
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
    kv_tokens: int
    max_model_len: int
    rows: tuple[ProfileRow, ...]
    """Ascending by running requests."""
    idle_source: str
    prefill_source: str

    def speed_ratio(self, clock_mhz: int) -> float:
        """Tokens per second at this clock ÷ at full clock (modelled)."""
        g = max(1, clock_mhz) / self.full_clock_mhz
        return 1 / (0.65 + 0.35 / g)

    def dynamic_power_ratio(self, clock_mhz: int) -> float:
        """Watts above idle at this clock ÷ at full clock (modelled)."""
        g = clock_mhz / self.full_clock_mhz
        return 0.25 + 0.75 * float(g**2.4)

    def itl_seconds(self, running_requests: float, clock_mhz: int) -> float:
        """Gap between two tokens of one request."""
        return self._interpolate(running_requests, "itl_seconds") / self.speed_ratio(clock_mhz)

    def watts(self, running_requests: float, clock_mhz: int) -> float:
        """Draw of all GPUs of an awake instance."""
        if running_requests <= 0:
            return self.idle_watts
        busy = self._interpolate(running_requests, "watts")
        return self.idle_watts + (busy - self.idle_watts) * self.dynamic_power_ratio(clock_mhz)

    def prefill_seconds(self, prompt_tokens: int, clock_mhz: int) -> float:
        """Time to first token of one prompt alone."""
        return prompt_tokens / (self.prefill_tokens_per_second * self.speed_ratio(clock_mhz))

    def is_inside(self, running_requests: float) -> bool:
        """Whether the batch lies within the measured rows (else values are clamped)."""
        return self.rows[0].running_requests <= running_requests <= self.rows[-1].running_requests

    def _interpolate(self, running_requests: float, name: str) -> float:
        rows = self.rows
        position = bisect_right([row.running_requests for row in rows], running_requests)
        if position == 0:
            return float(getattr(rows[0], name))
        if position == len(rows):
            return float(getattr(rows[-1], name))
        low, high = rows[position - 1], rows[position]
        share = (running_requests - low.running_requests) / (high.running_requests - low.running_requests)
        return float(getattr(low, name) + share * (getattr(high, name) - getattr(low, name)))


_ML_ENERGY = "measured: ML.ENERGY benchmark v3, Llama-3.1-70B-Instruct, bf16, 4×H100, vLLM, closed loop"

LLAMA_70B_H100_TP4 = PerformanceProfile(
    profile_id="llama-3.1-70b/h100/tp4",
    model="llama-3.1-70b",
    gpu_model="H100-80GB (emulated)",
    tensor_parallel_degree=4,
    full_clock_mhz=1980,
    clocks_mhz=(800, 1000, 1200, 1400, 1600, 1800, 1980),
    stopped_watts=4 * 70.0,
    idle_watts=4 * 115.0,
    prefill_tokens_per_second=8_500.0,
    kv_tokens=400_000,
    max_model_len=8_192,
    rows=(
        ProfileRow(running_requests=8, watts=1765, itl_seconds=0.017, source=_ML_ENERGY),
        ProfileRow(running_requests=16, watts=1804, itl_seconds=0.018, source=_ML_ENERGY),
        ProfileRow(running_requests=32, watts=1794, itl_seconds=0.020, source=_ML_ENERGY),
        ProfileRow(running_requests=64, watts=2002, itl_seconds=0.022, source=_ML_ENERGY),
        ProfileRow(running_requests=128, watts=2184, itl_seconds=0.028, source=_ML_ENERGY),
        ProfileRow(running_requests=256, watts=2354, itl_seconds=0.040, source=_ML_ENERGY),
        ProfileRow(running_requests=512, watts=2493, itl_seconds=0.074, source=_ML_ENERGY),
        ProfileRow(running_requests=1024, watts=2548, itl_seconds=0.106, source=_ML_ENERGY),
    ),
    idle_source="awake idle: vLLM sleep-mode note, about 115 W per H100; without a context: assumed 70 W",
    prefill_source="Splitwise, Llama-2-70B, 512-token prompt on H100 TP4: 60 ms (512 ÷ 0.060 s)",
)
"""The default: published figures at full clock, clocks modelled."""

PROFILES: dict[str, PerformanceProfile] = {LLAMA_70B_H100_TP4.profile_id: LLAMA_70B_H100_TP4}


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePowerModel:
    """What a whole site draws: GPUs × overhead + hosts."""

    overhead_ratio: float = 1.1
    host_idle_watts: float = 0.0
    """Hosts, switches and the agent itself, before overhead."""

    def site_watts(self, gpu_watts: float) -> float:
        """Draw of the site when all its GPUs together draw `gpu_watts`."""
        return (gpu_watts + self.host_idle_watts) * self.overhead_ratio
