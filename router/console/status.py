"""How one site is, and why requests go there or do not, in words for a person. Pure.

Cases, the first that holds: it may not be called; no report for long; faulted; dark; draining; cordoned; its
breaker is open; its report is late; a probe is under way; no engine is ready; no watts left; no room; it
serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.console.facts import SiteFacts
from router.policy.snapshot import FRESH_SECONDS, STALE_SECONDS, SiteView

Level = Literal["info", "good", "warning", "bad"]
StatusName = Literal[
    "not_allowed",
    "silent",
    "faulted",
    "dark",
    "draining",
    "cordoned",
    "breaker_open",
    "late",
    "probing",
    "no_engine",
    "no_watts",
    "full",
    "serving",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """One site's."""

    name: StatusName
    level: Level
    why: str
    """Why it gets no requests, or fewer; empty: there is no reason."""
    can_serve: bool
    """New work may go there, as soon as there is room."""


def power_text(watts: float) -> str:
    """`420 W`, `6.2 kW`, `48.0 MW`."""
    if abs(watts) < 1000:
        return f"{watts:.0f} W"
    if abs(watts) < 1e6:
        return f"{watts / 1000:.1f} kW"
    return f"{watts / 1e6:.1f} MW"


def why_state(view: SiteView, draw_before_watts: float | None = None) -> str:
    """Why a site drains or is dark, as far as its figures tell; empty: they do not."""
    if view.state not in ("draining", "dark") or view.cap_watts is None:
        return ""
    cap, idle = power_text(view.cap_watts), view.server_idle_watts
    if idle is not None and view.cap_watts < idle:
        return f"its cap of {cap} is below the {power_text(idle)} that it draws with every engine stopped"
    if view.state == "dark" and idle is not None:
        return f"no engine runs: its cap is {cap}, it draws {power_text(idle)} with every one stopped"
    draw = view.draw_watts if draw_before_watts is None else draw_before_watts
    if draw is not None and view.cap_watts < draw:
        return f"its cap is {cap}, it drew {power_text(draw)}"
    return f"its cap is {cap}"


def site_status(facts: SiteFacts, now: float) -> SiteStatus:
    """Judge one site; `now` is monotonic."""
    view = facts.view
    if view is None:
        return _status("not_allowed", "bad", "its ingress_url is not in [router] site_networks, or unknown")
    age = now - facts.arrived_at
    if age > STALE_SECONDS:
        why = f"no report for {age:.0f} s: asked only where no other site serves the model"
        return _status("silent", "bad", why, can_serve=view.state == "serving")
    if view.state == "faulted":
        return _status("faulted", "bad", "its engines fail: its agent's log says why")
    if view.state == "dark":
        return _status("dark", "warning", why_state(view) or "it has stopped its engines")
    if view.state == "draining":
        left = view.drain_seconds_left
        until = "" if left is None else f", over in {left:.0f} s"
        return _status("draining", "warning", f"it takes no new work{until}: {why_state(view)}".rstrip(": "))
    if view.cordon is not None:
        reason = view.cordon.reason
        return _status(
            "cordoned", "warning", f"an operator wants no new work there{reason and f': {reason}'}"
        )
    if facts.breaker == "open":
        return _status("breaker_open", "bad", "requests failed there: it gets none but a probe")
    if age > FRESH_SECONDS:
        why = f"its report is {age:.0f} s old: others are preferred"
        return _status("late", "warning", why, can_serve=True)
    if facts.breaker == "half_open":
        return _status("probing", "warning", "requests failed there: one probe is under way")
    return _room(view)


def _room(view: SiteView) -> SiteStatus:
    """Of a site that serves and is well."""
    if view.models and all(model.ready_instances == 0 for model in view.models):
        return _status("no_engine", "warning", "none of its engines is ready yet")
    if view.headroom_watts is not None and view.headroom_watts <= 0:
        return _status("no_watts", "warning", "it draws all that its cap allows", can_serve=True)
    if view.models and all(model.headroom_requests == 0 for model in view.models):
        waiting = sum(model.waiting_requests or 0 for model in view.models)
        more = f", {waiting} wait there" if waiting else ""
        return _status("full", "warning", f"it has no room for more requests{more}", can_serve=True)
    return _status("serving", "good", "", can_serve=True)


def _status(name: StatusName, level: Level, why: str, *, can_serve: bool = False) -> SiteStatus:
    return SiteStatus(name=name, level=level, why=why, can_serve=can_serve)
