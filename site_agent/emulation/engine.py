"""Continuous batching by a performance profile, as vLLM's scheduler does it. Pure: time is an argument.

The engine works in steps. A step takes one token of every decoding sequence and, of the sequences in prefill
(oldest first), a chunk of the prompt; it lasts

    itl_seconds(decoding sequences, clock, KV tokens in use) + chunk tokens ÷ prefill rate at the clock

or, where nothing decodes, prefill_step_seconds(clock) + the same. At its end every decoding sequence has a
token more, and a sequence whose prompt is through has its first. What the driver does:

    engine.submit(sequence, now)
    when now reaches engine.step_ends_at:
        for sequence in engine.complete_step(): …one more token…
        engine.begin_step(now)

KV cache is counted in tokens. When a step does not fit, the sequence admitted last is preempted: its cache is
dropped, and it waits at the head of the queue to be computed anew, output included (vLLM's recompute mode).
A beginning of the prompt that is in the prefix cache is not computed again.

Which token it is, is not the engine's business: it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Ids
from typing import Any, Literal

from fleet.performance import DEFAULT_PREFILL_CHUNK_TOKENS
from fleet.profile import PerformanceProfile
from site_agent.emulation.prefix_cache import BLOCK_TOKENS, PrefixCache, extend_chain
from site_agent.emulation.statistics import EngineStatistics

FinishReason = Literal["stop", "length", "abort", "error"]

PREFILL_CHUNK_TOKENS = DEFAULT_PREFILL_CHUNK_TOKENS
"""Prompt tokens in one step. At 10,500 tokens/s others wait 0.2 s at most for a token, as long as the 1 % of
the longest gaps in ML.ENERGY's measurement at batch 256."""
MAX_WAITING = 1024
"""Requests beyond those that can run; the two together are vLLM's `--max-num-queued-reqs`."""
MAX_CATCH_UP_SECONDS = 0.25
"""A driver later than this makes the engine slower instead of getting a burst of steps."""


class QueueFullError(Exception):
    """The engine takes no more requests now; the message is vLLM's."""

    def __init__(self) -> None:
        super().__init__(
            "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance."
        )


class Sequence:
    """One request inside the engine."""

    __slots__ = (
        "arrived_at",
        "blocks",
        "finish_reason",
        "first_token_at",
        "history",
        "kv_tokens",
        "left_tokens",
        "max_tokens",
        "output_tokens",
        "owner",
        "preempted_at",
        "prompt_tokens",
        "scheduled_at",
    )

    def __init__(
        self,
        *,
        prompt_tokens: int,
        max_tokens: int,
        owner: Any = None,
        history: Callable[[int], Ids[int]] | None = None,
    ) -> None:
        """`max_tokens` is at least 1; `owner` is whoever waits for the tokens.

        `history` gives the first ids of prompt and answer, for the prefix cache; None: nothing is cached.
        """
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.owner = owner
        self.history = history
        self.blocks: list[int] = []
        """Hashes of full blocks: the prompt's once it is scheduled, the answer's too once it is over."""
        self.output_tokens = 0
        self.left_tokens = prompt_tokens
        """Still to prefill; 0: it decodes."""
        self.kv_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.arrived_at = 0.0
        self.scheduled_at: float | None = None
        self.first_token_at: float | None = None
        self.preempted_at: float | None = None
        """When it had its last token before a preemption that it has not recovered from."""


class EmulatedEngine:
    """One engine: a queue, a batch, a KV cache and a clock."""

    def __init__(
        self,
        profile: PerformanceProfile,
        *,
        max_concurrency: int,
        kv_tokens: int | None = None,
        prefill_chunk_tokens: int = PREFILL_CHUNK_TOKENS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`kv_tokens` defaults to the profile's; it must hold one request of `max_model_len`."""
        self.profile = profile
        self.max_concurrency = max_concurrency
        self.kv_tokens = profile.kv_tokens if kv_tokens is None else kv_tokens
        if self.kv_tokens < profile.max_model_len:
            raise ValueError(
                f"kv_tokens is {self.kv_tokens}; at least max_model_len ({profile.max_model_len}) is needed"
            )
        self.statistics = EngineStatistics()
        self.running: list[Sequence] = []
        """In order of admission."""
        self.waiting: deque[Sequence] = deque()
        self.kv_used_tokens = 0
        self.prefix_cache = PrefixCache()
        """What it holds is not used: it goes when room is needed."""
        self.step_ends_at: float | None = None
        """None: idle or stalled."""
        self.is_stalled = False
        self._chunk_tokens = prefill_chunk_tokens
        self._max_waiting = max_waiting
        self._decoding: list[Sequence] = []
        self._chunks: list[tuple[Sequence, int]] = []
        self._prefill_ratio = 0.0
        self._is_idle = True
        self._ended_at = float("-inf")
        """End of the last step: when every decoding sequence had its last token."""
        self._clock_mhz = profile.full_clock_mhz
        self._itl_seconds: dict[int, float] = {}
        self._set_rates()

    @property
    def clock_mhz(self) -> int:
        """SM clock; a change counts from the next step on."""
        return self._clock_mhz

    @clock_mhz.setter
    def clock_mhz(self, clock_mhz: int) -> None:
        if clock_mhz != self._clock_mhz:
            self._clock_mhz = clock_mhz
            self._itl_seconds.clear()
            self._set_rates()

    @property
    def prefill_ratio(self) -> float:
        """Share of the present step's time that goes to prompts; 0 while there is none."""
        return 0.0 if self.step_ends_at is None else self._prefill_ratio

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV cache that is taken."""
        return self.kv_used_tokens / self.kv_tokens

    def submit(self, sequence: Sequence, now: float) -> None:
        """Queue a request; an idle engine starts on it at once.

        Raises:
            QueueFullError: too many wait already.
        """
        if len(self.running) + len(self.waiting) >= self.max_concurrency + self._max_waiting:
            self.statistics.rejected["max_num_queued_reqs"] += 1
            raise QueueFullError
        sequence.arrived_at = now
        self.waiting.append(sequence)
        if self.step_ends_at is None:
            self.begin_step(now)

    def finish(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        """End a request before its limit (stop string, client gone, fault). Does nothing if it has ended."""
        if sequence.finish_reason is not None:
            return
        if reason == "stop" and sequence.scheduled_at is not None and sequence.first_token_at is not None:
            self._record(sequence, reason, now)
        else:
            self.statistics.finished[reason] += 1
        self._release(sequence, reason)

    def stall(self) -> None:
        """Stop making progress, as a hung engine does; requests stay."""
        self.is_stalled = True
        self.step_ends_at = None

    def unstall(self, now: float) -> None:
        """Go on."""
        self.is_stalled = False
        self.begin_step(now)

    def complete_step(self) -> list[Sequence]:
        """End the step; the sequences that have one token more, in order of admission.

        Those at their limit have `finish_reason` "length" and have left the batch. Call `begin_step` next.
        """
        end = self.step_ends_at
        if end is None:
            return []
        statistics = self.statistics
        emitted = [sequence for sequence in self._decoding if sequence.finish_reason is None]
        decoded = len(emitted)
        for sequence in emitted:
            sequence.output_tokens += 1
            sequence.kv_tokens += 1
        self.kv_used_tokens += decoded
        if decoded:
            statistics.inter_token_latency_seconds.observe(end - self._ended_at, decoded)
        for sequence, tokens in self._chunks:
            if sequence.finish_reason is None:
                self._complete_chunk(sequence, tokens, end, emitted)
        statistics.generation_tokens += len(emitted)
        self._ended_at = end
        self.step_ends_at = None
        for sequence in emitted:
            if sequence.output_tokens >= sequence.max_tokens:
                self._record(sequence, "length", end)
                self._release(sequence, "length")
        return emitted

    def begin_step(self, now: float) -> None:
        """Plan the next step. It starts where the last one ended, or at `now` after a pause.

        A step that `submit` began meanwhile goes on.
        """
        if self.is_stalled or self.step_ends_at is not None:
            return
        decoding = [sequence for sequence in self.running if not sequence.left_tokens]
        while len(decoding) > self.kv_tokens - self.kv_used_tokens:
            self._preempt_last()
            decoding = [sequence for sequence in self.running if not sequence.left_tokens]
        chunk_tokens = self._plan_prefill(self.kv_tokens - self.kv_used_tokens - len(decoding), now)
        self._decoding = decoding
        self.prefix_cache.trim(self.kv_tokens - self.kv_used_tokens)
        if not decoding and not chunk_tokens:
            self._is_idle = True
            return
        seconds = chunk_seconds = chunk_tokens / self._prefill_rate
        if not decoding:
            seconds += self._prefill_step_seconds
        else:
            count = len(decoding)
            itl_seconds = self._itl_seconds.get(count)
            if itl_seconds is None:
                itl_seconds = self.profile.itl_seconds(count, self._clock_mhz)
                self._itl_seconds[count] = itl_seconds
            seconds += itl_seconds + self._kv_seconds * self.kv_used_tokens
        self._prefill_ratio = chunk_seconds / seconds
        self.statistics.iteration_tokens_total.observe(len(decoding) + chunk_tokens)
        is_late = now - self._ended_at > MAX_CATCH_UP_SECONDS
        self.step_ends_at = (now if self._is_idle or is_late else self._ended_at) + seconds
        self._is_idle = False

    def _set_rates(self) -> None:
        clock_mhz = self._clock_mhz
        self._prefill_rate = self.profile.prefill_rate(clock_mhz)
        self._prefill_step_seconds = self.profile.prefill_step_seconds(clock_mhz)
        self._kv_seconds = self.profile.kv_seconds(clock_mhz)

    def _plan_prefill(self, room: int, now: float) -> int:
        """Take chunks for the next step, admit what fits; the tokens to compute."""
        self._chunks = []
        budget = self._chunk_tokens
        for sequence in self.running:
            if not sequence.left_tokens:
                continue
            tokens = min(sequence.left_tokens, budget, room)
            room -= sequence.left_tokens  # its whole prompt is spoken for
            if tokens > 0:
                self._chunks.append((sequence, tokens))
                budget -= tokens
        while self.waiting and budget > 0 and len(self.running) < self.max_concurrency:
            sequence = self.waiting[0]
            if sequence.left_tokens + 1 > room and self.running:
                break
            self.waiting.popleft()
            self.running.append(sequence)
            room -= sequence.left_tokens
            self._reuse(sequence)
            if sequence.scheduled_at is None:
                sequence.scheduled_at = now
            tokens = min(sequence.left_tokens, budget)
            self._chunks.append((sequence, tokens))
            budget -= tokens
        return self._chunk_tokens - budget

    def _reuse(self, sequence: Sequence) -> None:
        """Take what the prefix cache has of a sequence that enters the batch."""
        if sequence.history is None:
            return
        if not sequence.blocks:
            extend_chain(sequence.blocks, sequence.history(sequence.prompt_tokens))
        tokens = self.prefix_cache.longest(sequence.blocks, sequence.left_tokens - 1)
        sequence.left_tokens -= tokens
        sequence.kv_tokens += tokens
        self.kv_used_tokens += tokens
        if sequence.scheduled_at is None:  # vLLM counts a request once, not again after a preemption
            self.statistics.prefix_cache_queries += sequence.prompt_tokens
            self.statistics.prefix_cache_hits += tokens

    def _complete_chunk(self, sequence: Sequence, tokens: int, end: float, emitted: list[Sequence]) -> None:
        sequence.left_tokens -= tokens
        sequence.kv_tokens += tokens
        self.kv_used_tokens += tokens
        if sequence.left_tokens:
            return
        self.prefix_cache.add(sequence.blocks)
        if sequence.first_token_at is None:
            sequence.first_token_at = end
            self.statistics.prompt_tokens += sequence.prompt_tokens
            self.statistics.time_to_first_token_seconds.observe(end - sequence.arrived_at)
        elif sequence.preempted_at is not None:
            self.statistics.inter_token_latency_seconds.observe(end - sequence.preempted_at)
        sequence.preempted_at = None
        sequence.output_tokens += 1
        emitted.append(sequence)

    def _preempt_last(self) -> None:
        victim = self.running.pop()
        self.kv_used_tokens -= victim.kv_tokens
        victim.kv_tokens = 0
        victim.left_tokens = victim.prompt_tokens + victim.output_tokens
        if victim.first_token_at is not None and victim.preempted_at is None:
            victim.preempted_at = self._ended_at
        self.waiting.appendleft(victim)
        self.statistics.preemptions += 1

    def _release(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.finish_reason = reason
        if sequence.history is not None and sequence.kv_tokens >= BLOCK_TOKENS:
            extend_chain(sequence.blocks, sequence.history(sequence.kv_tokens))
            self.prefix_cache.add(sequence.blocks[: sequence.kv_tokens // BLOCK_TOKENS])
        self.kv_used_tokens -= sequence.kv_tokens
        sequence.kv_tokens = 0
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def _record(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        assert sequence.scheduled_at is not None
        assert sequence.first_token_at is not None
        self.statistics.record_finish(
            reason,
            prompt_tokens=sequence.prompt_tokens,
            output_tokens=sequence.output_tokens,
            arrived_at=sequence.arrived_at,
            scheduled_at=sequence.scheduled_at,
            first_token_at=sequence.first_token_at,
            now=now,
        )
