"""Signed records: who wrote one, and when (docs/records.md#signed-records). Pure.

A signed record is one JSON object whose last member is

    "signature": "ed25519:<Unix ms>:<base64 of 64 bytes>"

The signature (RFC 8032) is over these lines, each ended by a line feed but the last:

    heron-record-1, fleet name, kind, subject, Unix ms, the record up to the comma before that member, and "}"

Rules: the bytes that were read are what is checked, never a record written anew. What is not signed, or not
by who may write it, or too long ago, is refused before it is weighed against others (`fleet.intake`), so that
it cannot shut out the true writer.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from fleet.records import ApiKey, Plan, PlannerLease, PowerReading, RouterPresence, SiteReport
from fleet.store import SITE_TTL_SECONDS
from fleet.wire import Document, RecordError, Writer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

D = TypeVar("D", bound=Document)

DOMAIN = "heron-record-1"
_MAX_SIGNATURE_BYTES = 256
"""Of the member, white space included: it is looked for in the last bytes alone."""
_MEMBER = re.compile(
    rb',\s*"signature"\s*:\s*"ed25519:([0-9]{1,15}):([A-Za-z0-9+/]{86}==)"\s*\}\s*\Z', re.ASCII
)
_FIELD = re.compile(rb"ed25519:([0-9]{1,15}):([A-Za-z0-9+/]{86}==)", re.ASCII)
_LASTS_SECONDS: Mapping[type[Document], float] = {
    PowerReading: 0.0,
    SiteReport: SITE_TTL_SECONDS,
    RouterPresence: 15.0,
    PlannerLease: 15.0,
}
"""A record may lie for so long before it is read; what was signed earlier is a replay. Others: any time, a
SiteInfo as long as its site is dark."""


class RecordSigner:
    """Writes records, signed where there is a key."""

    def __init__(self, fleet: str = "", key: Ed25519PrivateKey | None = None) -> None:
        """`fleet`: its name."""
        self._fleet = fleet
        self._key = key

    @property
    def signs(self) -> bool:
        """Whether there is a key."""
        return self._key is not None

    def to_json(self, record: Document, *, unix_now: float, subject: str | None = None) -> bytes:
        """The record as it goes on the wire. `subject`: what it is about, where its own `site_id` does not
        say that: a Cordon's site."""
        if self._key is None:
            return record.to_json()
        body = record.model_dump_json(exclude={"signature"}).encode()
        signature = self._signature(record, body, _subject(record, subject), unix_now)
        return b'%b,"signature":"%b"}' % (body[:-1], signature)

    def to_hash(self, record: ApiKey, sha256_hex: str, *, unix_now: float) -> dict[str, str]:
        """The fields of an API key's Redis hash."""
        fields = record.model_copy(update={"signature": None}).to_hash()
        if self._key is not None:
            fields["signature"] = self._signature(record, _hash_body(fields), sha256_hex, unix_now).decode()
        return fields

    def _signature(self, record: Document, body: bytes, subject: str, unix_now: float) -> bytes:
        assert self._key is not None, "only called with one"
        at = b"%d" % round(unix_now * 1000)
        signed = self._key.sign(_message(self._fleet, record.kind, subject, at, body))
        return b"ed25519:%b:%b" % (at, base64.b64encode(signed))


class RecordTrust:
    """Reads records, and believes those that were signed by who may write them.

    `keys` by writer and `site_keys` by site; a writer without keys is believed as it is. As soon as one site
    has keys, a site without is not believed.
    """

    def __init__(
        self,
        fleet: str = "",
        *,
        keys: Mapping[Writer, Sequence[Ed25519PublicKey]] | None = None,
        site_keys: Mapping[str, Sequence[Ed25519PublicKey]] | None = None,
        max_clock_skew_seconds: float = 0.0,
    ) -> None:
        self._fleet = fleet
        self._keys = {writer: tuple(own) for writer, own in (keys or {}).items() if own}
        self._site_keys = {site_id: tuple(own) for site_id, own in (site_keys or {}).items() if own}
        self._max_clock_skew_seconds = max_clock_skew_seconds

    def asks(self, writer: Writer) -> bool:
        """Whether this writer's records must be signed."""
        return bool(self._site_keys) if writer == "site" else writer in self._keys

    def read(self, kind: type[D], raw: bytes, *, unix_now: float | None, subject: str | None = None) -> D:
        """Parse a record, and believe it. `unix_now` None: whenever it was signed.

        Raises:
            RecordError: as `Document.from_json` and `check`.
        """
        record = kind.from_json(raw)
        self.check(record, raw, unix_now=unix_now, subject=subject)
        return record

    def check(
        self, record: Document, raw: bytes, *, unix_now: float | None, subject: str | None = None
    ) -> None:
        """The same of a record that is parsed already: `raw` is what it was parsed from.

        Raises:
            RecordError: `unsigned`, `signature`, `signed_before` or `signed_ahead`.
        """
        if not self.asks(record.written_by):
            return
        found = _MEMBER.search(raw[-_MAX_SIGNATURE_BYTES:])
        if found is None:
            raise _unsigned(record)
        body = raw[: len(raw) - len(found[0])] + b"}"
        self._check(record, body, found[1], found[2], _subject(record, subject), unix_now)

    def read_key(self, fields: Mapping[bytes, bytes], sha256_hex: str, *, unix_now: float | None) -> ApiKey:
        """An API key from its Redis hash. `unix_now` None: also if its signer's clock was ahead.

        Raises:
            RecordError: as `ApiKey.from_hash`, `unsigned`, `signature` or `signed_ahead`.
        """
        record = ApiKey.from_hash(fields)
        if self.asks(record.written_by):
            found = _FIELD.fullmatch(fields.get(b"signature", b""))
            if found is None:
                raise _unsigned(record)
            texts = {name.decode(): value.decode() for name, value in fields.items() if name != b"signature"}
            self._check(record, _hash_body(texts), found[1], found[2], sha256_hex, unix_now)
        return record

    def _check(
        self, record: Document, body: bytes, at: bytes, signature: bytes, subject: str, unix_now: float | None
    ) -> None:
        if unix_now is not None:
            self._check_time(record, int(at) / 1000, unix_now)
        keys = (
            self._site_keys.get(subject, ()) if record.written_by == "site" else self._keys[record.written_by]
        )
        message = _message(self._fleet, record.kind, subject, at, body)
        raw = base64.b64decode(signature)
        is_canonical = base64.b64encode(raw) == signature  # one record, one way to write it
        if not (is_canonical and any(_is_signed(key, message, raw) for key in keys)):
            whose = f"sites.{subject}" if record.written_by == "site" else record.written_by
            told = "no key there made this signature" if keys else "it has no key there"
            raise RecordError(
                "signature", f"{record.kind}: not signed by [fleet.trusted_keys] {whose}: {told}"
            )

    def _check_time(self, record: Document, signed_at: float, unix_now: float) -> None:
        age, skew = unix_now - signed_at, self._max_clock_skew_seconds
        if age < -skew:
            raise RecordError("signed_ahead", f"{record.kind}: signed {-age:.0f} s from now: a clock is off")
        lasts = record.valid_for_seconds if isinstance(record, Plan) else _LASTS_SECONDS.get(type(record))
        if lasts is not None and age > lasts + skew:
            message = f"{record.kind}: signed {age:.0f} s ago: a replay, or a clock is off"
            raise RecordError("signed_before", message)


def signed_at_milliseconds(record: Document) -> int:
    """Unix ms of a record that is believed; 0: it is not signed."""
    found = _FIELD.fullmatch((record.signature or "").encode())
    return 0 if found is None else int(found[1])


def signing_time(before: Document | None, unix_now: float) -> float:
    """When a record is to be signed that takes the place of another: never before that one."""
    return unix_now if before is None else max(unix_now, (signed_at_milliseconds(before) + 1) / 1000)


BELIEVES_ALL = RecordTrust()
"""Where no keys are named, and where records come from a process that has judged them."""
SIGNS_NOTHING = RecordSigner()


def _subject(record: Document, subject: str | None) -> str:
    return str(getattr(record, "site_id", "")) if subject is None else subject


def _message(fleet: str, kind: str, subject: str, at: bytes, body: bytes) -> bytes:
    return b"%b\n%b\n%b" % (f"{DOMAIN}\n{fleet}\n{kind}\n{subject}".encode(), at, body)


def _hash_body(fields: Mapping[str, str]) -> bytes:
    return json.dumps(dict(fields), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _is_signed(key: Ed25519PublicKey, message: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _unsigned(record: Document) -> RecordError:
    key = "operator_key_file" if record.written_by == "operator" else "signing_key_file"
    return RecordError(
        "unsigned",
        f"{record.kind}: not signed, and [fleet.trusted_keys] names keys of {record.written_by}: give the "
        f"writer its {key}",
    )
