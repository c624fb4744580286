"""What happened, found by comparing what is known now with what was known a second ago. Pure.

It tells what no single place in the router sees: caps that moved, reports that stay away, requests that were
moved, refused or cut, in bunches, and when no site at all can take work. What one place does see (a state, a
breaker, Redis, a policy, a plan) is told there, as it happens.

Rule: told once when it begins and once when it is over; what is kept is bounded by the sites that are known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.records import PowerQuality
from router.console.facts import Counters, PlanFacts, SiteFacts
from router.console.status import Level, SiteStatus, power_text
from router.policy.snapshot import STALE_SECONDS

HappeningKind = Literal["cap", "report", "power", "requests", "fleet", "plan"]

CAP_STEP_RATIO = 0.2
"""A cap that has moved by more than this share of the highest seen is told."""
GRANT_STEP_RATIO = 0.2
"""Of the farm's nameplate: as in `FleetView`, which tells of grants that move so far at once."""
GRANT_TOLD_SECONDS = 10.0
"""So long after such a step the cap's own is no news."""
BUNCH_SECONDS = 10.0
QUIET_SECONDS = 3.0
"""A bunch of requests is told when nothing was added for so long, or when it is BUNCH_SECONDS old."""
QUALITY_SECONDS = 3.0
"""A reading that is suspect for less is no news: after every sudden fall one is."""
HELD_SECONDS = 3.0
"""Requests that wait for less are no news."""
REASONS_SHOWN = 3
QUALITY_TEXTS: dict[PowerQuality, tuple[Level, str]] = {
    "good": ("good", "measured well again"),
    "suspect": ("warning", "a check of the measurement fails (suspect): it raises no cap"),
    "fallback": ("bad", "nothing usable is measured, the cap walks down (fallback)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One line of the timeline."""

    kind: HappeningKind
    level: Level
    text: str
    site_id: str | None = None


@dataclass(slots=True)
class _Site:
    """What was known of a site."""

    told_cap_watts: float | None = None
    highest_cap_watts: float = 0.0
    granted_watts: float | None = None
    granted_step_at: float = float("-inf")
    granted_step_sign: int = 0
    silent_since: float | None = None
    quality: PowerQuality = "good"
    quality_since: float | None = None
    told_quality: PowerQuality = "good"
    can_serve: bool = False


@dataclass(slots=True)
class _Bunch:
    """Requests that something happened to, together."""

    began_at: float
    changed_at: float
    resumed: int = 0
    broken: int = 0
    failed: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    not_resumed: dict[str, int] = field(default_factory=dict)
    losses: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)


class Timeline:
    """Mutable, one per router."""

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}
        self._counters: Counters | None = None
        self._bunch: _Bunch | None = None
        self._held_since: float | None = None
        self._is_held_told = False
        self._most_held = 0
        self._is_dead: bool | None = None
        """No site can serve; None: none ever could, so that a start is no alarm."""
        self._plan_writer: str | None = None
        self._is_plan_valid = False

    # sites
    def keep_only(self, known: Collection[str]) -> None:
        """Forget sites that are no longer known."""
        if len(self._sites) > len(known) or not all(site_id in known for site_id in self._sites):
            self._sites = {site_id: kept for site_id, kept in self._sites.items() if site_id in known}

    def take_site(self, facts: SiteFacts, status: SiteStatus, now: float) -> list[Happening]:
        """One site as it is now."""
        kept = self._sites.get(facts.site_id)
        if kept is None:
            kept = self._sites[facts.site_id] = _Site()
        kept.can_serve = status.can_serve
        self._note_grant(kept, facts, now)
        found = [
            self._cap(kept, facts, now),
            self._silence(kept, facts, now),
            self._quality(kept, facts, now),
        ]
        return [happening for happening in found if happening is not None]

    def _note_grant(self, kept: _Site, facts: SiteFacts, now: float) -> None:
        if facts.power is None:
            return
        granted, before = facts.power.granted_power_watts, kept.granted_watts
        kept.granted_watts = granted
        if before is not None:
            step = granted - before
            if abs(step) > GRANT_STEP_RATIO * facts.power.nameplate_capacity_watts:
                kept.granted_step_at, kept.granted_step_sign = now, _sign(step)

    def _cap(self, kept: _Site, facts: SiteFacts, now: float) -> Happening | None:
        """The cap has moved far since it was told."""
        cap = None if facts.report is None else facts.report.power.cap_watts
        if cap is None:
            return None
        kept.highest_cap_watts = max(kept.highest_cap_watts, cap)
        before = kept.told_cap_watts
        if before is None:
            kept.told_cap_watts = cap
            return None
        step = cap - before
        if abs(step) <= CAP_STEP_RATIO * kept.highest_cap_watts:
            return None
        kept.told_cap_watts = cap
        if kept.granted_step_sign == _sign(step) and now - kept.granted_step_at <= GRANT_TOLD_SECONDS:
            return None
        verb = "rises" if step > 0 else "falls"
        move = f"from {power_text(before)} to {power_text(cap)}"
        return Happening(
            kind="cap",
            level="good" if step > 0 else "warning",
            text=f"cap of {facts.site_id} {verb} {move}{_why_cap(facts)}",
            site_id=facts.site_id,
        )

    def _silence(self, kept: _Site, facts: SiteFacts, now: float) -> Happening | None:
        """Its reports stay away, or come again."""
        site_id, age = facts.site_id, now - facts.arrived_at
        if kept.silent_since is None:
            if age <= STALE_SECONDS:
                return None
            kept.silent_since = facts.arrived_at
            text = f"no report of {site_id} for {age:.0f} s: others are preferred, its figures are unknown"
            return Happening(kind="report", level="bad", text=text, site_id=site_id)
        if age > STALE_SECONDS:
            return None
        seconds = facts.arrived_at - kept.silent_since
        kept.silent_since = None
        text = f"{site_id} reports again, after {seconds:.0f} s"
        return Happening(kind="report", level="good", text=text, site_id=site_id)

    def _quality(self, kept: _Site, facts: SiteFacts, now: float) -> Happening | None:
        """The reading of its wind is no longer good, or is again."""
        if facts.power is None:
            return None
        quality = facts.power.quality
        if quality != kept.quality or kept.quality_since is None:
            kept.quality, kept.quality_since = quality, now
        if quality == kept.told_quality or (quality != "good" and now - kept.quality_since < QUALITY_SECONDS):
            return None
        kept.told_quality = quality
        level, text = QUALITY_TEXTS[quality]
        return Happening(
            kind="power", level=level, text=f"wind of {facts.site_id}: {text}", site_id=facts.site_id
        )

    # the fleet
    def take_fleet(self, counters: Counters, held: int, plan: PlanFacts, now: float) -> list[Happening]:
        """The router's own counts; after its sites."""
        self._add(counters, now)
        found = [self._bunch_told(now), self._held(held, now), self._dead(), self._plan(plan)]
        return [happening for happening in found if happening is not None]

    def _add(self, counters: Counters, now: float) -> None:
        before, self._counters = self._counters, counters
        if before is None:
            return
        new = _Bunch(began_at=now, changed_at=now)
        new.resumed = max(0, counters.resumed - before.resumed)
        new.broken = _grown(counters.ledger, before.ledger).get("broken", 0)
        new.failed = _grown(counters.ledger, before.ledger).get("failed", 0)
        new.retries = _grown(counters.retries, before.retries)
        new.not_resumed = _grown(counters.not_resumed, before.not_resumed)
        new.losses = _grown(counters.losses, before.losses)
        new.refusals = _grown(counters.refusals, before.refusals)
        if not _parts(new):
            return
        bunch = self._bunch
        if bunch is None:
            self._bunch = new
            return
        bunch.changed_at = now
        bunch.resumed += new.resumed
        bunch.broken += new.broken
        bunch.failed += new.failed
        for into, more in (
            (bunch.retries, new.retries),
            (bunch.not_resumed, new.not_resumed),
            (bunch.losses, new.losses),
            (bunch.refusals, new.refusals),
        ):
            for reason, count in more.items():
                into[reason] = into.get(reason, 0) + count

    def _bunch_told(self, now: float) -> Happening | None:
        bunch = self._bunch
        if bunch is None:
            return None
        if now - bunch.changed_at < QUIET_SECONDS and now - bunch.began_at < BUNCH_SECONDS:
            return None
        self._bunch = None
        level: Level = "info"
        if bunch.refusals or bunch.not_resumed or bunch.failed:
            level = "warning"
        if bunch.broken:
            level = "bad"
        seconds = bunch.changed_at - bunch.began_at
        text = ", ".join(_parts(bunch))
        if seconds >= 1.5:
            text = f"within {seconds:.0f} s: {text}"
        return Happening(kind="requests", level=level, text=text)

    def _held(self, held: int, now: float) -> Happening | None:
        """Requests have begun to wait for room, or none does any more."""
        if held:
            self._most_held = max(self._most_held, held)
            if self._held_since is None:
                self._held_since = now
            if self._is_held_told or now - self._held_since < HELD_SECONDS:
                return None
            self._is_held_told = True
            text = f"{held} requests wait: no site has room for them"
            return Happening(kind="requests", level="warning", text=text)
        since, most, was_told = self._held_since, self._most_held, self._is_held_told
        self._held_since, self._most_held, self._is_held_told = None, 0, False
        if not was_told or since is None:
            return None
        text = f"no request waits any more: {most} at the most, for {now - since:.0f} s"
        return Happening(kind="requests", level="good", text=text)

    def _dead(self) -> Happening | None:
        """No site can take new work, or one can again."""
        before, is_dead = self._is_dead, not any(kept.can_serve for kept in self._sites.values())
        if before is None and is_dead:
            return None
        self._is_dead = is_dead
        if is_dead == (before or False):
            return None
        if is_dead:
            text = "no site can take requests: what is new waits, then is told when to come back"
            return Happening(kind="fleet", level="bad", text=text)
        return Happening(kind="fleet", level="good", text="a site can take requests again")

    def _plan(self, plan: PlanFacts) -> Happening | None:
        """Another router plans, or the plan is over."""
        writer = None if plan.plan is None else plan.plan.router_id
        was_valid, self._is_plan_valid = self._is_plan_valid, plan.is_valid
        before, self._plan_writer = self._plan_writer, writer
        if was_valid and not plan.is_valid:
            text = "the plan is over and no newer one came: routing goes on by live signals alone"
            return Happening(kind="plan", level="warning", text=text)
        if writer is not None and writer != before and plan.is_valid and not plan.is_leader:
            text = f"the plan is now router {writer}'s (epoch {plan.plan.epoch if plan.plan else 0})"
            return Happening(kind="plan", level="info", text=text)
        return None


def _why_cap(facts: SiteFacts) -> str:
    report, power = facts.report, facts.power
    if report is not None and report.power.quality == "fallback":
        return ": its agent gets no good measurement of the wind, so the cap walks down"
    if power is not None and report is not None and report.power.cap_watts is not None:
        return f": it is granted {power_text(power.granted_power_watts)} of the wind"
    return ""


def _grown(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """What was added, by key; a count that went back (a worker is gone) has grown by nothing."""
    return {key: count - before.get(key, 0) for key, count in now.items() if count > before.get(key, 0)}


def _parts(bunch: _Bunch) -> list[str]:
    retries = sum(bunch.retries.values())
    refused, given_up = sum(bunch.refusals.values()), sum(bunch.not_resumed.values())
    why_broken = f" ({_reasons(bunch.losses)})" if bunch.losses else ""
    texts = (
        (bunch.resumed, "{} streams went on at another site"),
        (retries, f"{{}} requests were sent to another site ({_reasons(bunch.retries)})"),
        (given_up, f"{{}} tries to go on failed ({_reasons(bunch.not_resumed)})"),
        (refused, f"{{}} were refused ({_reasons(bunch.refusals)})"),
        (bunch.broken, f"{{}} ended broken, with a stated error{why_broken}"),
        (bunch.failed, "{} ended in an error"),
    )
    return [text.format(count) for count, text in texts if count]


def _reasons(counts: Mapping[str, int]) -> str:
    """`connect 3, power 2`, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{reason} {count}" for reason, count in ordered[:REASONS_SHOWN]]
    return ", ".join([*shown, "others"] if len(ordered) > REASONS_SHOWN else shown)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
