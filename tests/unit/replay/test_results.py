"""replay.results: the counts add up, and the SLO is the documented formula."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.profile import LLAMA_70B_H100_TP4
from replay.outcome import OUTCOMES, RequestResult
from replay.results import MAX_REASONS, OTHER_REASONS, Results, Slo

SLO = Slo(prefill_tokens_per_second=1000.0, itl_seconds=0.02, factor=5.0)


def result(**values: Any) -> RequestResult:
    defaults: dict[str, Any] = {
        "outcome": "completed",
        "reason": "",
        "wanted_prompt_tokens": 100,
        "wanted_output_tokens": 11,
        "e2e_seconds": 0.5,
        "ttft_seconds": 0.2,
        "prompt_tokens": 100,
        "output_tokens": 11,
        "token_events": 11,
    }
    return RequestResult(**{**defaults, **values})


def test_the_slo_formula() -> None:
    """TTFT 5 × (100 ÷ 1000 + 0.02) = 0.6 s; E2E 5 × (0.12 + 10 × 0.02) = 1.6 s."""
    assert SLO.ttft_limit_seconds(100) == pytest.approx(0.6)
    assert SLO.e2e_limit_seconds(100, 11) == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("values", "is_met"),
    [
        ({"ttft_seconds": 0.599, "e2e_seconds": 1.599}, True),
        ({"ttft_seconds": 0.61, "e2e_seconds": 1.0}, False),
        ({"ttft_seconds": 0.5, "e2e_seconds": 1.61}, False),
        ({"ttft_seconds": None}, False),
        ({"outcome": "broken"}, False),
        ({"outcome": "shed"}, False),
    ],
)
def test_good_requests(values: dict[str, Any], is_met: bool) -> None:
    """Completed, and within both limits."""
    assert SLO.is_met(result(**values)) is is_met


def test_the_slo_of_a_profile() -> None:
    """One request alone at full clock: the profile's prefill rate and its ITL at batch 1 without context."""
    slo = Slo.from_profile(LLAMA_70B_H100_TP4)
    assert (slo.prefill_tokens_per_second, slo.factor) == (10_500.0, 5.0)
    assert slo.itl_seconds == pytest.approx(0.0158, abs=1e-4)


def test_outcomes_add_up() -> None:
    """Requests are the sum of the outcomes, whatever they were."""
    results = Results(slo=SLO)
    for outcome in OUTCOMES:
        results.add(result(outcome=outcome, reason="why"))
    results.add(result(e2e_seconds=9.0))
    assert results.requests == 7
    assert results.outcomes["completed"] == 2
    assert results.good == 1
    assert results.reasons["shed: why"] == 1
    assert sum(results.reasons.values()) == 5


def test_tokens_and_times_of_completed_requests() -> None:
    """Sums as the server counted and as the trace has them; E2E only of completed ones, TTFT of all."""
    results = Results()
    results.add(result(output_tokens=10))
    results.add(result(prompt_tokens=None, output_tokens=None))
    results.add(result(outcome="broken", ttft_seconds=0.9))
    results.add(result(outcome="shed", ttft_seconds=None, token_events=0))
    assert (results.prompt_tokens, results.output_tokens, results.without_usage) == (100, 10, 1)
    assert (results.wanted_prompt_tokens, results.wanted_output_tokens) == (200, 22)
    assert (results.ttft.count, results.e2e.count) == (3, 2)
    assert results.streamed_token_events == 33


def test_corruption_is_counted_with_examples() -> None:
    """All are counted, the first twenty kept."""
    results = Results()
    for number in range(25):
        results.add(result(corruption=f"token {number}"))
    assert results.corrupted == 25
    assert len(results.corruptions) == 20


def test_sites_by_the_answers_header() -> None:
    """A site's requests, completed ones and their tokens; no header, no site."""
    results = Results()
    results.add(result(site_id="north"))
    results.add(result(site_id="north", outcome="broken", output_tokens=None))
    results.add(result(site_id="south", output_tokens=None))
    results.add(result())
    north, south = results.sites["north"], results.sites["south"]
    assert (north.requests, north.completed, north.output_tokens) == (2, 1, 11)
    assert (south.requests, south.completed, south.output_tokens) == (1, 1, 0)
    assert len(results.sites) == 2


def test_reasons_are_bounded() -> None:
    """A server that invents error codes fills no memory."""
    results = Results()
    for number in range(MAX_REASONS + 30):
        results.add(result(outcome="failed", reason=f"HTTP 400 c{number}"))
    assert len(results.reasons) == MAX_REASONS + 1
    assert results.reasons[OTHER_REASONS] == 30
