"""One engine of the site as the agent sees it: its state, and the record of its failures."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from fleet.instance import InstanceState, move
from gateway.origin import Origin
from site_agent.drivers.interface import InstanceSpec

HOUR_SECONDS = 3600.0
STABLE_SECONDS = 60.0
"""Ready for so long, an instance's failures in a row are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRule:
    """Back-off and cap; `site_agent.governor_options.RestartOptions` explains each."""

    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30.0
    max_per_hour: int = 20


@dataclass(slots=True, kw_only=True, eq=False)
class Instance:
    """Changed only by `InstancePool`; moves are the legal ones of `fleet.instance`."""

    spec: InstanceSpec
    state: InstanceState = InstanceState.STOPPED
    is_stopping: bool = False
    """Told to stop and not gone yet."""
    is_killed: bool = False
    """Told so without grace."""
    origin: Origin | None = None
    """Where it serves, while it does."""
    clock_mhz: int | None = None
    """As last set and confirmed; None: never, or the last order failed."""
    highest_clock_mhz: int | None = None
    """What its GPUs may run at, whatever became of the orders since the last confirmed one; None: any."""
    ready_at: float | None = None
    failed_probes: int = 0
    """In a row. While there are any it takes no new requests: it may hang."""
    last_fault: str | None = None
    """Why it last ended by itself or did not start."""
    _failures: deque[float] = field(default_factory=deque)
    _failures_in_a_row: int = 0
    _retry_at: float = float("-inf")

    @property
    def instance_id(self) -> str:
        return self.spec.instance_id

    @property
    def index(self) -> int:
        return self.spec.index

    @property
    def is_admitted(self) -> bool:
        """Whether it takes requests."""
        return (
            self.state is InstanceState.READY
            and not self.is_stopping
            and self.origin is not None
            and not self.failed_probes
        )

    @property
    def is_serving(self) -> bool:
        """Whether an engine works there, also one that takes no more."""
        working = self.state in (InstanceState.READY, InstanceState.DRAINING)
        return working and not self.is_stopping and self.origin is not None

    @property
    def is_drawing(self) -> bool:
        """Whether an engine of it draws power, also one that is being stopped."""
        return self.is_stopping or self.state not in (InstanceState.STOPPED, InstanceState.ASLEEP)

    def move(self, target: InstanceState, now: float) -> None:
        """Change the state.

        Raises:
            IllegalMoveError: it may not.
        """
        self.state = move(self.instance_id, self.state, target)
        if target is InstanceState.READY:
            self.ready_at = now if self.ready_at is None else self.ready_at
            self.failed_probes = 0
        elif target is InstanceState.STOPPED:
            self.ready_at = None
            self.origin = None

    def fail(self, reason: str, rule: RestartRule, rng: random.Random, now: float) -> float:
        """Note that it ended by itself or did not start; returns the seconds until it may be tried again.

        Doubling back-off with ±20 % jitter; beyond `max_per_hour` failures it waits until an hour has passed
        since the first of them.
        """
        if self.ready_at is not None and now - self.ready_at >= STABLE_SECONDS:
            self._failures_in_a_row = 0
        self.last_fault = reason
        self._failures.append(now)
        while self._failures[0] <= now - HOUR_SECONDS:
            self._failures.popleft()
        wait = min(rule.max_backoff_seconds, rule.backoff_seconds * 2.0 ** min(self._failures_in_a_row, 30))
        wait *= rng.uniform(0.8, 1.2)
        self._failures_in_a_row += 1
        if len(self._failures) >= rule.max_per_hour:
            wait = max(wait, self._failures[0] + HOUR_SECONDS - now)
        self._retry_at = now + wait
        return wait

    def can_start(self, now: float) -> bool:
        """Stopped, and not in a back-off."""
        return self.state is InstanceState.STOPPED and not self.is_stopping and now >= self._retry_at

    def is_failing(self, now: float) -> bool:
        """Stopped by a fault, and waiting for its next try."""
        return self.state is InstanceState.STOPPED and now < self._retry_at
