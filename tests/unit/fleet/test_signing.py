"""Signed records: what is believed, and that nothing else is."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_records import RECORDS, golden_bytes
from support.signing_keys import SigningKeys

from fleet.config import FleetConfig
from fleet.records import (
    ApiKey,
    Cordon,
    Plan,
    PlannerLease,
    PowerReading,
    RouterPresence,
    SiteInfo,
    SiteReport,
)
from fleet.signing import SIGNS_NOTHING, RecordSigner, RecordTrust, signed_at_milliseconds
from fleet.signing_keys import trust_of
from fleet.wire import Document, RecordError

NOW = 1_800_000_000.0
KEYS = SigningKeys()
SITE = "north"
JSON_RECORDS = [kind for kind in RECORDS if kind is not ApiKey]
KEY_ID = "ab" * 32


def signer(name: str, fleet: str = "default") -> RecordSigner:
    return RecordSigner(fleet, KEYS.key(name))


def trust() -> RecordTrust:
    return trust_of(FleetConfig(trusted_keys=KEYS.trusted(SITE)))


def writer_of(kind: type[Document]) -> str:
    return SITE if kind.written_by == "site" else kind.written_by


def golden(kind: type[Document]) -> Document:
    return kind.from_json(golden_bytes(kind.kind))


def signed(kind: type[Document], name: str | None = None, *, fleet: str = "default") -> bytes:
    subject = SITE if kind is Cordon else None
    return signer(name or writer_of(kind), fleet).to_json(golden(kind), unix_now=NOW, subject=subject)


def read(kind: type[Document], raw: bytes, *, unix_now: float | None = NOW) -> Document:
    return trust().read(kind, raw, unix_now=unix_now, subject=SITE if kind is Cordon else None)


def refused(kind: type[Document], raw: bytes, *, unix_now: float | None = NOW) -> str:
    with pytest.raises(RecordError) as error:
        read(kind, raw, unix_now=unix_now)
    return error.value.reason


@pytest.mark.parametrize("kind", JSON_RECORDS, ids=lambda kind: kind.kind)
def test_what_is_signed_by_its_writer_is_read_as_it_was(kind: type[Document]) -> None:
    """Nothing in it changes but the signature, also for a reader that asks for none."""
    raw = signed(kind)
    record = read(kind, raw)
    assert record.model_copy(update={"signature": None}) == golden(kind)
    assert kind.from_json(raw) == record
    assert signed_at_milliseconds(record) == round(NOW * 1000)


@pytest.mark.parametrize("kind", JSON_RECORDS, ids=lambda kind: kind.kind)
def test_nobody_else_is_believed(kind: type[Document]) -> None:
    """Another key, another fleet's, none."""
    others = {"power_feed", "router", "operator", SITE, "stranger"} - {writer_of(kind)}
    for other in sorted(others):
        assert refused(kind, signed(kind, other)) == "signature"
    assert refused(kind, signed(kind, fleet="another")) == "signature"
    assert refused(kind, golden(kind).to_json()) == "unsigned"


def test_a_site_speaks_for_itself_alone() -> None:
    """Its key signs no other site's records, known or not."""
    both = trust_of(FleetConfig(trusted_keys=KEYS.trusted(SITE, "coast")))
    for site_id in ("coast", "unheard-of"):
        report = golden(SiteReport).model_copy(update={"site_id": site_id})
        raw = signer(SITE).to_json(report, unix_now=NOW)
        with pytest.raises(RecordError, match=f"sites.{site_id}"):
            both.read(SiteReport, raw, unix_now=NOW)


def test_a_cordon_is_for_one_site() -> None:
    """It does not say which; its signature does."""
    with pytest.raises(RecordError) as error:
        trust().read(Cordon, signed(Cordon), unix_now=None, subject="coast")
    assert error.value.reason == "signature"


def test_kinds_are_not_mistaken_for_each_other() -> None:
    """A SiteReport's fields in what was signed as a SiteInfo."""
    info = signed(SiteInfo)
    fields = {**json.loads(golden_bytes("SiteReport")), **json.loads(info)}
    signature = fields.pop("signature")
    body = json.dumps(fields).encode()[:-1]
    assert refused(SiteReport, b'%b,"signature":"%b"}' % (body, signature.encode())) == "signature"


@given(data=st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    """Wherever a byte is changed, taken away or put in, the record is refused (or was not one any more)."""
    raw = signed(PowerReading)
    at = data.draw(st.integers(0, len(raw) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    for forged in (raw[:at] + byte + raw[at + 1 :], raw[:at] + raw[at + 1 :], raw[:at] + byte + raw[at:]):
        is_space_at_the_end = forged.rstrip() == raw
        is_space_in_the_member = json_of(forged) == json_of(raw) and at > raw.rindex(b',"signature"')
        if forged == raw or is_space_at_the_end or is_space_in_the_member:
            continue
        with pytest.raises(RecordError):
            read(PowerReading, forged)


def json_of(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def test_members_put_after_the_signature_are_not_read() -> None:
    """JSON takes the last of two members of one name."""
    raw = signed(PowerReading)
    assert refused(PowerReading, raw[:-1] + b',"granted_power_watts":9e9}') == "unsigned"
    forged = raw[: raw.rindex(b',"signature"')] + b',"granted_power_watts":9e9' + raw[raw.rindex(b",") :]
    assert refused(PowerReading, forged) == "signature"


def test_white_space_as_other_writers_put_it() -> None:
    """Between and after the members, as a pretty printer does; what is signed is what they wrote."""
    body = json.dumps(json.loads(golden_bytes("PowerReading")) | {"signature": None}, indent=2)
    body = body[: body.rindex(",")]
    value = signer("power_feed")._signature(golden(PowerReading), body.encode() + b"}", SITE, NOW)
    raw = body.encode() + b',\n  "signature" : "%b"\n}\n' % value
    assert isinstance(read(PowerReading, raw), PowerReading)


@pytest.mark.parametrize(
    ("kind", "lasts"),
    [(PowerReading, 0.0), (SiteReport, 60.0), (RouterPresence, 15.0), (PlannerLease, 15.0), (Plan, None)],
)
def test_what_was_signed_long_ago_is_a_replay(kind: type[Document], lasts: float | None) -> None:
    """As long as a record may lie before it is read, and the clocks be apart."""
    if lasts is None:
        plan = golden(Plan)
        assert isinstance(plan, Plan)
        lasts = plan.valid_for_seconds
    raw = signed(kind)
    skew = FleetConfig().max_clock_skew_seconds
    assert read(kind, raw, unix_now=NOW + lasts + skew - 1)
    assert refused(kind, raw, unix_now=NOW + lasts + skew + 1) == "signed_before"
    assert read(kind, raw, unix_now=NOW - skew + 1)
    assert refused(kind, raw, unix_now=NOW - skew - 1) == "signed_ahead"
    assert read(kind, raw, unix_now=None), "of any age where that is asked for"


@pytest.mark.parametrize("kind", [SiteInfo, Cordon])
def test_what_may_lie_for_long_is_believed_for_long(kind: type[Document]) -> None:
    """The info of a site that is dark for days; but nothing from a time to come."""
    assert read(kind, signed(kind), unix_now=NOW + 1e7)
    assert refused(kind, signed(kind), unix_now=NOW - 31) == "signed_ahead"


def test_a_signature_can_be_written_in_one_way() -> None:
    """Four bits of its last digit say nothing: with others it would be another record of the same content."""
    raw = signed(PowerReading)
    at = raw.rindex(b"==") - 1
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = digits[digits.index(raw[at]) ^ 1]
    forged = raw[:at] + bytes([other]) + raw[at + 1 :]
    assert refused(PowerReading, forged) == "signature"


def test_its_time_is_signed() -> None:
    """A replay with a new time is no better."""
    raw = signed(PowerReading)
    later = raw.replace(b"ed25519:%d" % (NOW * 1000), b"ed25519:%d" % (NOW * 1000 + 60_000))
    assert later != raw
    assert refused(PowerReading, later, unix_now=NOW + 60) == "signature"


def test_a_new_key_and_the_old_one_are_both_believed_for_a_while() -> None:
    """How a writer goes over to another key."""
    fleet = FleetConfig.model_validate(
        {"trusted_keys": {"power_feed": [KEYS.public("power_feed"), KEYS.public("new")]}}
    )
    for name in ("power_feed", "new"):
        assert trust_of(fleet).read(PowerReading, signed(PowerReading, name), unix_now=NOW)


def test_writers_without_keys_are_believed_as_they_are() -> None:
    """So a fleet goes over one kind of writer at a time."""
    fleet = FleetConfig.model_validate({"trusted_keys": {"power_feed": [KEYS.public("power_feed")]}})
    report = golden(SiteReport).to_json()
    assert trust_of(fleet).read(SiteReport, report, unix_now=NOW) == golden(SiteReport)
    with pytest.raises(RecordError):
        trust_of(fleet).read(PowerReading, golden(PowerReading).to_json(), unix_now=NOW)


# API keys are hashes


def key_record() -> ApiKey:
    record = golden(ApiKey)
    assert isinstance(record, ApiKey)
    return record.model_copy(update={"name": 'Ünï, with "quotes" and \\'})


def key_hash(name: str = "operator", key_id: str = KEY_ID) -> dict[bytes, bytes]:
    fields = signer(name).to_hash(key_record(), key_id, unix_now=NOW)
    return {name.encode(): value.encode() for name, value in fields.items()}


def test_an_api_key_is_believed_as_a_whole_and_for_itself() -> None:
    """No field may be added, changed or taken away, nor the record put under another key's name."""
    fields = key_hash()
    assert trust().read_key(fields, KEY_ID, unix_now=NOW).tenant == key_record().tenant
    forgeries = [
        {**fields, b"tenant": b"mine"},
        {**fields, b"tiers": b"priority"},
        {name: value for name, value in fields.items() if name != b"name"},
        {**fields, b"unheard_of": b"1"},
        key_hash("router"),
    ]
    for forged in forgeries:
        with pytest.raises(RecordError) as error:
            trust().read_key(forged, KEY_ID, unix_now=NOW)
        assert error.value.reason == "signature"
    with pytest.raises(RecordError):
        trust().read_key(fields, "cd" * 32, unix_now=NOW)
    plain = SIGNS_NOTHING.to_hash(key_record(), KEY_ID, unix_now=NOW)
    with pytest.raises(RecordError) as error:
        trust().read_key(
            {name.encode(): value.encode() for name, value in plain.items()}, KEY_ID, unix_now=NOW
        )
    assert error.value.reason == "unsigned"


def test_openssl_signs_a_record_that_is_believed(tmp_path: Path) -> None:
    """docs/records.md, by a program that shares no code with Heron."""
    private = KEYS.write(tmp_path, "power_feed")
    body = golden_bytes("PowerReading").rstrip().removesuffix(b"}").rstrip()
    body = body[: body.rindex(b",")]  # its signature, null, is the last
    message = tmp_path / "message"
    milliseconds = round(NOW * 1000)
    head = f"heron-record-1\ndefault\nPowerReading\n{SITE}\n{milliseconds}\n"
    message.write_bytes(head.encode() + body + b"}")
    command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", str(private), "-in", str(message)]
    signature = subprocess.run(command, check=True, capture_output=True).stdout
    value = f"ed25519:{milliseconds}:{base64.b64encode(signature).decode()}"
    raw = body + f', "signature": "{value}"}}'.encode()
    assert isinstance(read(PowerReading, raw), PowerReading)


def test_the_public_key_is_the_line_that_openssl_prints(tmp_path: Path) -> None:
    """What the error message and the docs tell operators to copy."""
    private = KEYS.write(tmp_path, "power_feed")
    command = ["openssl", "pkey", "-in", str(private), "-pubout"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[1:-1] == [KEYS.public("power_feed")]
