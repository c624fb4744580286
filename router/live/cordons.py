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

    def of(self, site_id: str) -> Cordon | None:
        """None: it is not cordoned."""
        kept = self._kept.get(site_id)
        return None if kept is None or kept[1].lifted_at_unix_seconds is not None else kept[1]

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

    def _is_older(self, cordon: Cordon, site_id: str) -> bool:
        kept = self._kept.get(site_id)
        return kept is not None and signed_at_milliseconds(cordon) < signed_at_milliseconds(kept[1])

    def take(self, raw: bytes, site_id: str) -> str:
        """Use what the store says, b"" for nothing; returns what changed, in words, or "".

        Raises:
            RecordError: it may not be used; what was before holds.
        """
        if raw == self.raw_of(site_id):
            return ""
        before = self.of(site_id)
        if raw:
            cordon = self._trust.read(Cordon, raw, unix_now=None, subject=site_id)
            if self._trust.asks("operator") and self._is_older(cordon, site_id):
                raise RecordError("signed_at", "Cordon: signed before the one in use: a replay")
            if site_id not in self._kept and len(self._kept) >= MAX_CORDONS:
                raise RecordError("too_large", f"Cordon: more than {MAX_CORDONS} sites are cordoned")
            self._kept[site_id] = raw, cordon
        else:
            del self._kept[site_id]
        now = self.of(site_id)
        if now is None:
            return "" if before is None else f"{site_id} is cordoned no more"
        return f"{site_id} is cordoned: it gets no new work{now.reason and f' ({now.reason})'}"
