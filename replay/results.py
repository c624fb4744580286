"""Counts and measures of a run: what every request's end adds up to, in bounded memory. Pure.

The invariant, kept by construction: requests sent and ended = completed + shed + client_cancelled + broken +
failed + lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleet.profile import PerformanceProfile
from replay.measures import LogHistogram, Quantiles
from replay.outcome import OUTCOMES, Outcome, RequestResult

MAX_REASONS = 50
"""Kinds of reasons that are counted apart; servers may invent codes without end."""
OTHER_REASONS = "other reasons"
MAX_SITES = 1000
MAX_CORRUPTIONS = 20
"""Examples kept; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A request is good when TTFT and E2E are at most `factor` times what it takes alone.

    Alone (no other request on the engine, full clock, no network), from the performance profile:

        TTFT = prompt tokens ÷ prefill_tokens_per_second + itl_seconds
        E2E  = TTFT + (output tokens − 1) × itl_seconds

    One decode step is in TTFT because even the shortest prompt takes one engine step; context is left out.
    """

    prefill_tokens_per_second: float
    itl_seconds: float
    """Between two tokens of a request that is alone."""
    factor: float = 5.0
    """DynamoLLM's (FACTS.md): P99 within 5 × the single request's time."""

    @classmethod
    def from_profile(cls, profile: PerformanceProfile, *, factor: float = 5.0) -> Slo:
        """The SLO for engines of this profile."""
        return cls(
            prefill_tokens_per_second=profile.prefill_tokens_per_second,
            itl_seconds=profile.itl_seconds(1, profile.full_clock_mhz),
            factor=factor,
        )

    def ttft_limit_seconds(self, prompt_tokens: int) -> float:
        """Longest good TTFT."""
        return self.factor * (prompt_tokens / self.prefill_tokens_per_second + self.itl_seconds)

    def e2e_limit_seconds(self, prompt_tokens: int, output_tokens: int) -> float:
        """Longest good E2E."""
        return self.ttft_limit_seconds(prompt_tokens) + self.factor * (output_tokens - 1) * self.itl_seconds

    def is_met(self, result: RequestResult) -> bool:
        """Whether the request completed within both limits."""
        prompt, output = result.wanted_prompt_tokens, result.wanted_output_tokens
        return (
            result.outcome == "completed"
            and result.ttft_seconds is not None
            and result.ttft_seconds <= self.ttft_limit_seconds(prompt)
            and result.e2e_seconds <= self.e2e_limit_seconds(prompt, output)
        )


@dataclass(slots=True, kw_only=True)
class SiteCounts:
    """What one site answered, by `x-heron-site`: where each request began."""

    requests: int = 0
    completed: int = 0
    output_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Results:
    """The tally of a run; it grows while the run lasts and is final when `run` returns."""

    slo: Slo | None = None
    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    reasons: Counter[str] = field(default_factory=Counter)
    """`outcome: reason` of what did not complete."""
    good: int = 0
    """Completed within the SLO."""
    sent: int = 0
    unsent: int = 0
    """Due while the cap on requests in flight was reached: not sent, not counted as requests."""
    late_sends: int = 0
    """Sent more than `runner.LATE_SECONDS` after they were due."""
    max_lateness_seconds: float = 0.0
    duration_seconds: float = 0.0
    """From the start of the run to the end of its last request."""
    prompt_tokens: int = 0
    """Of completed requests, as the server counted them."""
    output_tokens: int = 0
    wanted_prompt_tokens: int = 0
    """Of completed requests, as the trace has them."""
    wanted_output_tokens: int = 0
    without_usage: int = 0
    """Completed requests whose answer had no usage: their tokens are in neither server's sum."""
    streamed_token_events: int = 0
    """Events with text, of all requests."""
    corrupted: int = 0
    """Answers with a lost, repeated or foreign token: the run has failed."""
    corruptions: list[str] = field(default_factory=list)
    ttft: Quantiles = field(default_factory=Quantiles)
    """Of every request that got a token, however it ended."""
    itl: LogHistogram = field(default_factory=LogHistogram)
    e2e: Quantiles = field(default_factory=Quantiles)
    """Of completed requests."""
    client_retries: int = 0
    """Requests that this client sent again, each time counted."""
    sites: dict[str, SiteCounts] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Requests that have ended."""
        return sum(self.outcomes.values())

    def add(self, result: RequestResult) -> None:
        """Count one request that has ended."""
        self.outcomes[result.outcome] += 1
        self.streamed_token_events += result.token_events
        self.client_retries += result.retries
        if result.ttft_seconds is not None:
            self.ttft.add(result.ttft_seconds)
        if result.corruption is not None:
            self.corrupted += 1
            if len(self.corruptions) < MAX_CORRUPTIONS:
                self.corruptions.append(result.corruption)
        if result.outcome == "completed":
            self._add_completed(result)
        else:
            reason = f"{result.outcome}: {result.reason}"
            is_known = reason in self.reasons or len(self.reasons) < MAX_REASONS
            self.reasons[reason if is_known else OTHER_REASONS] += 1
        self._add_site(result)

    def _add_completed(self, result: RequestResult) -> None:
        self.e2e.add(result.e2e_seconds)
        if self.slo is not None and self.slo.is_met(result):
            self.good += 1
        self.wanted_prompt_tokens += result.wanted_prompt_tokens
        self.wanted_output_tokens += result.wanted_output_tokens
        if result.prompt_tokens is None or result.output_tokens is None:
            self.without_usage += 1
        else:
            self.prompt_tokens += result.prompt_tokens
            self.output_tokens += result.output_tokens

    def _add_site(self, result: RequestResult) -> None:
        if result.site_id is None:
            return
        site = self.sites.get(result.site_id)
        if site is None:
            if len(self.sites) >= MAX_SITES:
                return
            site = self.sites[result.site_id] = SiteCounts()
        site.requests += 1
        if result.outcome == "completed":
            site.completed += 1
            site.output_tokens += result.output_tokens or 0
