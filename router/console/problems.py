"""What needs a person, the worst first, and what that person should do. Pure.

Rule: every line names the action that it calls for; what heals by itself says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from router.console.facts import RouterFacts, SiteFacts
from router.console.rates import LastMinute
from router.console.site_row import SiteRow
from router.console.status import Level, SiteStatus, StatusName, power_text

MAX_SITE_PROBLEMS = 20
ORDER: tuple[Level, ...] = ("bad", "warning", "info", "good")
ACTIONS: dict[StatusName, str] = {
    "not_allowed": "Compare the site's ingress_url with [router] site_networks.",
    "silent": "Look at its site agent, its network, and Redis.",
    "faulted": "Read its agent's log; run heron doctor there.",
    "dark": "Nothing to do: it comes back with the wind, or once its engines have started.",
    "draining": "Nothing to do: its streams finish there or go on elsewhere.",
    "cordoned": "Once that is over: heron cordon SITE --lift.",
    "breaker_open": "Read its agent's log: the events say what failed.",
    "late": "Look at its network and at Redis if it goes on.",
    "probing": "Nothing to do: the probe decides.",
    "no_engine": "Wait for the engines to start; its agent's log says how far they are.",
    "no_watts": "Nothing to do: it takes more as the wind or its load allows.",
    "full": "Add capacity if it goes on.",
}


def worst(problems: Sequence[dict[str, Any]]) -> Level:
    """The level of the whole."""
    levels = {problem["level"] for problem in problems}
    return next((level for level in ORDER if level in levels), "good")


def router_problems(
    router: RouterFacts, sites: Sequence[SiteRow], minute: LastMinute
) -> list[dict[str, Any]]:
    """Of the router and of the fleet as a whole."""
    found: list[dict[str, Any]] = []
    if not sites:
        text, action = "No site is known.", "Start site agents on the same Redis and [fleet] name."
        found.append(_problem("bad", text, action))
    elif not any(site.status.can_serve for site in sites):
        text = "No site can take requests: what is new waits, then is refused with a Retry-After."
        found.append(_problem("bad", text, "See below what each site lacks."))
    if router.is_store_up is False:
        text = "Redis does not answer: the router asks the sites themselves, and makes no new plan."
        found.append(_problem("bad", text, "Start Redis; nothing else is needed."))
    elif router.is_store_up is None:
        found.append(_problem("warning", "Redis has not answered yet.", "Wait, or check [fleet] redis_url."))
    if router.not_ready is not None and sites:
        text = f"Not ready for clients: {router.not_ready}."
        found.append(_problem("bad", text, "GET /readyz says the same."))
    idle = [worker for worker in router.workers if not worker.get("is_ready")]
    if idle:
        text = f"{len(idle)} of {len(router.workers)} router workers do not serve."
        found.append(_problem("bad", text, "They are started again. The log says why they ended."))
    plan = router.plan
    if plan.plan is not None and not plan.is_valid:
        text = "The last plan is over: routing goes on by live signals alone."
        found.append(_problem("warning", text, "Look at the router that plans: docs/planner.md."))
    return found + _traffic_problems(router, minute)


def _traffic_problems(router: RouterFacts, minute: LastMinute) -> list[dict[str, Any]]:
    found = []
    broken, failed = minute.outcomes.get("broken", 0), minute.outcomes.get("failed", 0)
    if router.held:
        found.append(_problem("warning", f"{router.held} requests wait for room.", "Add power or capacity."))
    if shed := minute.outcomes.get("shed", 0):
        text = f"{shed} requests were shed in the last minute."
        found.append(_problem("warning", text, "They were told when to come back. Add power or capacity."))
    if broken:
        text = f"{broken} requests were broken off in the last minute, with a stated error."
        found.append(_problem("bad", text, "The timeline says at which site."))
    if failed:
        text = f"{failed} requests ended in an error in the last minute."
        found.append(_problem("warning", text, "The events and the access log say which, and why."))
    if lost := minute.outcomes.get("lost", 0):
        text = f"{lost} requests have no outcome."
        found.append(_problem("bad", text, "A defect: report it, with the log."))
    return found


def site_problems(sites: Sequence[SiteRow]) -> list[dict[str, Any]]:
    """Of each site, the worst first, at most so many."""
    found: list[dict[str, Any]] = []
    for site in sites:
        facts, status = site.facts, site.status
        if status.level in ("bad", "warning"):
            state = f" is {status.name}" if status.name in ("dark", "faulted") else ""
            text = f"{facts.site_id}{state}: {status.why}."
            found.append(_problem(status.level, text, ACTIONS.get(status.name, ""), facts.site_id))
        found += _power_problems(facts, status)
        if facts.is_clock_off:
            text = f"{facts.site_id}: its clock is off by {-facts.clock_skew_seconds:.1f} s."
            found.append(_problem("warning", text, "Check NTP there.", facts.site_id))
    found.sort(key=lambda problem: ORDER.index(problem["level"]))
    if len(found) > MAX_SITE_PROBLEMS:
        more = len(found) - MAX_SITE_PROBLEMS
        rest = _problem(found[MAX_SITE_PROBLEMS]["level"], f"{more} more like these.", "See the sites.")
        found = [*found[:MAX_SITE_PROBLEMS], rest]
    return found


def _power_problems(facts: SiteFacts, status: SiteStatus) -> list[dict[str, Any]]:
    found = []
    power = None if facts.report is None else facts.report.power
    if (
        power is not None
        and status.name != "silent"
        and power.cap_watts is not None
        and power.draw_watts is not None
        and power.draw_watts > power.cap_watts
    ):
        over = power_text(power.draw_watts - power.cap_watts)
        text = f"{facts.site_id}: it draws {over} more than its cap of {power_text(power.cap_watts)}."
        action = "It may within the ride-through. If it stays: its agent's log."
        found.append(_problem("bad", text, action, facts.site_id))
    if facts.power is not None and facts.power.quality != "good":
        is_bad = facts.power.quality == "fallback"
        text = f"{facts.site_id}: the reading of its wind is {facts.power.quality}."
        action = "Look at the power feed's source: the cap walks down."
        action = action if is_bad else "Look at the power feed's metrics."
        found.append(_problem("bad" if is_bad else "warning", text, action, facts.site_id))
    return found


def _problem(level: Level, text: str, action: str, site_id: str | None = None) -> dict[str, Any]:
    return {"level": level, "text": text, "action": action, "site_id": site_id}
