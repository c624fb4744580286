"""Whether a request can still be answered in time, from what sites report of themselves. Pure.

Rules: unknown is never a reason to refuse. What a site reports is of the last seconds, and unknown again once
nothing runs there, so a bad figure cannot shut itself in. The best serving site counts, for it may get it.

The wait is Little's law: a site that runs C requests at once, each for T seconds, ends C / T a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fleet.request import ClassSlo
from router.policy.snapshot import ModelView


def ttft_seconds(view: ModelView, prompt_tokens: int) -> float | None:
    """From arrival at the site to the first token, at best: one instance reads this prompt.

    Where nobody knows how fast it reads, its median of late: it has other prompts and a queue in it, so
    a site that could be in time is not judged by it if there is anything better.
    """
    rate = view.prefill_tokens_per_second
    return prompt_tokens / rate * (view.ready_instances or 1) if rate else view.ttft_seconds_p50


def e2e_seconds(view: ModelView, prompt_tokens: int, output_tokens: int) -> float | None:
    """From arrival at the site to the last token; None where either part is unknown."""
    first = ttft_seconds(view, prompt_tokens)
    if first is None or view.itl_seconds_p50 is None:
        return None
    return first + view.itl_seconds_p50 * max(0, output_tokens - 1)


def start_by(
    views: Sequence[ModelView],
    *,
    prompt_tokens: int,
    output_tokens: int,
    received_at: float,
    deadline_seconds: float | None,
    slo: ClassSlo | None,
) -> float:
    """The latest instant at which some site can begin and the request still be in time; infinite: no limit.

    A client's deadline asks for the first token only: how long the answer gets is not known on arrival, and
    a request is refused because it *cannot* be in time, not because it may not be.
    """
    if deadline_seconds is None and slo is None:
        return math.inf
    first, whole = _least_seconds(views, prompt_tokens, output_tokens)
    left = math.inf if deadline_seconds is None else deadline_seconds - first
    if slo is not None:
        if slo.ttft_seconds is not None:
            left = min(left, slo.ttft_seconds - first)
        if slo.e2e_seconds is not None:
            left = min(left, slo.e2e_seconds - whole)
    return received_at + left


def wait_seconds(views: Sequence[ModelView], *, ahead: int, prompt_tokens: int, output_tokens: int) -> float:
    """Until the turn of one that has `ahead` others before it, as if all were like it; 0 where unknown."""
    ended_per_second = 0.0
    for view in views:
        if not view.is_serving:
            continue
        seconds = e2e_seconds(view, prompt_tokens, output_tokens)
        if not seconds or view.capacity_requests is None:
            return 0.0
        ended_per_second += view.capacity_requests / seconds
    return (ahead + 1) / ended_per_second if ended_per_second > 0 else 0.0


def _least_seconds(views: Sequence[ModelView], prompt_tokens: int, output_tokens: int) -> tuple[float, float]:
    """`ttft_seconds` and `e2e_seconds` of the best serving site, in one walk (this is per request); 0 where
    it is unknown of any, for that site may be the best.
    """
    first = whole = math.inf
    gaps = max(0, output_tokens - 1)
    for view in views:
        if view.is_serving:
            seconds = ttft_seconds(view, prompt_tokens)
            if seconds is None:
                return 0.0, 0.0
            first = min(first, seconds)
            gap = view.itl_seconds_p50
            # −∞: unknown of one is unknown of all
            whole = -math.inf if gap is None else min(whole, seconds + gap * gaps)
    return (first if first < math.inf else 0.0), (whole if -math.inf < whole < math.inf else 0.0)
