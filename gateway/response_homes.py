"""Who holds a response: engines keep them in their own memory, so later calls must find that one. Pure.

What is remembered is a hint: it is bounded, it is lost with the process, and other routers do not know it. A
caller that has no hint, or whose hint was wrong, asks everybody in turn.
"""

from __future__ import annotations

import re

MAX_HOMES = 65_536
"""About 200 bytes each; the oldest goes first."""
HOME_SECONDS = 24 * 3600.0
MAX_OPENING_BYTES = 64 * 1024
"""Of an answer's beginning, in which its id is looked for; vLLM writes it first."""
_ID = re.compile(rb'"id"\s*:\s*"(resp_[\w.-]{1,250})"')


def find_response_id(opening: bytes) -> str | None:
    """The id in the beginning of an answer, or in a stream's first event (`response.created`)."""
    found = _ID.search(opening, 0, MAX_OPENING_BYTES)
    return None if found is None else found[1].decode("ascii", "replace")


class ResponseHomes:
    """Response id → the name of whoever answered with it (a site, an instance), and whose it is."""

    __slots__ = ("_homes", "_max_homes", "_seconds")

    def __init__(self, *, max_homes: int = MAX_HOMES, seconds: float = HOME_SECONDS) -> None:
        self._homes: dict[str, tuple[str, str | None, float]] = {}
        """In order of learning, so the first is the oldest."""
        self._max_homes = max_homes
        self._seconds = seconds

    def __len__(self) -> int:
        return len(self._homes)

    def learn(self, response_id: str, home: str, now: float, *, owner: str | None = None) -> None:
        """It was seen there. `owner`: the tenant who made it; None: whoever is remembered, or nobody."""
        known = self._homes.pop(response_id, None)
        if owner is None and known is not None:
            owner = known[1]
        self._homes[response_id] = (home, owner, now + self._seconds)
        if len(self._homes) > self._max_homes:
            del self._homes[next(iter(self._homes))]

    def learn_from(self, opening: bytes, home: str, now: float, *, owner: str | None = None) -> None:
        """The same, from the first bytes of the answer."""
        response_id = find_response_id(opening)
        if response_id is not None:
            self.learn(response_id, home, now, owner=owner)

    def find(self, response_id: str, now: float) -> str | None:
        """Where it was seen, as far as is remembered."""
        known = self._homes.get(response_id)
        if known is None:
            return None
        home, _, until = known
        if now >= until:
            del self._homes[response_id]
            return None
        return home

    def is_of_another(self, response_id: str, tenant: str) -> bool:
        """Whether another tenant is known to have made it."""
        known = self._homes.get(response_id)
        return known is not None and known[1] is not None and known[1] != tenant

    def forget(self, response_id: str) -> None:
        """It is not there any more."""
        self._homes.pop(response_id, None)
