"""One circuit breaker per site: a site that fails gets no work until a single probe has come back well.

What counts (FACTS.md, complaint 3: breakers that trip on "busy"): connect errors, time-outs, broken answers,
a 502 or the like from a gateway with nothing behind it. A 4xx, a 429 and a pushback show that the site is
alive and close it. A stream cut in its middle counts only towards the share of the last results: a site that
stops one of its instances cuts many streams at once and still serves on the others. So does an error that an
engine answers with, and only once another site has answered the request (`router.policy.suspicion`).

Rule: a half-open breaker is judged by its probes alone: opened again by the newest one's failure, closed by
the success of any since it opened. What was sent before ends at any time and says nothing of the site as it
is now.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]

CONSECUTIVE_FAILURES = 3
"""Enough to tell an unlucky request from a dead site; a dead one reaches it within milliseconds."""
WINDOW_RESULTS = 20
WINDOW_FAILURES = 12
"""Of the last WINDOW_RESULTS: catches a site that fails every other request."""
FIRST_OPEN_SECONDS = 1.0
MAX_OPEN_SECONDS = 30.0
"""The open time doubles from the first to the most, and falls back once a probe succeeds."""
PROBE_SECONDS = 5.0
"""A probe that has said nothing by then (a long answer in one piece) keeps the others out no longer: the next
request is the probe. The old one's failure then says nothing; that it went well after all does."""


class Breaker:
    """Mutable, one per site; `now` is monotonic seconds, `probe` what `begin` returned for the request."""

    __slots__ = (
        "_consecutive",
        "_first_probe",
        "_open_seconds",
        "_open_until",
        "_probe",
        "_probe_at",
        "_probes",
        "_results",
        "state",
    )

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self._consecutive = 0
        self._results: deque[bool] = deque(maxlen=WINDOW_RESULTS)
        self._open_until = 0.0
        self._open_seconds = FIRST_OPEN_SECONDS
        self._probe = 0
        """The number of the probe under way, 0: none."""
        self._probe_at = 0.0
        self._probes = 0
        self._first_probe = 1
        """Of those since it opened."""

    def admits(self, now: float) -> bool:
        """Whether a request may be sent: always when closed, one at a time once the open time is over."""
        if self.state == "closed":
            return True
        is_asking = self._probe != 0 and now < self._probe_at + PROBE_SECONDS
        return not is_asking and now >= self._open_until

    def begin(self, now: float) -> int:
        """A request is being sent; not while `admits` says no. Returns a probe's number, 0: it is none."""
        if self.state == "closed" or now < self._open_until:
            return 0
        self.state = "half_open"
        self._probes += 1
        self._probe = self._probes
        self._probe_at = now
        return self._probe

    def succeed(self, probe: int = 0) -> None:
        """The site answered: well, with a 4xx or with a pushback."""
        if self.state == "closed":
            self._consecutive = 0
            self._results.append(True)
        elif probe >= self._first_probe:
            self._close()

    def fail(self, now: float, probe: int = 0) -> None:
        """The site could not be reached or did not answer as it should."""
        if self.state == "closed":
            self._consecutive += 1
        self._record_failure(now, probe, is_dead=self._consecutive >= CONSECUTIVE_FAILURES)

    def break_stream(self, now: float, probe: int = 0) -> None:
        """The site cut a stream that had begun."""
        self._record_failure(now, probe, is_dead=False)

    def give_up(self, probe: int = 0) -> None:
        """A request ended without a verdict (the client left): a probe's place is free again."""
        if self._is_judged_by(probe):
            self._probe = 0

    def allow_probe(self) -> None:
        """The site's agent was restarted: what was learnt of the earlier one is no longer true."""
        if self.state != "closed":
            self._open_until = 0.0
            self._open_seconds = FIRST_OPEN_SECONDS
            self._forget_probes()

    def _is_judged_by(self, probe: int) -> bool:
        return probe != 0 and probe == self._probe

    def _record_failure(self, now: float, probe: int, *, is_dead: bool) -> None:
        if self.state == "closed":
            self._results.append(False)
            if is_dead or self._results.count(False) >= WINDOW_FAILURES:
                self._open(now)
        elif self._is_judged_by(probe):
            self._open_seconds = min(self._open_seconds * 2, MAX_OPEN_SECONDS)
            self._open(now)

    def _open(self, now: float) -> None:
        self.state = "open"
        self._open_until = now + self._open_seconds
        self._forget_probes()

    def _forget_probes(self) -> None:
        self._probe = 0
        self._first_probe = self._probes + 1

    def _close(self) -> None:
        self.state = "closed"
        self._probe = 0
        self._open_seconds = FIRST_OPEN_SECONDS
        self._consecutive = 0
        self._results.clear()
