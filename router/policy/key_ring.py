"""The API keys that this router knows, and whose request one is. Pure: records in, verdicts out.

Rules:
- A key is compared by its SHA-256 alone. What a client has shown before is found by the header's bytes, so
  that the hash is computed once for each key; what opens nothing, or is padded, is never remembered.
- What was known stays known: a record that is gone from the store, or that cannot be read any more, changes
  nothing. Only a record that says so takes a key away (`expires_at_unix_seconds`, or anything at all in
  `revoked_at_unix_seconds`). Where the operator's records must be signed, one that is not says nothing.
- Until the records were read once, nobody can be told that a key is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from fleet.api_key import MAX_KEY_BYTES, key_id
from fleet.keys import is_key_id
from fleet.records import ApiKey
from fleet.request import ServiceTier
from fleet.signing import BELIEVES_ALL, RecordTrust, signed_at_milliseconds
from fleet.store import MAX_API_KEYS
from fleet.wire import RecordError
from router.policy.quota import Quota

MAX_REMEMBERED = 4 * MAX_API_KEYS
"""Ways in which clients have written keys that are known; beyond it all are forgotten and hashed again."""
BEARER = b"bearer "
MAX_REMEMBERED_BYTES = MAX_KEY_BYTES + 16
"""Of a header: the key, its scheme, a few spaces. A longer one is hashed each time."""

KeyFault = Literal["missing", "unknown", "expired", "revoked", "not_read"]
HashFields = Mapping[bytes, bytes]


def shown_key(authorization: bytes | None, x_api_key: bytes | None) -> bytes | None:
    """The header that holds the key: `Authorization: Bearer`, else Anthropic's `x-api-key`."""
    if x_api_key is None or (authorization is not None and authorization[: len(BEARER)].lower() == BEARER):
        return authorization
    return x_api_key


class Credential:
    """One key, as its newest usable record says; lives as long as the process."""

    __slots__ = (
        "expires_at_unix_seconds",
        "is_revoked",
        "key_id",
        "quota",
        "raw",
        "signed_at_milliseconds",
        "tenant",
        "tiers",
    )

    def __init__(self, sha256_hex: str) -> None:
        self.key_id = sha256_hex
        self.tenant = ""
        self.tiers: frozenset[ServiceTier] = frozenset()
        self.expires_at_unix_seconds = float("inf")
        self.is_revoked = False
        self.quota = Quota()
        self.raw: HashFields = {}
        self.signed_at_milliseconds = 0

    def use(self, record: ApiKey, now: float) -> None:
        """Take over a record; quotas go on from where they are."""
        self.signed_at_milliseconds = signed_at_milliseconds(record)
        self.tenant = record.tenant
        self.tiers = frozenset(record.tiers)
        expiry = record.expires_at_unix_seconds
        self.expires_at_unix_seconds = float("inf") if expiry is None else expiry
        self.is_revoked = record.revoked_at_unix_seconds is not None
        self.quota.configure(
            requests_per_minute=record.requests_per_minute,
            tokens_per_minute=record.tokens_per_minute,
            concurrent_requests=record.concurrent_requests,
            now=now,
        )

    def fault(self, unix_now: float) -> KeyFault | None:
        """Why it opens nothing now; None: it does."""
        if self.is_revoked:
            return "revoked"
        return "expired" if unix_now >= self.expires_at_unix_seconds else None


class KeyRing:
    """One per process. `take` is fed by whatever reads the store; `find` is asked by every request."""

    def __init__(self, trust: RecordTrust = BELIEVES_ALL) -> None:
        self.trust = trust
        self._keys: dict[str, Credential] = {}
        self._shown: dict[bytes, Credential] = {}
        self._refused: dict[str, bytes] = {}
        """Digests."""
        self._ahead: dict[str, bytes] = {}
        """The same of those whose time of signing is to come: looked at again, told of once."""
        self.read_at: float | None = None
        """When the records were last read whole (monotonic); None: never."""
        self._gone: list[Credential] = []

    def __len__(self) -> int:
        return len(self._keys)

    def uses(self, sha256_hex: str, fields: HashFields) -> bool:
        """Whether this very record of a key is the one in use."""
        known = self._keys.get(sha256_hex)
        return known is not None and known.raw == fields

    def ids(self) -> list[str]:
        """SHA-256 of every key that is known, sorted."""
        return sorted(self._keys)

    def knows(self, sha256_hex: str) -> bool:
        """Whether a usable record of that key has been seen."""
        return sha256_hex in self._keys

    def credential(self, sha256_hex: str) -> Credential | None:
        """Of a key that is known."""
        return self._keys.get(sha256_hex)

    def credentials(self) -> Iterable[Credential]:
        """All keys, whatever they open."""
        return self._keys.values()

    def usable(self, unix_now: float) -> int:
        """Keys that open something now."""
        return sum(credential.fault(unix_now) is None for credential in self._keys.values())

    def gone(self, unix_now: float) -> int:
        """Keys that open something here and of which the store has no record any more."""
        return sum(credential.fault(unix_now) is None for credential in self._gone)

    def find(self, shown: bytes | None, unix_now: float) -> Credential | KeyFault:
        """Whose key a header holds: the value of `authorization` (`Bearer …`) or of `x-api-key`."""
        if shown is None:
            return "missing"
        credential = self._shown.get(shown)
        if credential is not None:
            if not credential.is_revoked and unix_now < credential.expires_at_unix_seconds:
                return credential
        else:
            key = shown[len(BEARER) :].strip() if shown[: len(BEARER)].lower() == BEARER else shown.strip()
            if not key:
                return "missing"
            known = self._keys.get(key_id(key)) if len(key) <= MAX_KEY_BYTES else None
            if known is None:
                return "unknown" if self.read_at is not None else "not_read"
            credential = known
            if len(shown) <= MAX_REMEMBERED_BYTES and credential.fault(unix_now) is None:
                if len(self._shown) >= MAX_REMEMBERED:
                    self._shown.clear()
                self._shown[shown] = credential
        return credential.fault(unix_now) or credential

    def take(
        self, records: Mapping[str, HashFields], now: float, unix_now: float | None = None
    ) -> list[tuple[str, RecordError]]:
        """Use records, by the key's SHA-256 in hex. What is not among them stays as it is.

        `unix_now`: what was signed later than that is not used yet; None: somebody else has looked.

        Returns the records that could not be used and were not refused before; the key, if it was known,
        stays as it was.
        """
        faults: list[tuple[str, RecordError]] = []
        for sha256_hex, fields in records.items():
            known = self._keys.get(sha256_hex)
            if not fields or (known is not None and known.raw == fields) or not is_key_id(sha256_hex):
                continue
            digest = _digest(fields) if self._refused or self._ahead else b""
            if digest and self._refused.get(sha256_hex) == digest:
                continue
            try:
                record = self._parse(sha256_hex, fields, unix_now)
            except RecordError as error:
                memory = self._ahead if error.reason == "signed_ahead" else self._refused
                is_told = memory.get(sha256_hex) == _digest(fields)
                if sha256_hex in memory or len(memory) < MAX_API_KEYS:
                    memory[sha256_hex] = _digest(fields)
                is_revocation = bool(fields.get(b"revoked_at_unix_seconds"))
                if known is not None and is_revocation and not self.trust.asks("operator"):
                    known.is_revoked = True  # whoever wrote this, however badly, meant it
                if not is_told:
                    faults.append((sha256_hex, error))
                continue
            self._refused.pop(sha256_hex, None)
            self._ahead.pop(sha256_hex, None)
            if known is None:
                known = self._keys[sha256_hex] = Credential(sha256_hex)
            known.use(record, now)
            known.raw = fields
        return faults

    def _parse(self, sha256_hex: str, fields: HashFields, unix_now: float | None) -> ApiKey:
        known = self._keys.get(sha256_hex)
        if known is None and len(self._keys) >= MAX_API_KEYS:
            raise RecordError("too_large", f"ApiKey: more than {MAX_API_KEYS} keys")
        record = self.trust.read_key(fields, sha256_hex, unix_now=unix_now)
        newest = 0 if known is None else known.signed_at_milliseconds
        if signed_at_milliseconds(record) < newest and self.trust.asks("operator"):
            raise RecordError("signed_before", "ApiKey: signed before the record in use: a replay")
        return record

    def note_listed(self, sha256_hexes: Collection[str]) -> None:
        """These are all of which the store has a record."""
        listed = frozenset(sha256_hexes)
        self._gone = [one for key, one in self._keys.items() if key not in listed]

    def note_read(self, now: float) -> None:
        """All records that there are have been taken."""
        self.read_at = now


def _digest(fields: HashFields) -> bytes:
    """In place of a hash, which may have 256 KiB."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(fields):
        for text in (name, fields[name]):
            state.update(b"%d:%b" % (len(text), text))
    return state.digest()
