"""Continuous batching by the profile: timing by table, KV limits, preemption, faults."""

from __future__ import annotations

import dataclasses
import random

import pytest

from fleet.profile import PerformanceProfile, ProfileRow
from site_agent.emulation.engine import EmulatedEngine, QueueFullError, Sequence

PROFILE = PerformanceProfile(
    profile_id="test",
    model="test",
    gpu_model="test",
    tensor_parallel_degree=1,
    full_clock_mhz=2000,
    clocks_mhz=(1000, 2000),
    stopped_watts=70,
    idle_watts=100,
    prefill_tokens_per_second=1000.0,
    kv_tokens=1000,
    max_model_len=500,
    rows=(
        ProfileRow(running_requests=1, watts=300, itl_seconds=0.010, source="test"),
        ProfileRow(running_requests=11, watts=400, itl_seconds=0.020, source="test"),
    ),
    idle_source="test",
    prefill_source="test",
)


def make_engine(**changes: object) -> EmulatedEngine:
    """An engine with chunks of 100 prompt tokens, 10 ms a token for one, 11 ms for two."""
    options: dict[str, object] = {"max_concurrency": 8, "prefill_chunk_tokens": 100} | changes
    return EmulatedEngine(PROFILE, **options)  # type: ignore[arg-type]


def sequence(prompt_tokens: int, max_tokens: int, name: str = "") -> Sequence:
    """One request that the test calls by a name."""
    return Sequence(prompt_tokens=prompt_tokens, max_tokens=max_tokens, owner=name)


def known(ids: range, max_tokens: int = 1, name: str = "") -> Sequence:
    """One request whose ids the engine may know again; its answer counts on from its prompt."""
    return Sequence(
        prompt_tokens=len(ids),
        max_tokens=max_tokens,
        owner=name,
        history=lambda count: range(ids.start, ids.start + count),
    )


def run(engine: EmulatedEngine, until: float = float("inf")) -> list[tuple[float, str]]:
    """Every token as (when, whose), with a driver that is never late."""
    trace = []
    while engine.step_ends_at is not None and engine.step_ends_at <= until:
        now = engine.step_ends_at
        trace += [(round(now, 6), str(done.owner)) for done in engine.complete_step()]
        engine.begin_step(now)
        check(engine)
    return trace


def check(engine: EmulatedEngine) -> None:
    """What holds between any two steps."""
    assert engine.kv_used_tokens == sum(one.kv_tokens for one in (*engine.running, *engine.waiting))
    assert 0 <= engine.kv_used_tokens <= engine.kv_tokens
    assert len(engine.running) <= engine.max_concurrency


def test_one_request_alone_takes_prefill_and_then_one_itl_a_token() -> None:
    """First token after prompt ÷ prefill rate, as the profile says."""
    engine = make_engine()
    engine.submit(sequence(60, 3, "a"), 5.0)
    assert run(engine) == [(5.06, "a"), (5.07, "a"), (5.08, "a")]
    assert engine.step_ends_at is None
    assert not engine.running


def test_lower_clock_slows_prefill_and_decode_from_the_next_step_on() -> None:
    """At half the clock launches, all that this profile's decode is, take 0.5 + 0.5 × 2 times as long."""
    engine = make_engine()
    engine.submit(sequence(60, 3, "a"), 0.0)
    engine.clock_mhz = 1000
    assert run(engine) == [(0.06, "a"), (0.075, "a"), (0.09, "a")]


def test_long_prompt_is_prefilled_in_chunks_between_which_others_decode() -> None:
    """A decoding neighbour waits for one chunk at a time, not for the whole prompt."""
    engine = make_engine()
    engine.submit(sequence(10, 4, "a"), 0.0)
    engine.submit(sequence(250, 2, "b"), 0.001)
    assert run(engine) == [
        (0.01, "a"),
        (0.12, "a"),  # 10 ms decode + a chunk of 100
        (0.23, "a"),
        (0.29, "a"),  # 10 ms decode + the last 50
        (0.29, "b"),
        (0.30, "b"),
    ]


def test_batch_grows_to_max_concurrency_and_the_rest_waits_in_order() -> None:
    """First come, first served."""
    engine = make_engine(max_concurrency=2)
    for name in "abc":
        engine.submit(sequence(10, 2, name), 0.0)
    assert (len(engine.running), len(engine.waiting)) == (1, 2)  # b and c came in mid-step
    assert run(engine, until=0.03) == [(0.01, "a"), (0.03, "a"), (0.03, "b")]
    assert run(engine) == [(0.05, "b"), (0.05, "c"), (0.06, "c")]
    queue = engine.statistics.request_queue_time_seconds
    assert queue.sum == pytest.approx(0.0 + 0.01 + 0.03)


def test_bigger_batch_has_longer_gaps() -> None:
    """Two decode in 11 ms a token, by interpolation of the profile."""
    engine = make_engine()
    engine.submit(sequence(10, 5, "a"), 0.0)
    engine.submit(sequence(10, 5, "b"), 0.0)
    times = [at for at, who in run(engine) if who == "a"]
    assert times[:4] == [0.01, 0.03, 0.041, 0.052]


def test_idle_engine_starts_on_a_request_when_it_comes_not_where_it_stopped() -> None:
    """Idle time is not made up for."""
    engine = make_engine()
    engine.submit(sequence(10, 1, "a"), 0.0)
    run(engine)
    engine.submit(sequence(10, 1, "b"), 0.1)
    assert run(engine) == [(0.11, "b")]


def test_late_driver_within_limits_loses_no_time() -> None:
    """Steps follow each other where the last ended, so that timer lag does not add up."""
    engine = make_engine()
    engine.submit(sequence(10, 3, "a"), 0.0)
    engine.complete_step()
    engine.begin_step(0.015)
    assert engine.step_ends_at == pytest.approx(0.020)


def test_very_late_driver_makes_the_engine_slower_instead_of_bursting() -> None:
    """After a second without the processor the next token comes one gap from now."""
    engine = make_engine()
    engine.submit(sequence(10, 3, "a"), 0.0)
    engine.complete_step()
    engine.begin_step(1.0)
    assert engine.step_ends_at == pytest.approx(1.010)


def test_full_kv_cache_preempts_the_last_and_recomputes_it() -> None:
    """Nobody loses or repeats a token; the victim pays with a second prefill."""
    engine = make_engine(kv_tokens=500)
    first, last = sequence(245, 20, "a"), sequence(245, 20, "b")
    engine.submit(first, 0.0)
    engine.submit(last, 0.0)
    trace = run(engine)
    assert sum(who == "a" for _, who in trace) == 20
    assert sum(who == "b" for _, who in trace) == 20
    assert engine.statistics.preemptions >= 1
    a_ended = max(at for at, who in trace if who == "a")
    assert any(at > a_ended for at, who in trace if who == "b")
    assert engine.kv_used_tokens == 0
    assert engine.statistics.prompt_tokens == 490
    assert engine.statistics.time_to_first_token_seconds.count == 2


def test_prompt_that_does_not_fit_now_waits_for_room() -> None:
    """It is admitted when the cache is free, not half of it before."""
    engine = make_engine(kv_tokens=500)
    engine.submit(sequence(300, 2, "a"), 0.0)
    engine.submit(sequence(300, 2, "b"), 0.0)
    run(engine, until=0.3)
    assert len(engine.running) == 1
    assert [who for _, who in run(engine)][-2:] == ["b", "b"]


def test_full_queue_refuses() -> None:
    """As vLLM does with --max-num-queued-reqs, counted by its reason."""
    engine = make_engine(max_concurrency=1, max_waiting=1)
    engine.submit(sequence(10, 5), 0.0)
    engine.submit(sequence(10, 5), 0.0)
    with pytest.raises(QueueFullError, match="cannot accept new requests"):
        engine.submit(sequence(10, 5), 0.0)
    assert engine.statistics.rejected["max_num_queued_reqs"] == 1


@pytest.mark.parametrize("at", [0.0, 0.005, 0.065, 0.095])
def test_ended_request_frees_its_place_and_gets_no_more_tokens(at: float) -> None:
    """In prefill, in decode, in the queue: whenever the client goes."""
    engine = make_engine(max_concurrency=1)
    victim, other = sequence(60, 100, "victim"), sequence(10, 2, "other")
    engine.submit(victim, 0.0)
    engine.submit(other, 0.0)
    run(engine, until=at)
    engine.finish(victim, "abort", at)
    engine.finish(victim, "abort", at)
    check(engine)
    assert [who for _, who in run(engine)] == ["other", "other"]
    assert engine.statistics.finished["abort"] == 1
    assert engine.kv_used_tokens == 0


def test_waiting_request_can_be_ended() -> None:
    """It leaves the queue."""
    engine = make_engine(max_concurrency=1)
    waiting = sequence(10, 2)
    engine.submit(sequence(10, 2), 0.0)
    engine.submit(waiting, 0.0)
    engine.finish(waiting, "abort", 0.0)
    assert not engine.waiting


def test_stalled_engine_keeps_its_requests_and_goes_on_later() -> None:
    """A hang, as seen from outside: connections stay, no token comes."""
    engine = make_engine()
    engine.submit(sequence(10, 3, "a"), 0.0)
    run(engine, until=0.01)
    engine.stall()
    engine.submit(sequence(10, 1, "b"), 1.0)
    assert engine.step_ends_at is None
    assert engine.complete_step() == []
    engine.unstall(5.0)
    assert run(engine) == [(5.02, "a"), (5.02, "b"), (5.03, "a")]


def test_counts_are_those_of_the_requests() -> None:
    """Histograms and counters add up to what ran."""
    engine = make_engine()
    engine.submit(sequence(60, 5, "a"), 0.0)
    run(engine)
    statistics = engine.statistics
    assert (statistics.prompt_tokens, statistics.generation_tokens) == (60, 5)
    assert statistics.finished["length"] == 1
    assert statistics.time_to_first_token_seconds.sum == pytest.approx(0.06)
    assert statistics.inter_token_latency_seconds.count == 4
    assert statistics.inter_token_latency_seconds.sum == pytest.approx(0.04)
    assert statistics.e2e_request_latency_seconds.sum == pytest.approx(0.10)
    assert statistics.request_time_per_output_token_seconds.sum == pytest.approx(0.01)


@pytest.mark.parametrize("seed", range(10))
def test_random_load_finishes_whole_with_nothing_left(seed: int) -> None:
    """Whatever comes, leaves and is preempted: tokens are exact and every count returns to zero."""
    rng = random.Random(seed)
    engine = make_engine(max_concurrency=4, kv_tokens=520)
    requests = [sequence(rng.randint(1, 400), rng.randint(1, 100), str(index)) for index in range(30)]
    trace: list[tuple[float, str]] = []
    now = 0.0
    for request in requests:
        now += rng.random() * 0.3
        trace += run(engine, until=now)
        engine.submit(request, now)
        if rng.random() < 0.2:
            engine.finish(rng.choice(requests[: requests.index(request) + 1]), "abort", now)
    trace += run(engine)
    for request in requests:
        received = sum(who == request.owner for _, who in trace)
        assert received == request.output_tokens, f"seed {seed}"
        assert request.finish_reason == "abort" or received == request.max_tokens, f"seed {seed}"
    assert (engine.running, len(engine.waiting), engine.kv_used_tokens) == ([], 0, 0)


def test_kv_cache_must_hold_one_request_of_the_models_length() -> None:
    """Else a request could wait for ever."""
    with pytest.raises(ValueError, match="max_model_len"):
        make_engine(kv_tokens=499)
    assert EmulatedEngine(
        dataclasses.replace(PROFILE, kv_tokens=500), max_concurrency=1
    ).kv_usage_ratio == pytest.approx(0.0)


def test_a_prompt_that_was_computed_before_is_not_computed_again() -> None:
    """But for its last block: the engine needs something to begin with."""
    engine = make_engine()
    engine.submit(known(range(96), name="a"), 0.0)
    assert run(engine) == [(0.096, "a")]
    engine.submit(known(range(96), name="b"), 1.0)
    assert run(engine) == [(1.016, "b")]
    statistics = engine.statistics
    assert (statistics.prefix_cache_queries, statistics.prefix_cache_hits) == (192, 80)
    assert statistics.prompt_tokens == 192


def test_the_next_turn_finds_the_answer_cached_too() -> None:
    """All but the last token, which was never put in."""
    engine = make_engine()
    engine.submit(known(range(64), max_tokens=33), 0.0)
    run(engine)
    engine.submit(known(range(200)), 10.0)
    run(engine)
    assert engine.statistics.prefix_cache_hits == 96


def test_what_is_cached_goes_when_room_is_needed() -> None:
    """The KV cache is one: 1,000 tokens, running and kept."""
    engine = make_engine()
    for start in (0, 10_000):
        engine.submit(known(range(start, start + 480)), 0.0)
        run(engine)
    assert engine.prefix_cache.tokens == 960
    engine.submit(known(range(20_000, 20_400)), 100.0)
    while engine.step_ends_at is not None:
        assert engine.prefix_cache.tokens + engine.kv_used_tokens <= engine.kv_tokens
        now = engine.step_ends_at
        engine.complete_step()
        engine.begin_step(now)
        check(engine)
    engine.submit(known(range(10_000, 10_480)), 200.0)
    run(engine)
    engine.submit(known(range(480)), 300.0)
    run(engine)
    assert engine.statistics.prefix_cache_hits == 464  # of the second; the first had to go
    assert engine.kv_used_tokens == 0


def test_requests_without_ids_are_never_cached() -> None:
    """Nothing is known of them, so nothing is counted either."""
    engine = make_engine()
    for _ in range(2):
        engine.submit(sequence(96, 2), 0.0)
        run(engine)
    assert engine.prefix_cache.tokens == 0
    assert engine.statistics.prefix_cache_queries == 0
