"""Whether a request can still be answered in time, from what sites report of themselves. Pure.

Rules: unknown is never a reason to refuse. What a site reports is of the last seconds, and unknown again once
nothing runs there, so a bad figure cannot shut itself in. The best serving site counts, for it may get it.

The wait is Little's law: a site that runs C requests at once, each for T seconds, ends C / T a second.
"""

from __future__ import annotations

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
    serving = [view for view in views if view.is_serving]
    first = _least([ttft_seconds(view, prompt_tokens) for view in serving])
    limits = [] if deadline_seconds is None else [deadline_seconds - first]
    if slo is not None and slo.ttft_seconds is not None:
        limits.append(slo.ttft_seconds - first)
    if slo is not None and slo.e2e_seconds is not None:
        whole = _least([e2e_seconds(view, prompt_tokens, output_tokens) for view in serving])
        limits.append(slo.e2e_seconds - whole)
    return received_at + min(limits, default=float("inf"))


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


def _least(seconds: Sequence[float | None]) -> float:
    """The best site's figure; 0 where any is unknown, for that site may be the best."""
    known = [one for one in seconds if one is not None]
    return min(known) if known and len(known) == len(seconds) else 0.0
