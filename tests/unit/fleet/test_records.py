"""The sequence of a writer's next record; the rest of the records is in tests/contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.records import ApiKey, PlannerLease, PowerReading, next_sequence

sequences = st.none() | st.integers(0, 2**53 - 2)


@pytest.mark.parametrize(
    ("last", "highest_seen", "unix_milliseconds", "expected"),
    [
        (None, None, 1_732_320_000_000, 1_732_320_000_000),
        (None, 1_732_310_000_000, 1_732_320_000_000, 1_732_320_000_000),
        (None, 1_732_330_000_000, 1_732_320_000_000, 1_732_330_000_001),
        (None, 1_732_320_000_000, 1_732_320_000_000, 1_732_320_000_001),
        (1_732_320_000_000, None, 1_732_320_060_000, 1_732_320_000_001),
        (1_732_320_000_005, 1_732_320_000_005, 1_732_320_060_000, 1_732_320_000_006),
        (1_732_320_000_005, 1_732_320_000_900, 1_732_320_060_000, 1_732_320_000_901),
    ],
    ids=[
        "first start",
        "restart",
        "restart with a clock behind",
        "restart in the same millisecond",
        "going on, Redis emptied",
        "going on",
        "another writer was ahead",
    ],
)
def test_a_sequence_starts_at_the_clock_and_then_counts(
    last: int | None, highest_seen: int | None, unix_milliseconds: int, expected: int
) -> None:
    """DESIGN §4: Unix milliseconds at the start, then max(last + 1, highest seen + 1)."""
    assert next_sequence(last, highest_seen, unix_milliseconds) == expected


@given(last=sequences, highest_seen=sequences, unix_milliseconds=st.integers(0, 2**52))
def test_a_sequence_is_above_everything_before_it(
    last: int | None, highest_seen: int | None, unix_milliseconds: int
) -> None:
    """Whatever the clock says and whatever Redis remembers."""
    found = next_sequence(last, highest_seen, unix_milliseconds)
    assert last is None or found > last
    assert highest_seen is None or found > highest_seen


@given(
    start=st.integers(0, 2**52),
    turns=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(-(10**7), 10**7)), max_size=30),
)
def test_a_sequence_grows_over_restarts_and_over_an_emptied_redis(
    start: int, turns: list[tuple[bool, bool, int]]
) -> None:
    """One of both memories is enough; the clock may step either way between any two records."""
    clock, last, stored, written = start, None, None, []
    for is_restart, is_emptied, step in turns:
        clock = max(0, clock + step)
        if is_restart and stored is not None:
            last = None
        elif is_emptied and last is not None:
            stored = None
        last = stored = next_sequence(last, stored, clock)
        written.append(last)
    assert written == sorted(set(written))


def test_a_record_names_its_writer_whatever_the_field_is_called() -> None:
    """Second-writer rules look at `writer_id` alone."""
    lease = PlannerLease(
        schema_version="1.0", sequence=1, router_id="router-a", epoch=1, acquired_at_unix_seconds=1.0
    )
    assert lease.writer_id == "router-a"
    assert PowerReading.writer_field == "feed_id"


def test_a_key_allows_the_default_tier_and_sets_no_quota_unless_told() -> None:
    """None is "no quota set", never a quota of zero."""
    key = ApiKey(schema_version="1.0", tenant="acme")
    assert key.tiers == ("default",)
    assert (key.requests_per_minute, key.tokens_per_minute, key.expires_at_unix_seconds) == (None, None, None)
    assert key.to_hash() == {"schema_version": "1.0", "tenant": "acme", "tiers": "default"}
