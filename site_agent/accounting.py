"""Where a site's joules went: prefill, decode, idle; and what became of the wind. Pure.

Each interval's energy of an instance is split between the tokens that it prefilled and those that it decoded
in that time, in proportion to the time that the profile gives them:

    prefill : decode = prompt tokens × prefill seconds per token : output tokens × ITL(batch) ÷ batch

An interval without a token is idle, and so is all that belongs to no instance: hosts, GPUs without an engine.
Overhead (cooling, conversion) goes with the watts that cause it. By construction the phases sum to the site's
energy; that energy is the site's meter where it has one, else the GPUs' own counters, else the integral of
the draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["prefill", "decode", "idle", "unsplit"]
"""`unsplit`: an engine that worked, and did not say on how many tokens."""
PHASES: tuple[Phase, ...] = ("prefill", "decode", "idle", "unsplit")
PRICE_SECONDS = 10.0
"""Prices per token follow the last ten seconds in which there were tokens."""
MIN_PRICE_SECONDS = 3.0
"""Of such time until a price is said: at a start the engines' counters are late, and the first second's
energy falls to a few tokens."""
MAX_GAP_SECONDS = 10.0
"""A longer silence (a machine that stood still) is not accounted for: nobody knows what was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceMoment:
    """One awake instance, as counters that only grow; None: unknown."""

    instance_id: str
    gpu_joules: float | None
    """Its GPUs' own counter."""
    modelled_watts: float
    """Of its GPUs, by the profile: used where there is no counter."""
    prompt_tokens: float | None
    output_tokens: float | None
    prefill_seconds_per_token: float
    decode_seconds_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMoment:
    """The site at one instant (monotonic)."""

    at: float
    draw_joules: float
    """Integral of the site's draw."""
    is_measured: bool
    """That draw is a meter's or the GPUs', not a model's."""
    is_metered: bool = False
    """By a meter of the whole site, which then comes before the GPUs' counters."""
    gpu_joules: Mapping[int, float]
    """Every GPU's own counter, by index; empty: they have none."""
    gpu_count: int
    overhead_ratio: float
    host_idle_watts: float
    granted_watts: float | None
    available_watts: float | None
    nameplate_watts: float | None
    """The last two are the farm's."""
    instances: Sequence[InstanceMoment]


@dataclass(slots=True)
class _Price:
    """Joules per token of one phase, of late; while there are no tokens it stays."""

    joules: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, joules: float, tokens: float, elapsed: float) -> None:
        if tokens <= 0:
            return
        kept = math.exp(-elapsed / PRICE_SECONDS)
        self.joules, self.tokens = self.joules * kept + joules, self.tokens * kept + tokens
        self.seconds += elapsed

    @property
    def joules_per_token(self) -> float | None:
        return self.joules / self.tokens if self.seconds >= MIN_PRICE_SECONDS else None


@dataclass(slots=True)
class EnergyAccount:
    """One per site; `observe` about once a second. Everything only grows, but for the prices."""

    joules: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    measured_joules: float = 0.0
    """Of all of them, what was measured."""
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0
    granted_joules: float = 0.0
    wind_used_joules: float = 0.0
    """Drawn within the grant."""
    curtailed_joules: float = 0.0
    """Granted and not drawn."""
    available_joules: float = 0.0
    nameplate_joules: float = 0.0
    """Of the farm: their ratio is its capacity factor over the same time."""
    unaccounted_seconds: float = 0.0
    _prefill: _Price = field(default_factory=_Price)
    _decode: _Price = field(default_factory=_Price)
    _last: SiteMoment | None = None

    @property
    def total_joules(self) -> float:
        return sum(self.joules.values())

    @property
    def joules_per_prompt_token(self) -> float | None:
        """Of late, overhead included, idle time not; None: too little was prefilled yet."""
        return self._prefill.joules_per_token

    @property
    def joules_per_output_token(self) -> float | None:
        return self._decode.joules_per_token

    @property
    def capacity_factor_ratio(self) -> float | None:
        """The farm's, over the agent's life; None: no nameplate is known."""
        return self.available_joules / self.nameplate_joules if self.nameplate_joules > 0 else None

    def observe(self, moment: SiteMoment) -> None:
        """Account for the time since the last moment."""
        last, self._last = self._last, moment
        if last is None or moment.at <= last.at:
            return
        elapsed = moment.at - last.at
        if elapsed > MAX_GAP_SECONDS:
            self.unaccounted_seconds += elapsed
            return
        site_joules = _site_joules(last, moment, elapsed)
        if moment.is_measured:
            self.measured_joules += site_joules
        left = site_joules - self._instances(last, moment, elapsed, site_joules)
        self.joules["idle"] += left
        self._wind(moment, site_joules, elapsed)

    def _instances(self, last: SiteMoment, moment: SiteMoment, elapsed: float, most: float) -> float:
        """Split what instances took; returns the sum, never more than the site's."""
        before = {one.instance_id: one for one in last.instances}
        spent = 0.0
        prefill = decode = prompt = output = 0.0
        for one in moment.instances:
            then = before.get(one.instance_id)
            joules = _instance_joules(then, one, elapsed) * moment.overhead_ratio
            joules = min(joules, most - spent)
            if then is None or joules <= 0:
                continue
            prompt_tokens = _increase(then.prompt_tokens, one.prompt_tokens)
            output_tokens = _increase(then.output_tokens, one.output_tokens)
            if prompt_tokens is None or output_tokens is None:
                self.joules["unsplit"] += joules
                spent += joules
                continue
            prefill_time = prompt_tokens * one.prefill_seconds_per_token
            decode_time = output_tokens * one.decode_seconds_per_token
            if prefill_time + decode_time <= 0:
                continue
            part = joules * prefill_time / (prefill_time + decode_time)
            prefill, decode = prefill + part, decode + joules - part
            prompt, output = prompt + prompt_tokens, output + output_tokens
            spent += joules
        self.joules["prefill"] += prefill
        self.joules["decode"] += decode
        self.prompt_tokens += prompt
        self.output_tokens += output
        self._prefill.add(prefill, prompt, elapsed)
        self._decode.add(decode, output, elapsed)
        return spent

    def _wind(self, moment: SiteMoment, site_joules: float, elapsed: float) -> None:
        if moment.granted_watts is not None:
            granted = moment.granted_watts * elapsed
            self.granted_joules += granted
            self.wind_used_joules += min(site_joules, granted)
            self.curtailed_joules += max(0.0, granted - site_joules)
        if moment.available_watts is not None and moment.nameplate_watts is not None:
            self.available_joules += moment.available_watts * elapsed
            self.nameplate_joules += moment.nameplate_watts * elapsed


def _site_joules(last: SiteMoment, moment: SiteMoment, elapsed: float) -> float:
    """Without a meter by the GPUs' counters where every GPU has one that only grew; else by the draw."""
    if moment.is_metered:
        return max(0.0, moment.draw_joules - last.draw_joules)
    if len(moment.gpu_joules) == moment.gpu_count > 0 and moment.gpu_joules.keys() == last.gpu_joules.keys():
        grown = sum(moment.gpu_joules.values()) - sum(last.gpu_joules.values())
        if grown >= 0:
            return (grown + moment.host_idle_watts * elapsed) * moment.overhead_ratio
    return max(0.0, moment.draw_joules - last.draw_joules)


def _instance_joules(then: InstanceMoment | None, one: InstanceMoment, elapsed: float) -> float:
    """Of its GPUs, overhead apart."""
    grown = _increase(None if then is None else then.gpu_joules, one.gpu_joules)
    return one.modelled_watts * elapsed if grown is None else grown


def _increase(before: float | None, after: float | None) -> float | None:
    """None: unknown, or the counter began anew."""
    if before is None or after is None or after < before:
        return None
    return after - before
