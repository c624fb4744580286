"""The event-per-request engine against the step-by-step one, and its own rules."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.profile import LLAMA_70B_H100_TP4, PerformanceProfile
from replay.synthetic import SyntheticSpec, generate
from simulator.engine import NEVER, SimulatedEngine
from simulator.sequence import Sequence
from site_agent.emulation.engine import EmulatedEngine
from site_agent.emulation.engine import Sequence as SteppedSequence

PROFILE: PerformanceProfile = LLAMA_70B_H100_TP4
Arrival = tuple[float, int, int]
Times = dict[int, tuple[float, float]]
"""Arrival → first token and last token."""


class PrefillTime:
    """Adds up what of an engine's time goes to prompts, by what it says of itself."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def until(self, now: float, engine: EmulatedEngine | SimulatedEngine) -> None:
        """Nothing has happened to it since."""
        assert 0 <= engine.prefill_ratio <= 1
        self.seconds += engine.prefill_ratio * (now - self._since)
        self._since = now


def stepped(
    arrivals: list[Arrival],
    *,
    max_concurrency: int,
    kv_tokens: int | None = None,
    prefill: PrefillTime | None = None,
) -> Times:
    """Times by the step-by-step engine, driven without any lateness."""
    engine = EmulatedEngine(
        PROFILE, max_concurrency=max_concurrency, kv_tokens=kv_tokens, max_waiting=1_000_000
    )
    pending = list(enumerate(arrivals))
    first: dict[int, float] = {}
    times: Times = {}
    prefill = prefill or PrefillTime()
    while pending or engine.step_ends_at is not None:
        ends_at = engine.step_ends_at
        if pending and (ends_at is None or pending[0][1][0] <= ends_at):
            index, (at, prompt, output) = pending.pop(0)
            prefill.until(at, engine)
            engine.submit(SteppedSequence(prompt_tokens=prompt, max_tokens=output, owner=index), at)
            continue
        assert ends_at is not None
        prefill.until(ends_at, engine)
        for sequence in engine.complete_step():
            first.setdefault(sequence.owner, ends_at)
            if sequence.finish_reason is not None:
                times[sequence.owner] = (first[sequence.owner], ends_at)
        engine.begin_step(ends_at)
    return times


def simulated(
    arrivals: list[Arrival],
    *,
    max_concurrency: int,
    kv_tokens: int | None = None,
    prefill: PrefillTime | None = None,
) -> tuple[Times, SimulatedEngine]:
    """Times by the simulator's engine."""
    times: Times = {}
    prefill = prefill or PrefillTime()

    def finished(sequence: Sequence, now: float) -> None:
        assert sequence.first_token_at is not None
        times[sequence.owner] = (sequence.first_token_at, now)

    engine = SimulatedEngine(
        PROFILE,
        max_concurrency=max_concurrency,
        kv_tokens=kv_tokens,
        max_waiting=1_000_000,
        on_first_token=lambda _sequence, _now: None,
        on_finish=finished,
    )
    pending = list(enumerate(arrivals))
    while pending or engine.next_at != NEVER:
        if pending and pending[0][1][0] <= engine.next_at:
            index, (at, prompt, output) = pending.pop(0)
            prefill.until(at, engine)
            assert engine.submit(Sequence(prompt_tokens=prompt, max_tokens=output, owner=index), at)
        else:
            prefill.until(engine.next_at, engine)
            engine.advance()
    return times, engine


def quantile(values: list[float], ratio: float) -> float:
    return sorted(values)[min(len(values) - 1, int(ratio * len(values)))]


def arrivals_of(rate: float, count: int, seed: int) -> list[Arrival]:
    spec = SyntheticSpec(shape="conv", requests_per_second=rate, max_prompt_tokens=7000)
    drawn = generate(spec, random.Random(seed))
    requests = [next(drawn) for _ in range(count)]
    return [(one.at_seconds, one.prompt_tokens, one.output_tokens) for one in requests]


@pytest.mark.parametrize("rate", [0.5, 2.0, 4.0, 8.0])
@pytest.mark.parametrize("max_concurrency", [16, 128])
def test_times_are_those_of_the_step_by_step_engine(rate: float, max_concurrency: int) -> None:
    """TTFT and E2E: p50 within 10 %, p99 within 20 %; in fact every request's times are the same."""
    arrivals = arrivals_of(rate, 400, seed=1)
    exact = stepped(arrivals, max_concurrency=max_concurrency)
    fast, _ = simulated(arrivals, max_concurrency=max_concurrency)
    assert fast.keys() == exact.keys() == set(range(len(arrivals)))
    for part in (0, 1):
        ours = [fast[index][part] - arrivals[index][0] for index in fast]
        theirs = [exact[index][part] - arrivals[index][0] for index in exact]
        assert quantile(ours, 0.5) == pytest.approx(quantile(theirs, 0.5), rel=0.10)
        assert quantile(ours, 0.99) == pytest.approx(quantile(theirs, 0.99), rel=0.20)
    off = max(abs(fast[index][part] - exact[index][part]) for index in fast for part in (0, 1))
    assert off < 1e-6


@pytest.mark.parametrize("rate", [0.5, 4.0, 8.0])
def test_both_say_how_much_of_the_time_goes_to_prompts(rate: float) -> None:
    """All prompt tokens ÷ the rate at which they are read."""
    arrivals = arrivals_of(rate, 300, seed=2)
    ours, theirs = PrefillTime(), PrefillTime()
    stepped(arrivals, max_concurrency=64, prefill=theirs)
    simulated(arrivals, max_concurrency=64, prefill=ours)
    seconds = sum(prompt for _, prompt, _ in arrivals) / PROFILE.prefill_rate(PROFILE.full_clock_mhz)
    assert theirs.seconds == pytest.approx(seconds)
    assert ours.seconds == pytest.approx(seconds, rel=1e-3)


def test_a_full_cache_preempts_and_loses_nobody() -> None:
    """With a small KV cache sequences are preempted, computed anew, and all of them end."""
    arrivals = [(0.01 * index, 1000, 700) for index in range(40)]
    exact = stepped(arrivals, max_concurrency=64, kv_tokens=16_000)
    fast, engine = simulated(arrivals, max_concurrency=64, kv_tokens=16_000)
    assert engine.preemptions > 0
    assert fast.keys() == exact.keys()
    assert engine.kv_used_tokens == 0
    theirs = sorted(end for _, end in exact.values())
    ours = sorted(end for _, end in fast.values())
    assert ours[-1] == pytest.approx(theirs[-1], rel=0.1)


def test_a_lower_clock_counts_from_the_next_step() -> None:
    """A clock set in the middle of a run slows what is left of it."""
    ends: list[float] = []
    engine = SimulatedEngine(
        PROFILE,
        max_concurrency=16,
        on_first_token=lambda _sequence, _now: None,
        on_finish=lambda _sequence, now: ends.append(now),
    )
    engine.submit(Sequence(prompt_tokens=512, max_tokens=101), 0.0)
    engine.advance()
    fast = PROFILE.itl_seconds(1, 1980)
    began = PROFILE.prefill_seconds(512, 1980)
    engine.set_clock(800, began + 49.5 * fast)
    while engine.next_at != NEVER:
        engine.advance()
    assert ends[0] == pytest.approx(began + 50 * fast + 50 * PROFILE.itl_seconds(1, 800), rel=0.02)


def test_a_stopped_engine_says_how_far_each_came() -> None:
    """What was under way comes back with the tokens that it has had, and the engine is empty."""
    engine = SimulatedEngine(
        PROFILE,
        max_concurrency=16,
        on_first_token=lambda _sequence, _now: None,
        on_finish=lambda _sequence, _now: None,
    )
    engine.submit(Sequence(prompt_tokens=512, max_tokens=100, owner="a"), 0.0)
    engine.advance()
    engine.submit(Sequence(prompt_tokens=5000, max_tokens=100, owner="b"), 0.1)
    now = PROFILE.prefill_seconds(512, 1980) + 5.5 * PROFILE.itl_seconds(1, 1980)
    over = engine.stop(now)
    assert [one.owner for one in over] == ["a", "b"]
    assert 1 <= over[0].output_tokens <= 6
    assert over[1].output_tokens == 0
    assert engine.next_at == NEVER
    assert engine.is_idle


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 4000), st.integers(1, 300)), min_size=1, max_size=40
    ),
    max_concurrency=st.integers(1, 32),
)
@settings(max_examples=60, deadline=None)
def test_every_request_ends_whatever_comes(arrivals: list[Arrival], max_concurrency: int) -> None:
    """Nothing is lost, nothing ends before it came, and the cache is empty at the end."""
    arrivals = sorted(arrivals)
    times, engine = simulated(arrivals, max_concurrency=max_concurrency, kv_tokens=9000)
    assert set(times) == set(range(len(arrivals)))
    assert engine.kv_used_tokens == 0
    assert not engine.running
    for index, (first, last) in times.items():
        assert arrivals[index][0] < first <= last
