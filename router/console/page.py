"""The console's JSON: the whole fleet in one object, what is wrong first. Pure.

Every text of a record goes out as it came, at most TEXT_CHARACTERS of it: the page shows texts as texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from router.console.facts import Counters, PlanFacts, RouterFacts, SiteFacts
from router.console.problems import router_problems, site_problems, worst
from router.console.rates import UNKNOWN_WATTS, LastMinute
from router.console.site_row import SiteRow
from router.policy.snapshot import ModelView

MAX_SITES_SHOWN = 200
"""Of a larger fleet those that are worst; a page of thousands helps nobody."""
TEXT_CHARACTERS = 200
LEVEL_ORDER = ("bad", "warning", "info", "good")


def console_page(
    router: RouterFacts,
    rows: Sequence[SiteRow],
    *,
    counters: Counters,
    minute: LastMinute,
    store_since_unix_seconds: float,
    now: float,
    unix_now: float,
) -> dict[str, Any]:
    """Everything but events and trends; `rows` of all sites, in order of name."""
    shown = rows_shown(rows)
    sent = sum(row.rates.last_minute for row in rows)
    problems = [*router_problems(router, rows, minute), *site_problems(rows)]
    return {
        "unix_seconds": unix_now,
        "level": worst(problems),
        "problems": problems,
        "router": {
            **router.about,
            "fleet": router.fleet,
            "started_at_unix_seconds": router.started_at_unix_seconds,
            "not_ready": router.not_ready,
        },
        "store": {"is_up": router.is_store_up, "since_unix_seconds": store_since_unix_seconds},
        "plan": _plan(router.plan),
        "workers": list(router.workers),
        "traffic": _traffic(counters, minute, router.held, rows),
        "power": _power(rows),
        "sites": {
            "known": len(rows),
            "shown": len(shown),
            "by_status": dict(sorted(Counter(row.status.name for row in rows).items())),
            "sent_last_minute": sent,
        },
        "rows": [_row(row, sent, now) for row in shown],
    }


def rows_shown(rows: Sequence[SiteRow]) -> Sequence[SiteRow]:
    """All, or the worst of them, in order of name."""
    if len(rows) <= MAX_SITES_SHOWN:
        return rows
    ordered = sorted(rows, key=lambda row: (LEVEL_ORDER.index(row.status.level), row.facts.site_id))
    return sorted(ordered[:MAX_SITES_SHOWN], key=lambda row: row.facts.site_id)


def trends(rows: Iterable[SiteRow]) -> dict[str, Any]:
    """Per site draw and cap, oldest first; None where they were unknown."""
    return {
        row.facts.site_id: {
            "draw_watts": _series(row.rates.draw_watts),
            "cap_watts": _series(row.rates.cap_watts),
        }
        for row in rows
    }


def _series(watts: Iterable[float]) -> list[int | None]:
    return [None if value == UNKNOWN_WATTS else round(value) for value in watts]


def _plan(plan: PlanFacts) -> dict[str, Any]:
    use = plan.plan
    page: dict[str, Any] = {
        "is_valid": plan.is_valid,
        "is_planner": plan.is_planner,
        "is_leader": plan.is_leader,
        "leader": None,
        "epoch": None,
        "age_seconds": None,
        "valid_for_seconds": None,
        "shortfall_requests_per_second": None,
    }
    if use is not None:
        page |= {
            "leader": _cut(use.router_id),
            "epoch": use.epoch,
            "age_seconds": plan.age_seconds,
            "valid_for_seconds": use.valid_for_seconds,
            "shortfall_requests_per_second": sum(
                rate for by_class in use.expected_shortfall.values() for rate in by_class.values()
            ),
        }
    return page


def _traffic(counters: Counters, minute: LastMinute, held: int, rows: Sequence[SiteRow]) -> dict[str, Any]:
    itl = _itl(rows)
    return {
        "requests_per_second": minute.requests_per_second,
        "in_flight": counters.ledger.get("in_flight"),
        "held": held,
        "ttft_seconds_p50": minute.ttft_seconds_p50,
        "ttft_seconds_p99": minute.ttft_seconds_p99,
        "itl_seconds_p50": itl[0],
        "itl_seconds_p99": itl[1],
        "minute": {
            "seconds": minute.seconds,
            "outcomes": dict(minute.outcomes),
            "retries": minute.retries,
            "resumed": minute.resumed,
            "refusals": dict(minute.refusals),
        },
        "totals": dict(counters.ledger),
    }


def _itl(rows: Sequence[SiteRow]) -> tuple[float | None, float | None]:
    """As sites report it, of those that run requests: the median by requests, and the worst p99."""
    busy = [
        model
        for row in rows
        if row.status.can_serve and row.facts.view is not None
        for model in row.facts.view.models
        if model.running_requests
    ]
    halves = sorted(
        (model.itl_seconds_p50, model.running_requests or 0)
        for model in busy
        if model.itl_seconds_p50 is not None
    )
    rank, below, median = sum(count for _, count in halves) / 2, 0, None
    for seconds, count in halves:
        below += count
        if below >= rank:
            median = seconds
            break
    worst_of = [model.itl_seconds_p99 for model in busy if model.itl_seconds_p99 is not None]
    return median, max(worst_of, default=None)


def _power(rows: Sequence[SiteRow]) -> dict[str, Any]:
    """Sums over the sites that say it, and were heard of lately; None where none is."""
    heard = [row.facts.report for row in rows if row.status.name != "silent"]
    reports = [report.power for report in heard if report is not None]
    grants = [row.facts.power.granted_power_watts for row in rows if row.facts.power is not None]
    return {
        "granted_watts": _sum(grants),
        "cap_watts": _sum(power.cap_watts for power in reports),
        "draw_watts": _sum(power.draw_watts for power in reports),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _row(row: SiteRow, sent: int, now: float) -> dict[str, Any]:
    facts, status, minute = row.facts, row.status, row.rates.last_minute
    report, info, power = facts.report, facts.info, facts.power
    why = status.why
    if status.name == "serving" and sent and not minute and not facts.in_flight:
        why = "it is well, but the policy sent it nothing in the last minute"
    return {
        "site_id": facts.site_id,
        "region": None if info is None else _cut(info.region),
        "farm_id": None if info is None else info.farm_id,
        "gpus": None if info is None else _cut(f"{info.gpu_count} × {info.gpu_model}"),
        "ingress_url": None if report is None else _cut(report.ingress_url),
        "status": {
            "name": status.name,
            "level": status.level,
            "why": why,
            "since_unix_seconds": row.since_unix_seconds,
        },
        "age_seconds": now - facts.arrived_at,
        "clock_skew_seconds": facts.clock_skew_seconds,
        "drain_seconds_left": None if report is None else report.drain_seconds_left,
        "cap_watts": None if report is None else report.power.cap_watts,
        "draw_watts": None if report is None else report.power.draw_watts,
        "draw_source": None if report is None else report.power.draw_source,
        "headroom_watts": None if report is None else report.power.headroom_watts,
        "idle_watts": None if info is None else info.server_idle_watts,
        "max_site_watts": None if info is None else info.max_site_watts,
        "wind": None
        if power is None
        else {
            "available_power_watts": power.available_power_watts,
            "granted_power_watts": power.granted_power_watts,
            "nameplate_capacity_watts": power.nameplate_capacity_watts,
            "quality": power.quality,
            "source": _cut(power.source),
        },
        "breaker": facts.breaker,
        "in_flight": facts.in_flight,
        "requests": facts.requests,
        "requests_last_minute": minute,
        "share_ratio": minute / sent if sent else None,
        "results": dict(facts.results),
        "pushbacks": dict(facts.pushbacks),
        "models": [] if facts.view is None else [_model(model, facts, now) for model in facts.view.models],
    }


def _model(view: ModelView, facts: SiteFacts, now: float) -> dict[str, Any]:
    states: Mapping[str, int] = Counter(instance.state or "unknown" for instance in view.instances)
    return {
        "model": _cut(view.model),
        "freshness": view.freshness(now).name.lower(),
        "ready_instances": view.ready_instances,
        "instances": dict(sorted(states.items())),
        "running_requests": view.running_requests,
        "waiting_requests": view.waiting_requests,
        "headroom_requests": view.headroom_requests,
        "capacity_requests": view.capacity_requests,
        "in_flight": facts.in_flight_by_model.get(view.model, 0),
        "kv_cache_usage_ratio": view.kv_cache_usage_ratio,
        "itl_seconds_p50": view.itl_seconds_p50,
        "itl_seconds_p99": view.itl_seconds_p99,
        "ttft_seconds_p50": view.ttft_seconds_p50,
        "ttft_seconds_p99": view.ttft_seconds_p99,
        "joules_per_output_token": view.joules_per_output_token,
    }


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS else f"{text[: TEXT_CHARACTERS - 1]}…"
