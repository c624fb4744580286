"""A dispatcher that no operator can have: it sees every engine's queue and batch when a request comes.

It sends each request where its first token comes first, by the tokens that are before it there and the
network. *Refusing*, it knows the answer's length as well, and turns away what it foresees to be late wherever
it went. It is greedy: it keeps no place free for a cheaper request that may come. So it is no bound; it says
how much of what a policy misses is queueing that a perfect view of the fleet would meet too. Power is full,
and nothing fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.capacity import Slo
from fleet.profile import PerformanceProfile
from fleet.request import RequestClass
from simulator.engine import NEVER, SimulatedEngine
from simulator.inputs import CUTOFFS, Inputs
from simulator.sequence import Sequence
from simulator.world import Scene

BATCH_SECONDS = 0.004
"""Each request that runs at an engine counts as so much wait: of two engines without a queue the emptier."""
SLOWED_RATIO = 1.5
"""So much longer than in decode alone a foreseen answer takes: prompts are read between its tokens."""
UNBOUNDED = 10**9


@dataclass(slots=True)
class _Sent:
    """One request under way."""

    came_at: float
    round_trip_seconds: float
    slo: Slo
    is_counted: bool


class Dispatcher:
    """Of one block: every site's instances of its own degree at full clock, all ready."""

    def __init__(self, inputs: Inputs, *, refuses: bool) -> None:
        self._slos: dict[RequestClass, Slo] = inputs.class_slos
        self._refuses = refuses
        self.good = self.offered = 0
        self._engines: list[tuple[SimulatedEngine, PerformanceProfile, float]] = [
            (
                SimulatedEngine(
                    site.profile,
                    max_concurrency=site.max_concurrency,
                    max_waiting=UNBOUNDED,
                    on_first_token=lambda _sequence, _now: None,
                    on_finish=self._finished,
                ),
                site.profile,
                site.round_trip_seconds,
            )
            for site in inputs.sites
            for _ in range(site.instances)
        ]

    def run(self, scene: Scene) -> None:
        """All requests of a block, to their ends; adds to `good` and `offered` those that are counted."""
        arrivals = scene.arrivals
        for at, prompt, output in zip(
            arrivals.at_seconds.tolist(),
            arrivals.prompt_tokens.tolist(),
            arrivals.output_tokens.tolist(),
            strict=True,
        ):
            self._advance(at)
            self._send(at, prompt, output, is_counted=scene.warm_up_seconds <= at < scene.seconds)
        self._advance(NEVER)

    def _advance(self, until: float) -> None:
        for engine, _, _ in self._engines:
            while engine.next_at < until:
                engine.advance()

    def _send(self, at: float, prompt: int, output: int, *, is_counted: bool) -> None:
        self.offered += is_counted
        slo = self._slos[CUTOFFS.classify(prompt, output)]
        ranked = [
            (*self._foresee(engine, profile, trip, at, prompt, output, slo), index)
            for index, (engine, profile, trip) in enumerate(self._engines)
        ]
        is_late, _, index = min(ranked)
        if self._refuses and is_late:
            return
        engine, _, trip = self._engines[index]
        sent = _Sent(came_at=at, round_trip_seconds=trip, slo=slo, is_counted=is_counted)
        engine.submit(Sequence(prompt_tokens=prompt, max_tokens=output, owner=sent), at)

    def _foresee(
        self,
        engine: SimulatedEngine,
        profile: PerformanceProfile,
        round_trip_seconds: float,
        now: float,
        prompt: int,
        output: int,
        slo: Slo,
    ) -> tuple[bool, float]:
        """Whether it would be late there, and by what that engine is ranked."""
        unread = engine.unread_tokens(now)
        clock, decoding = engine.clock_mhz, engine.decoding
        steps = -(-(unread + prompt) // profile.prefill_chunk_tokens)
        step_seconds = profile.itl_seconds(max(1, decoding), clock, engine.kv_used_tokens)
        first = round_trip_seconds + (unread + prompt) / profile.prefill_rate(clock) + steps * step_seconds
        batch = min(engine.max_concurrency, len(engine.running) + len(engine.waiting) + 1)
        gap = profile.itl_seconds(batch, clock, engine.kv_used_tokens) * SLOWED_RATIO
        is_late = first > slo.ttft_seconds or first + (output - 1) * gap > slo.e2e_seconds
        return self._refuses and is_late, first + BATCH_SECONDS * decoding

    def _finished(self, sequence: Sequence, now: float) -> None:
        sent: _Sent = sequence.owner
        if not sent.is_counted or sequence.first_token_at is None:
            return
        away = sent.came_at - sent.round_trip_seconds
        is_in_time = sequence.first_token_at - away <= sent.slo.ttft_seconds
        self.good += is_in_time and now - away <= sent.slo.e2e_seconds
