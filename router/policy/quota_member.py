"""One process's part in the quotas that a fleet shares: what it reports, and takes of the answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.quota_book import MAX_KEYS, Spending, Standing
from router.policy.key_ring import KeyRing


class QuotaMember:
    """One per process with a ring of keys."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._reported: dict[str, Spending] = {}
        self._elsewhere: set[str] = set()
        """Keys that are in use."""
        self.is_lost = False
        """Nobody tells where keys stand."""

    @property
    def is_needed(self) -> bool:
        """Whether any key has limits."""
        return any(credential.quota.is_limited for credential in self._ring.credentials())

    def report(self) -> list[Spending]:
        """What was spent here of keys with limits, where that is news."""
        found: dict[str, Spending] = {}
        for credential in self._ring.credentials():
            if credential.quota.is_limited and len(found) < MAX_KEYS:
                spending = credential.quota.report(credential.key_id)
                if spending is not None:
                    found[credential.key_id] = spending
        self._reported = found
        return list(found.values())

    def take(self, standings: Iterable[Standing], now: float) -> None:
        """Where all keys stand that are in use anywhere."""
        self.is_lost = False
        used: set[str] = set()
        for standing in standings:
            credential = self._ring.credential(standing.key_id)
            if credential is not None:
                credential.quota.stand(standing, now)
                used.add(standing.key_id)
        for key_id in (self._elsewhere | self._reported.keys()) - used:
            credential = self._ring.credential(key_id)
            if credential is not None:
                credential.quota.stand_full(self._reported.get(key_id))
        self._elsewhere = used

    def lose(self) -> None:
        """Nobody tells where keys stand: what is under way elsewhere is not known any more."""
        self.is_lost = True
        for key_id in self._elsewhere:
            credential = self._ring.credential(key_id)
            if credential is not None:
                credential.quota.in_flight_elsewhere = 0
        self._elsewhere = set()
