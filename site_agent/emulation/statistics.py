"""What an emulated engine counts, under vLLM's names and with vLLM's buckets. Pure.

Rule: cheap enough for the step loop. A decode step of any batch is one observation with a count, never one
call per token.
"""

from __future__ import annotations

from bisect import bisect_left

TTFT_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
LATENCY_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKEN_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
ITERATION_BUCKETS = (
    *(1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0),
)
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
REJECTION_REASONS = ("max_num_queued_reqs", "max_num_queued_tokens")


class Histogram:
    """Counts per bucket (upper bounds inclusive, +Inf added), and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` observations of one value."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """(`le`, observations up to it) in Prometheus' form."""
        total = 0
        buckets = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class EngineStatistics:
    """Everything since the engine started; names are vLLM's, without the prefix."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.preemptions = 0
        self.prefix_cache_queries = 0
        """Prompt tokens looked for in the prefix cache."""
        self.prefix_cache_hits = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.rejected = dict.fromkeys(REJECTION_REASONS, 0)
        self.time_to_first_token_seconds = Histogram(TTFT_BUCKETS)
        self.inter_token_latency_seconds = Histogram(ITL_BUCKETS)
        self.request_time_per_output_token_seconds = Histogram(ITL_BUCKETS)
        self.e2e_request_latency_seconds = Histogram(LATENCY_BUCKETS)
        self.request_queue_time_seconds = Histogram(LATENCY_BUCKETS)
        self.request_prefill_time_seconds = Histogram(LATENCY_BUCKETS)
        self.request_decode_time_seconds = Histogram(LATENCY_BUCKETS)
        self.request_inference_time_seconds = Histogram(LATENCY_BUCKETS)
        self.request_prompt_tokens = Histogram(TOKEN_BUCKETS)
        self.request_generation_tokens = Histogram(TOKEN_BUCKETS)
        self.iteration_tokens_total = Histogram(ITERATION_BUCKETS)

    def record_finish(
        self,
        reason: str,
        *,
        prompt_tokens: int,
        output_tokens: int,
        arrived_at: float,
        scheduled_at: float,
        first_token_at: float,
        now: float,
    ) -> None:
        """One request has its last token."""
        self.finished[reason] += 1
        self.request_prompt_tokens.observe(prompt_tokens)
        self.request_generation_tokens.observe(output_tokens)
        self.e2e_request_latency_seconds.observe(now - arrived_at)
        self.request_queue_time_seconds.observe(scheduled_at - arrived_at)
        self.request_prefill_time_seconds.observe(first_token_at - scheduled_at)
        self.request_decode_time_seconds.observe(now - first_token_at)
        self.request_inference_time_seconds.observe(now - scheduled_at)
        self.request_time_per_output_token_seconds.observe(
            (now - first_token_at) / (output_tokens - 1) if output_tokens > 1 else 0.0
        )
