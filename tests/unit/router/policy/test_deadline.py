"""Whether a request can still be in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.views import view

from fleet.request import ClassSlo
from router.policy.deadline import e2e_seconds, start_by, ttft_seconds, wait_seconds
from router.policy.snapshot import ModelView

INFINITE = float("inf")


def latest(*views: Any, deadline: float | None = None, slo: ClassSlo | None = None) -> float:
    return start_by(
        views,
        prompt_tokens=1000,
        output_tokens=11,
        received_at=100.0,
        deadline_seconds=deadline,
        slo=slo,
    )


def test_the_first_token_takes_one_instance_s_reading_of_this_prompt_at_best():
    """The median counts only where nobody knows how fast it reads: it has longer prompts in it."""
    assert ttft_seconds(view(), 1000) is None
    assert ttft_seconds(view(ttft_seconds_p50=0.5), 1000) == 0.5
    assert ttft_seconds(view(prefill_tokens_per_second=500.0), 1000) == 2.0
    assert ttft_seconds(view(prefill_tokens_per_second=500.0, ready_instances=2), 1000) == 4.0
    assert ttft_seconds(view(ttft_seconds_p50=0.5, prefill_tokens_per_second=500.0), 100) == 0.2


def test_a_whole_answer_is_its_first_token_and_the_gaps_between_the_rest():
    """Unknown where either is."""
    assert e2e_seconds(view(ttft_seconds_p50=1.0, itl_seconds_p50=0.1), 10, 11) == pytest.approx(2.0)
    assert e2e_seconds(view(ttft_seconds_p50=1.0), 10, 11) is None
    assert e2e_seconds(view(itl_seconds_p50=0.1), 10, 11) is None


def test_without_a_deadline_there_is_no_latest_start():
    """Nor with an SLO that promises nothing."""
    slow = view(ttft_seconds_p50=100.0)
    assert latest(slow) == INFINITE
    assert latest(slow, slo=ClassSlo()) == INFINITE


def test_the_deadline_less_the_best_site_s_first_token():
    """The request may get the best one."""
    views = (view("a", ttft_seconds_p50=3.0), view("b", ttft_seconds_p50=1.0))
    assert latest(*views, deadline=5.0) == 104.0
    assert latest(*views, deadline=0.5) == 99.5


def test_what_is_unknown_is_no_reason_to_refuse():
    """A site that does not say may be fast; one that does not serve says nothing."""
    assert latest(view("a", ttft_seconds_p50=9.0), view("b"), deadline=5.0) == 105.0
    assert latest(view("a", state="dark", ttft_seconds_p50=9.0), deadline=5.0) == 105.0
    assert latest(deadline=5.0) == 105.0


def test_the_strictest_promise_counts():
    """First token, whole answer, and the client's own."""
    site = view(ttft_seconds_p50=1.0, itl_seconds_p50=0.1)
    assert latest(site, slo=ClassSlo(ttft_seconds=3.0)) == 102.0
    assert latest(site, slo=ClassSlo(e2e_seconds=3.0)) == pytest.approx(101.0)
    assert latest(site, slo=ClassSlo(ttft_seconds=3.0, e2e_seconds=9.0), deadline=2.5) == 101.5


def wait(*views: Any, ahead: int = 9) -> float:
    return wait_seconds(views, ahead=ahead, prompt_tokens=10, output_tokens=11)


def test_a_wait_is_the_line_ahead_by_what_the_sites_finish():
    """Four places, two seconds each: two a second; both sites: four."""
    site = {"ttft_seconds_p50": 1.0, "itl_seconds_p50": 0.1, "capacity_requests": 4.0}
    assert wait(view("a", **site)) == pytest.approx(5.0)
    assert wait(view("a", **site), view("b", **site)) == pytest.approx(2.5)
    assert wait(view("a", **site), view("b", **site, state="dark")) == pytest.approx(5.0)
    assert wait(view("a", **site), ahead=0) == pytest.approx(0.5)


def test_a_wait_that_cannot_be_known_is_none():
    """A site that does not say, or none that serves."""
    site = {"ttft_seconds_p50": 1.0, "itl_seconds_p50": 0.1}
    assert wait(view("a", **site, capacity_requests=None)) == 0.0
    assert wait(view("a", capacity_requests=4.0)) == 0.0
    assert wait(view("a", **site, state="dark")) == 0.0
    assert wait() == 0.0


FIGURES = st.none() | st.floats(0.001, 100.0)
SITES = st.builds(
    view,
    state=st.sampled_from(["serving", "dark"]),
    ready_instances=st.sampled_from([None, 1, 3]),
    prefill_tokens_per_second=FIGURES,
    ttft_seconds_p50=FIGURES,
    itl_seconds_p50=FIGURES,
)


@given(st.lists(SITES, max_size=5), FIGURES, FIGURES, FIGURES, st.integers(0, 300))
def test_the_latest_start_is_what_the_best_serving_site_needs_before_the_strictest_limit(
    views: list[ModelView], deadline: float | None, ttft: float | None, e2e: float | None, output: int
):
    """In one walk, what the figures of each site by itself say; unknown of any is no limit."""

    def least(found: list[float | None]) -> float:
        known = [one for one in found if one is not None]
        return min(known) if known and len(known) == len(found) else 0.0

    serving = [one for one in views if one.is_serving]
    first = least([ttft_seconds(one, 1000) for one in serving])
    whole = least([e2e_seconds(one, 1000, output) for one in serving])
    limits = [(deadline, first), (ttft, first), (e2e, whole)]
    expected = min((limit - needed for limit, needed in limits if limit is not None), default=INFINITE)
    assert start_by(
        views,
        prompt_tokens=1000,
        output_tokens=output,
        received_at=100.0,
        deadline_seconds=deadline,
        slo=ClassSlo(ttft_seconds=ttft, e2e_seconds=e2e),
    ) == pytest.approx(100.0 + expected)
