"""Whose fault it is that a site answered a request with an error (a 5xx, or an event of a stream). Pure.

Rule: a front end that answers is alive, so nothing is counted yet; what the next site says will tell. Once it
answers the request well, the first site is at fault, for the share of its last results only. Where none does,
it was the request: one tenant's request that makes every engine say 500 must close the fleet to nobody.
"""

from __future__ import annotations

from router.policy.breaker import Breaker


class Suspicion:
    """Of one request that met an error, from then to its end: mutable, the first site alone is suspected."""

    __slots__ = ("_breaker", "_probe")

    def __init__(self, breaker: Breaker, probe: int) -> None:
        """`probe`: the request's number where it asked whether that site is well; its place is kept here."""
        self._breaker: Breaker | None = breaker
        self._probe = probe

    def confirm(self, now: float) -> None:
        """Another site answers the request; nothing more the second time."""
        if self._breaker is not None:
            self._breaker.break_stream(now, self._probe)
            self._breaker = None

    def drop(self) -> None:
        """The request is over and nobody answered it: a probe's place is free again."""
        if self._breaker is not None:
            self._breaker.give_up(self._probe)
            self._breaker = None
