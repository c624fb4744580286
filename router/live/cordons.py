"""Which sites an operator has cordoned: they get no new work, what runs there goes on (`heron cordon`)."""

from __future__ import annotations

from fleet.records import Cordon
from fleet.signing import BELIEVES_ALL, RecordTrust, signed_at_milliseconds
from fleet.wire import RecordError

MAX_CORDONS = 10_000
"""Of sites that are known or were; a further one is refused. Redis is writable by every site."""


class Cordons:
    """As the store says. Kept for sites that are not known, too: one that comes back is cordoned at once."""

    def __init__(self, trust: RecordTrust = BELIEVES_ALL) -> None:
        self._trust = trust
        self._kept: dict[str, tuple[bytes, Cordon]] = {}
        """Lifted ones too, so that their records are parsed once."""
        self._over: set[str] = set()
        """Sites whose cordon's own end is past."""
        self._signed_at: dict[str, int] = {}
        """Unix ms of the last one that was used, where they are signed: an earlier one is a replay, also once
        the store has lost it."""

    def of(self, site_id: str) -> Cordon | None:
        """None: it is not cordoned."""
        kept = self._kept.get(site_id)
        if kept is None or site_id in self._over or kept[1].lifted_at_unix_seconds is not None:
            return None
        return kept[1]

    def lost(self, site_id: str, unix_now: float) -> tuple[bytes, float | None] | None:
        """Record of a cordon that the store has no more though it holds, and the seconds left of it."""
        cordon = self.of(site_id)
        if cordon is None:
            return None
        if cordon.until_unix_seconds is None:
            return self.raw_of(site_id), None
        left = cordon.until_unix_seconds - unix_now
        return (self.raw_of(site_id), left) if left > 0 else None

    def raw_of(self, site_id: str) -> bytes:
        """The record; b"" where there is none."""
        kept = self._kept.get(site_id)
        return b"" if kept is None else kept[0]

    def take(self, raw: bytes, site_id: str, unix_now: float) -> str:
        """Use what the store says, b"" for nothing; returns what changed, in words, or "".

        Raises:
            RecordError: it may not be used; what was before holds.
        """
        before = self.of(site_id)
        if raw != self.raw_of(site_id):
            self._use(raw, site_id, unix_now)
        until = self._kept[site_id][1].until_unix_seconds if raw else None
        if until is not None and until <= unix_now:
            self._over.add(site_id)  # whatever its key's time to live is: that is no part of what was said
        else:
            self._over.discard(site_id)
        now = self.of(site_id)
        if now == before:
            return ""
        if now is None:
            return f"{site_id} is cordoned no more"
        return f"{site_id} is cordoned: it gets no new work{now.reason and f' ({now.reason})'}"

    def _use(self, raw: bytes, site_id: str, unix_now: float) -> None:
        if not raw:
            del self._kept[site_id]
            return
        cordon = self._trust.read(Cordon, raw, unix_now=unix_now, subject=site_id)
        if site_id not in self._kept and len(self._kept) >= MAX_CORDONS:
            raise RecordError("too_large", f"Cordon: more than {MAX_CORDONS} sites are cordoned")
        if self._trust.asks("operator"):
            signed_at = signed_at_milliseconds(cordon)
            if signed_at < self._signed_at.get(site_id, 0):
                raise RecordError("signed_before", "Cordon: signed before the one in use: a replay")
            if site_id in self._signed_at or len(self._signed_at) < MAX_CORDONS:
                self._signed_at[site_id] = signed_at
        self._kept[site_id] = raw, cordon
