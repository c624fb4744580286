"""A simulated site under one cap a second, with the feed's switch on its server. Pure.

Rule: nothing is left out that could change a decision. The site is stepped ten times a second wherever
something moves, and else once, at the feed's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.governor.site import SimulatedSite
from site_agent.situation import SetClock

BOOT_SECONDS = 120.0
ON_HOLD_SECONDS = 30.0
"""A server is switched on when its grant has been worth it for so long."""
MOVING_SECONDS = 8.0
"""After a command the site is stepped ten times a second for so long, and in an episode, and where the next
reading is below the draw; else once, at the feed's reading: between two readings nothing changes then."""
CLOCK_SECONDS = 1.0
"""The same after a mere change of clock."""


def cap_at(caps: list[float]) -> Callable[[float], float]:
    """The cap as a function of time; the last one lasts."""
    last = len(caps) - 1

    def find(at: float) -> float:
        return caps[min(int(at), last)]

    return find


def live_under(site: SimulatedSite, caps: list[float]) -> None:
    """Step the site through these caps, one a second; one of 0: the grant is below the server's idle draw."""
    seconds, idle = len(caps), site.model.server_idle_watts
    server = _Server(site=site, idle_watts=idle)
    power = site.model.power
    fast_until = 0.0
    while site.now < seconds - 1:
        seen = len(site.commands)
        cap_next = caps[min(int(site.now) + 1, seconds - 1)]
        is_fast = (
            site.now < fast_until
            or site.is_moving
            or power.site_watts(site.gpu_watts) > cap_next
            or site.now != int(site.now)
        )
        site.step(0.1 if is_fast else 1.0)
        server.follow(caps[int(site.now)])
        if len(site.commands) > seen:
            is_more = any(not isinstance(command, SetClock) for _, command in site.commands[seen:])
            fast_until = max(fast_until, site.now + (MOVING_SECONDS if is_more else CLOCK_SECONDS))
        elif site.judge.is_in_episode:
            fast_until = max(fast_until, site.now + CLOCK_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Server:
    """The feed's switch: off at a grant of 0, when dark or the ride-through is over; on when it lasts.

    Where the power fell in steps the ride-through began before: the governor says so, as reports do.
    """

    site: SimulatedSite
    idle_watts: float
    _zero_since: float | None = None
    _good_since: float | None = None

    def follow(self, cap: float) -> None:
        site, now = self.site, self.site.now
        if cap < self.idle_watts:
            self._good_since = None
            if self._zero_since is None:
                self._zero_since = now
            if not site.is_server_off:
                told_at = site.control.account.episode_at
                began_at = self._zero_since if told_at is None else min(self._zero_since, told_at)
                is_over = now - began_at >= site.ride_through.seconds - 1.0
                site.is_server_off = is_over or site.is_dark
            return
        self._zero_since = None
        if site.is_server_off:
            if self._good_since is None:
                self._good_since = now
            if now - self._good_since >= ON_HOLD_SECONDS + BOOT_SECONDS:
                site.is_server_off = False
