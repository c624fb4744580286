"""Continuous batching as `site_agent.emulation.engine` does it, with events per request instead of per step.

The same rules: a step takes one token of every decoding sequence and a chunk of the oldest prompts, and lasts

    itl_seconds(decoding, clock, KV tokens) + chunk tokens ÷ prefill rate

or, where nothing decodes, prefill_step_seconds(clock) + the same.
Between two events (a prompt comes or is through, an answer is through, the clock changes, the cache is full)
all steps are alike, so a whole *run* of them is one event: the decoding sequences share a token clock that
counts steps, and each knows the count at which it ends. An arrival that may enter the batch cuts the run at
the end of the step that is under way. The KV cache grows by the same in each step of a run, and with it the
step; that sum has a closed form. So the times are exactly those of the step-by-step engine (a unit test
compares the two).

What the owner does: `submit`, `set_clock`, `stop`; call `advance` when `next_at` is reached; look at
`next_at` after each of them, for each may change it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from fleet.profile import PerformanceProfile
from simulator.sequence import Sequence
from simulator.step_times import step_times
from site_agent.emulation.engine import MAX_WAITING
from site_agent.emulation.statistics import ITL_BUCKETS, TTFT_BUCKETS, Histogram

NEVER = math.inf
EPSILON = 1e-9


class SimulatedEngine:
    """One engine: a queue, a batch, a KV cache and a clock."""

    __slots__ = (
        "_chunk_tokens",
        "_chunks",
        "_decoding",
        "_growth_seconds",
        "_max_waiting",
        "_on_finish",
        "_on_first_token",
        "_order",
        "_prefill_ratio",
        "_prefilling",
        "_run_chunk_tokens",
        "_run_steps",
        "_step_seconds",
        "_steps",
        "_steps_began_at",
        "_times",
        "clock_mhz",
        "finished",
        "itl",
        "kv_tokens",
        "kv_used_tokens",
        "max_concurrency",
        "next_at",
        "output_tokens",
        "preemptions",
        "profile",
        "prompt_tokens",
        "rejected",
        "running",
        "ttft",
        "waiting",
    )

    def __init__(
        self,
        profile: PerformanceProfile,
        *,
        max_concurrency: int,
        on_first_token: Callable[[Sequence, float], None],
        on_finish: Callable[[Sequence, float], None],
        kv_tokens: int | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.profile = profile
        self.max_concurrency = max_concurrency
        self.kv_tokens = profile.kv_tokens if kv_tokens is None else kv_tokens
        self.running: dict[int, Sequence] = {}
        """In order of admission."""
        self.waiting: deque[Sequence] = deque()
        self.kv_used_tokens = 0
        """At the beginning of the present run."""
        self.next_at = NEVER
        """When `advance` is due."""
        self.preemptions = 0
        self.rejected = 0
        self.prompt_tokens = 0
        """Of requests that have had their first token."""
        self.output_tokens = 0
        self.finished = 0
        self.ttft = Histogram(TTFT_BUCKETS)
        self.itl = Histogram(ITL_BUCKETS)
        self._max_waiting = max_waiting
        self._on_first_token = on_first_token
        self._on_finish = on_finish
        self._prefilling: deque[Sequence] = deque()
        self._decoding: list[tuple[int, int, Sequence]] = []
        """Heap by the step at which each ends; one that was preempted stays in it with an old `join_step`."""
        self._steps = 0
        self._order = 0
        self._chunk_tokens = profile.prefill_chunk_tokens
        self._chunks: list[tuple[Sequence, int]] = []
        self._run_steps = 0
        self._run_chunk_tokens = 0
        self._prefill_ratio = 0.0
        self._step_seconds = 0.0
        """Of the run's first step."""
        self._growth_seconds = 0.0
        """By which each further step is longer: the KV cache has grown."""
        self._steps_began_at = 0.0
        self.clock_mhz = -1
        self._set_times(profile.full_clock_mhz)

    @property
    def is_idle(self) -> bool:
        """Nothing in it at all."""
        return self.next_at == NEVER

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV cache that was taken when the present run of steps began."""
        return min(1.0, self.kv_used_tokens / self.kv_tokens)

    @property
    def prefill_ratio(self) -> float:
        """Share of the present run's time that goes to prompts."""
        return self._prefill_ratio if self._chunks else 0.0

    @property
    def decoding(self) -> int:
        """Sequences that get a token a step."""
        return len(self.running) - len(self._prefilling)

    def submit(self, sequence: Sequence, now: float) -> bool:
        """Queue a request; False if too many wait already."""
        if len(self.running) + len(self.waiting) >= self.max_concurrency + self._max_waiting:
            self.rejected += 1
            return False
        sequence.arrived_at = now
        self.waiting.append(sequence)
        if self.next_at == NEVER:
            self._begin(now)
        elif not self._prefilling and self._may_admit(sequence):
            self._cut(now)
        return True

    def set_clock(self, clock_mhz: int, now: float) -> None:
        """SM clock; a change counts from the next step on."""
        if clock_mhz == self.clock_mhz:
            return
        if self.next_at < NEVER:
            self._cut(now)
        self._set_times(clock_mhz)

    def unread_tokens(self, now: float) -> int:
        """Prompt tokens, of those in the batch and of those that wait, that no step has read by now."""
        unread = sum([one.left_tokens for one in self._prefilling])
        unread += sum([one.left_tokens for one in self.waiting])
        return unread - self._steps_done(now) * self._run_chunk_tokens if self._chunks else unread

    def tokens_of(self, sequence: Sequence, now: float) -> int:
        """Output tokens that it has by now."""
        if sequence.join_step < 0:
            return sequence.output_tokens
        return sequence.output_tokens + self._steps + self._steps_done(now) - sequence.join_step

    def stop(self, now: float) -> list[Sequence]:
        """End everything unfinished, in order of admission; `output_tokens` say how far each has come."""
        over = [*self.running.values(), *self.waiting]
        for sequence in over:
            sequence.output_tokens = self.tokens_of(sequence, now)
            sequence.join_step = -1
        self.running.clear()
        self.waiting.clear()
        self._prefilling.clear()
        self._decoding.clear()
        self._chunks = []
        self.kv_used_tokens = 0
        self.next_at = NEVER
        return over

    def advance(self) -> None:
        """The run that ends at `next_at` is over: hand out what it brought, begin the next."""
        now = self.next_at
        steps = self._run_steps
        decoding = len(self.running) - len(self._prefilling)
        self._steps += steps
        self.kv_used_tokens += decoding * steps
        if decoding:
            self.itl.observe(self._seconds_of(steps) / steps, decoding * steps)
            self.output_tokens += decoding * steps
        heap = self._decoding
        done = self._steps
        while heap and heap[0][0] <= done:
            _, _, sequence = heappop(heap)
            if sequence.join_step >= 0 and sequence.end_step <= done:
                self._finish(sequence, now)
        if self._chunks:
            self._complete_chunks(now)
        self._begin(now)

    def _complete_chunks(self, now: float) -> None:
        chunks, self._chunks = self._chunks, []
        for sequence, tokens in chunks:
            sequence.left_tokens -= tokens
            self.kv_used_tokens += tokens
            if sequence.left_tokens:
                continue
            self._prefilling.popleft()
            sequence.output_tokens += 1
            self.output_tokens += 1
            if sequence.first_token_at is None:
                sequence.first_token_at = now
                self.prompt_tokens += sequence.prompt_tokens
                self.ttft.observe(now - sequence.arrived_at)
                self._on_first_token(sequence, now)
            if sequence.output_tokens >= sequence.max_tokens:
                sequence.join_step = self._steps
                self._finish(sequence, now)
                continue
            sequence.join_step = self._steps
            sequence.end_step = self._steps + sequence.max_tokens - sequence.output_tokens
            heappush(self._decoding, (sequence.end_step, sequence.order, sequence))

    def _finish(self, sequence: Sequence, now: float) -> None:
        """It has all its tokens."""
        sequence.output_tokens = sequence.max_tokens
        sequence.join_step = -1
        self.finished += 1
        del self.running[sequence.order]
        self.kv_used_tokens -= sequence.prompt_tokens + sequence.max_tokens - 1
        self._on_finish(sequence, now)

    def _begin(self, now: float) -> None:
        """Plan the next run: as many steps as will be alike."""
        decoding = len(self.running) - len(self._prefilling)
        while decoding and self.kv_tokens - self.kv_used_tokens < decoding:
            self._preempt_last()
            decoding = len(self.running) - len(self._prefilling)
        free = self.kv_tokens - self.kv_used_tokens - decoding
        if self._prefilling or self.waiting:
            self._plan_prefill(free)
        chunk = self._run_chunk_tokens if self._chunks else 0
        if not chunk and not decoding:
            self.next_at = NEVER
            return
        heap = self._decoding
        while heap and (heap[0][2].join_step < 0 or heap[0][2].end_step != heap[0][0]):
            heappop(heap)  # preempted since
        steps = self._run_steps if chunk else heap[0][0] - self._steps
        if decoding:
            if chunk:
                steps = min(steps, heap[0][0] - self._steps)
            steps = max(1, min(steps, (free + decoding) // (decoding + chunk)))
        itl_seconds, kv_seconds, prefill_rate, prefill_step_seconds = self._times
        seconds = chunk_seconds = chunk / prefill_rate
        if decoding:
            seconds += itl_seconds[decoding] + kv_seconds * self.kv_used_tokens
            self._growth_seconds = kv_seconds * (decoding + chunk)
        else:
            seconds += prefill_step_seconds
            self._growth_seconds = 0.0
        if chunk and steps < self._run_steps:
            self._chunks = [(self._chunks[0][0], chunk * steps)]
        self._run_steps = steps
        self._prefill_ratio = chunk_seconds / seconds
        self._step_seconds = seconds
        self._steps_began_at = now
        self.next_at = now + self._seconds_of(steps)

    def _plan_prefill(self, free: int) -> None:
        """Chunks of the next run: many whole ones of the oldest prompt, or one of several prompts' ends."""
        prefilling = self._prefilling
        if not prefilling and not self._admit(free):
            return
        head = prefilling[0]
        if head.left_tokens >= self._chunk_tokens:
            self._run_steps = head.left_tokens // self._chunk_tokens
            self._run_chunk_tokens = self._chunk_tokens
            self._chunks = [(head, self._run_steps * self._chunk_tokens)]
            return
        budget = self._chunk_tokens
        chunks = self._chunks = []
        for sequence in prefilling:
            tokens = min(sequence.left_tokens, budget)
            chunks.append((sequence, tokens))
            budget -= tokens
            if not budget:
                break
        while budget and self.waiting and self._admit(free):
            tokens = min(prefilling[-1].left_tokens, budget)
            chunks.append((prefilling[-1], tokens))
            budget -= tokens
        self._run_steps = 1
        self._run_chunk_tokens = self._chunk_tokens - budget

    def _may_admit(self, sequence: Sequence) -> bool:
        if len(self.running) >= self.max_concurrency:
            return False
        free = self.kv_tokens - self.kv_used_tokens - (len(self.running) - len(self._prefilling))
        return sequence.left_tokens + 1 <= free or not self.running

    def _admit(self, free: int) -> bool:
        """Let the first that waits into the batch, if there is room for its whole prompt."""
        if not self.waiting or len(self.running) >= self.max_concurrency:
            return False
        sequence = self.waiting[0]
        spoken_for = sum(one.left_tokens for one in self._prefilling)
        if sequence.left_tokens + 1 > free - spoken_for and self.running:
            return False
        self.waiting.popleft()
        self._order += 1
        sequence.order = self._order
        self.running[self._order] = sequence
        self._prefilling.append(sequence)
        return True

    def _preempt_last(self) -> None:
        """The newest gives its cache up and is computed anew, output included."""
        _, victim = self.running.popitem()
        if victim.join_step >= 0:
            victim.output_tokens = self.tokens_of(victim, -NEVER)
            self.kv_used_tokens -= victim.prompt_tokens + victim.output_tokens - 1
            victim.join_step = -1
        else:
            self._prefilling.pop()
            self.kv_used_tokens -= victim.prompt_tokens + victim.output_tokens - victim.left_tokens
        victim.left_tokens = victim.prompt_tokens + victim.output_tokens
        self.waiting.appendleft(victim)
        self.preemptions += 1

    def _steps_done(self, now: float) -> int:
        """Whole steps of the present run that are over."""
        if self.next_at == NEVER or now <= self._steps_began_at:
            return 0
        return min(self._run_steps, int(self._steps_within(now - self._steps_began_at) + EPSILON))

    def _cut(self, now: float) -> None:
        """End the run with the step that is under way."""
        steps = math.ceil(self._steps_within(now - self._steps_began_at) - EPSILON)
        steps = min(max(1, steps), self._run_steps)
        if steps == self._run_steps:
            return
        if self._chunks:  # of one prompt: a run of one step is not cut
            self._chunks = [(self._chunks[0][0], steps * self._run_chunk_tokens)]
        self._run_steps = steps
        self.next_at = self._steps_began_at + self._seconds_of(steps)

    def _seconds_of(self, steps: int) -> float:
        """The first steps of the present run together: each a little longer than the one before."""
        return steps * (self._step_seconds + 0.5 * self._growth_seconds * (steps - 1))

    def _steps_within(self, seconds: float) -> float:
        """The inverse of `_seconds_of`, in parts of a step."""
        growth = self._growth_seconds
        if growth <= 0:
            return seconds / self._step_seconds
        middle = self._step_seconds / growth - 0.5
        return 2 * seconds / growth / (middle + math.sqrt(middle * middle + 2 * seconds / growth))

    def _set_times(self, clock_mhz: int) -> None:
        self.clock_mhz = clock_mhz
        self._times = step_times(self.profile, clock_mhz, self.max_concurrency)
