"""What a site's numbers promise together: ladder against ride-through, firm power against idle draw. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: str
    status: Status
    message: str
    action: str = ""
    """What to do; empty where it is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Of one site, as configured."""

    reaction_seconds: float
    drain_seconds: float
    stop_seconds: float
    stop_grace_seconds: float
    """Between SIGTERM and SIGKILL of an engine; 0 where none is stopped."""
    ride_through_seconds: float
    ride_through_joules: float
    watchdog_seconds: float
    safe_floor_watts: float
    server_idle_watts: float
    has_server_switch: bool
    full_watts: float
    max_site_watts: float
    margin_ratio: float
    guard_ratio: float
    is_governor_enabled: bool
    meter_lag_seconds: float
    """How late what measures the draw shows a change."""
    is_profile_assumed: bool
    can_set_clock: bool


def findings(numbers: Numbers) -> list[Finding]:
    """One for each promise, kept or not."""
    return [
        _ladder(numbers),
        _energy(numbers),
        _floor(numbers),
        _watchdog(numbers),
        _governor(numbers),
        _margin(numbers),
        _profile(numbers),
    ]


def _ladder(n: Numbers) -> Finding:
    lag = n.meter_lag_seconds
    ladder = n.reaction_seconds + n.drain_seconds + n.stop_seconds + lag
    left = n.ride_through_seconds - ladder
    late = f" + the meter's lag {lag:g}" if lag else ""
    said = (
        f"reaction {n.reaction_seconds:g} + drain {n.drain_seconds:g} + stop {n.stop_seconds:g}{late} = "
        f"{ladder:g} s of the ride-through's {n.ride_through_seconds:g} s"
    )
    if left < 0:
        return Finding(
            check="ladder",
            status="fail",
            message=said,
            action="shorten governor.drain_seconds, or carry the site for longer (ride_through_seconds)",
        )
    if left < 0.1 * n.ride_through_seconds:
        return Finding(
            check="ladder",
            status="warn",
            message=f"{said}: less than a tenth is left for what is late",
            action="shorten governor.drain_seconds",
        )
    return Finding(check="ladder", status="pass", message=f"a fall is complied with in time: {said}")


def _energy(n: Numbers) -> Finding:
    """The worst fall: from everything busy to the floor, at full draw until the ladder's end."""
    ladder = n.reaction_seconds + n.drain_seconds + n.stop_seconds
    worst = max(0.0, n.full_watts - n.safe_floor_watts) * ladder
    said = (
        f"{n.full_watts:.0f} W down to the floor of {n.safe_floor_watts:.0f} W needs up to {worst:.0f} J; "
        f"the ride-through carries {n.ride_through_joules:.0f} J"
    )
    if worst <= n.ride_through_joules:
        return Finding(check="ride-through energy", status="pass", message=said)
    return Finding(
        check="ride-through energy",
        status="warn",
        message=said + "; the ladder is cut short then, and streams break off early",
        action="a larger battery (ride_through_joules), or a shorter ladder",
    )


def _floor(n: Numbers) -> Finding:
    said = (
        f"firm power {n.safe_floor_watts:.0f} W, the server idle with every engine stopped "
        f"{n.server_idle_watts:.0f} W"
    )
    if n.safe_floor_watts >= n.server_idle_watts:
        return Finding(check="floor", status="pass", message=f"every cap can be kept: {said}")
    if n.has_server_switch:
        said += "; the power feed switches the server off where it grants nothing"
        return Finding(check="floor", status="pass", message=said)
    return Finding(
        check="floor",
        status="warn",
        message=f"a cap below the idle draw cannot be kept: {said}; such time counts as below_idle_seconds",
        action="more firm power (safe_floor_watts, firm_power_source), or a server switch at the power feed",
    )


def _watchdog(n: Numbers) -> Finding:
    late = n.watchdog_seconds >= n.ride_through_seconds
    return Finding(
        check="watchdog",
        status="fail" if late else "pass",
        message=f"an agent that hangs loses its engines after {n.watchdog_seconds:g} s, the ride-through "
        f"lasts {n.ride_through_seconds:g} s",
        action="watchdog_seconds below ride_through_seconds" if late else "",
    )


def _governor(n: Numbers) -> Finding:
    if not n.is_governor_enabled:
        return Finding(
            check="governor",
            status="fail",
            message="switched off: the cap is not kept",
            action="governor.enabled = true",
        )
    if n.stop_grace_seconds > n.stop_seconds:
        return Finding(
            check="governor",
            status="warn",
            message=f"an engine may take {n.stop_grace_seconds:g} s to end by itself, the governor counts on "
            f"{n.stop_seconds:g} s (in a hurry it kills)",
            action="engine.stop_grace_seconds at most governor.stop_seconds",
        )
    return Finding(check="governor", status="pass", message="on, and its stops are as fast as it counts on")


def _margin(n: Numbers) -> Finding:
    told = f"{100 * (n.margin_ratio + n.guard_ratio):.0f} % below the grant (margin and guard)"
    if n.full_watts > n.max_site_watts:
        return Finding(
            check="limit",
            status="warn",
            message=f"max_site_watts {n.max_site_watts:.0f} W is below the full load's {n.full_watts:.0f} W: "
            f"some engines or clocks are never used; the worst case stays {told}",
            action="a larger feeder (max_site_watts), or fewer instances",
        )
    return Finding(check="limit", status="pass", message=f"the worst case stays {told}")


def _profile(n: Numbers) -> Finding:
    if n.is_profile_assumed:
        return Finding(
            check="profile",
            status="warn",
            message="no profile: the draw follows assumed_stopped_watts, _idle_watts and _busy_watts; the "
            "cap holds only as far as these are right",
            action="engine.profile, or measure: heron profile run",
        )
    if not n.can_set_clock:
        return Finding(
            check="profile",
            status="warn",
            message="clocks cannot be set: power is saved by stopping engines only",
            action="see the check of the GPUs",
        )
    return Finding(check="profile", status="pass", message="watts by profile, clocks can be set")
