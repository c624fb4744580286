"""Whose request it is."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.api_key import MAX_KEY_BYTES, key_id
from fleet.records import ApiKey
from router.policy import key_ring
from router.policy.key_ring import Credential, KeyRing

KEY = b"hk-the-key"


def fields(**changes: Any) -> dict[bytes, bytes]:
    record = ApiKey(schema_version="1.1", **({"tenant": "acme"} | changes))
    return {name.encode(): value.encode() for name, value in record.to_hash().items()}


def ring(key: bytes = KEY, **changes: Any) -> KeyRing:
    made = KeyRing()
    assert made.take({key_id(key): fields(**changes)}, 100.0) == []
    made.note_read(100.0)
    return made


def tenant(made: KeyRing, shown: bytes | None, unix_now: float = 1000.0) -> str:
    found = made.find(shown, unix_now)
    return found.tenant if isinstance(found, Credential) else found


@pytest.mark.parametrize("shown", [b"Bearer " + KEY, b"bearer  " + KEY + b" ", b"BEARER " + KEY, KEY])
def test_a_key_is_found_however_it_is_shown(shown: bytes):
    """As OpenAI's clients do and, without `Bearer`, as Anthropic's do."""
    made = ring()
    assert tenant(made, shown) == "acme"
    assert made.find(shown, 1000.0) is made.find(b"Bearer " + KEY, 1000.0)


@pytest.mark.parametrize(
    "shown", [b"Bearer hk-other", b"Bearer hk-the-ke", b"Basic aGk6aGk=", b"Bearer " + b"x" * 999]
)
def test_another_key_is_unknown_and_not_remembered(shown: bytes):
    """Guessing fills no memory."""
    made = ring()
    assert tenant(made, shown) == "unknown"
    assert not made._shown


@pytest.mark.parametrize("spaces", [17, 60_000])
def test_a_padded_header_is_not_remembered(spaces: int):
    """A tenant with one key can write it in more ways than there is memory for."""
    longest = b"k" * MAX_KEY_BYTES
    made = ring(longest)
    assert tenant(made, b"Bearer " + longest) == "acme"
    assert len(made._shown) == 1
    assert tenant(made, b"Bearer" + b" " * spaces + longest) == "acme"
    assert len(made._shown) == 1


@pytest.mark.parametrize(
    "changes",
    [{"revoked_at_unix_seconds": 10.0}, {"expires_at_unix_seconds": 10.0}],
    ids=["revoked", "expired"],
)
def test_a_key_that_opens_nothing_is_not_remembered(changes: dict[str, float]):
    """Whoever lost it can fill no memory with it."""
    made = ring(**changes)
    assert tenant(made, b"Bearer " + KEY) in ("revoked", "expired")
    assert not made._shown


@pytest.mark.parametrize("shown", [None, b"", b"Bearer ", b"bearer    ", b"  "])
def test_no_key_is_told_apart_from_a_wrong_one(shown: bytes | None):
    """So that the message helps."""
    assert tenant(ring(), shown) == "missing"


def test_what_is_too_long_for_a_key_is_not_even_hashed(monkeypatch: pytest.MonkeyPatch):
    """A head may have 64 KiB; a flood of them costs no hashing."""
    made = ring()
    monkeypatch.setattr(key_ring, "key_id", lambda _key: pytest.fail("hashed"))
    assert tenant(made, b"x" * (MAX_KEY_BYTES + 1)) == "unknown"


def test_a_key_is_hashed_once(monkeypatch: pytest.MonkeyPatch):
    """After that its header's bytes find it."""
    made = ring()
    assert tenant(made, b"Bearer " + KEY) == "acme"
    monkeypatch.setattr(key_ring, "key_id", lambda _key: pytest.fail("hashed again"))
    assert tenant(made, b"Bearer " + KEY) == "acme"


def test_ways_of_writing_a_key_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch):
    """A client with a key cannot fill memory with spaces."""
    monkeypatch.setattr(key_ring, "MAX_REMEMBERED", 4)
    made = ring()
    for count in range(1, 20):
        assert tenant(made, b"Bearer" + b" " * count + KEY) == "acme"
        assert len(made._shown) <= 4


def test_before_the_records_were_read_nobody_is_told_that_a_key_is_wrong():
    """A router that starts while Redis is away knows nothing."""
    made = KeyRing()
    assert tenant(made, b"Bearer " + KEY) == "not_read"
    assert tenant(made, None) == "missing"


def test_an_expired_key_opens_nothing_from_that_second_on():
    """By this router's own clock, also where it was used before."""
    made = ring(expires_at_unix_seconds=2000.0)
    assert tenant(made, KEY, 1999.9) == "acme"
    assert tenant(made, KEY, 2000.0) == "expired"
    assert (made.usable(1999.0), made.usable(2000.0)) == (1, 0)


def test_a_changed_record_holds_for_keys_in_use():
    """Revoked, or given other tiers: what is remembered of headers is the key, not its rights."""
    made = ring()
    assert tenant(made, KEY) == "acme"
    made.take({key_id(KEY): fields(tiers=("flex",), tenant="other")}, 101.0)
    found = made.find(KEY, 1000.0)
    assert isinstance(found, Credential)
    assert (found.tenant, found.tiers) == ("other", frozenset({"flex"}))
    made.take({key_id(KEY): fields(revoked_at_unix_seconds=900.0)}, 102.0)
    assert tenant(made, KEY) == "revoked"
    made.take({key_id(KEY): fields()}, 103.0)
    assert tenant(made, KEY) == "acme", "a revocation taken back"


def test_a_key_whose_record_is_gone_stays():
    """Redis may have been emptied; only a record takes a key away."""
    made = ring()
    assert made.take({}, 101.0) == []
    assert made.take({key_id(KEY): {}}, 101.0) == []
    assert tenant(made, KEY) == "acme"


def test_a_record_that_cannot_be_read_is_told_once_and_changes_nothing():
    """The last good record stays in use, as everywhere."""
    made = ring()
    bad = {**fields(), b"tiers": b"gold"}
    assert [name for name, _ in made.take({key_id(KEY): bad}, 101.0)] == [key_id(KEY)]
    assert made.take({key_id(KEY): bad}, 102.0) == []
    assert tenant(made, KEY) == "acme"
    assert made.take({"no sha": fields()}, 103.0) == []
    assert len(made) == 1


def test_a_revocation_that_cannot_be_read_is_one_all_the_same():
    """Somebody typed it in a hurry."""
    made = ring()
    made.take({key_id(KEY): {**fields(), b"revoked_at_unix_seconds": b"now!"}}, 101.0)
    assert tenant(made, KEY) == "revoked"


def test_a_fleet_has_so_many_keys_and_no_more(monkeypatch: pytest.MonkeyPatch):
    """Those that are known stay."""
    monkeypatch.setattr(key_ring, "MAX_API_KEYS", 2)
    made = ring()
    faults = made.take({key_id(b"%d" % number): fields() for number in range(3)}, 101.0)
    assert (len(made), len(faults)) == (2, 2)
    assert tenant(made, KEY) == "acme"


def test_quotas_go_on_when_a_record_is_edited():
    """An edit gives no fresh allowance."""
    made = ring(requests_per_minute=60)
    found = made.find(KEY, 1000.0)
    assert isinstance(found, Credential)
    for _ in range(60):
        assert found.quota.enter(100.0) is None
    made.take({key_id(KEY): fields(requests_per_minute=60, name="renamed")}, 100.0)
    assert found.quota.enter(100.0) is not None


def test_a_key_that_the_store_has_lost_is_missed_while_it_opens_something():
    """One that was revoked or has expired, and then deleted, is nobody's loss."""
    made = ring(expires_at_unix_seconds=2000.0)
    made.note_listed([key_id(KEY)])
    assert made.gone(1000.0) == 0
    made.note_listed([])
    assert (made.gone(1000.0), made.gone(2000.0)) == (1, 0)
    made.take({key_id(KEY): fields(revoked_at_unix_seconds=900.0)}, 101.0)
    assert made.gone(1000.0) == 0
