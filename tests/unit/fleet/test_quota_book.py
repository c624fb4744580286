"""Quotas that several members share."""

from __future__ import annotations

from fleet.quota_book import FORGET_SECONDS, FRESH_SECONDS, MAX_KEYS, QuotaBook, Spending, Standing

KEY = "ab" * 32


def spent(
    requests: float = 0.0,
    *,
    counted: float = 0.0,
    tokens: float = 0.0,
    in_flight: int = 0,
    limit: int | None = 60,
    key_id: str = KEY,
) -> Spending:
    return Spending(key_id, requests, counted, tokens, 0.0, in_flight, limit, None)


def level(standings: list[Standing]) -> float | None:
    (one,) = standings
    return one.requests_level


def test_what_one_spends_another_has_no_more() -> None:
    """And it comes back evenly, once."""
    book = QuotaBook()
    assert level(book.share("a", [spent(20)], 100.0)) == 40.0
    assert level(book.share("b", [spent(30)], 100.0)) == 10.0
    assert level(book.share("a", [], 105.0)) == 15.0
    assert level(book.share("b", [], 105.0)) == 15.0


def test_a_report_that_comes_twice_or_late_counts_once() -> None:
    """They are totals."""
    book = QuotaBook()
    for _ in range(3):
        assert level(book.share("a", [spent(20)], 100.0)) == 40.0
    assert level(book.share("a", [spent(25)], 100.0)) == 35.0
    assert level(book.share("a", [spent(15)], 100.0)) == 45.0, "some was given back"


def test_a_book_that_was_lost_counts_what_is_new() -> None:
    """A member says what was counted before."""
    assert level(QuotaBook().share("a", [spent(1_000_020, counted=1_000_000)], 100.0)) == 40.0


def test_each_is_told_how_much_of_its_own_is_in_it() -> None:
    """So that what it spent since can be taken off there."""
    book = QuotaBook()
    (one,) = book.share("a", [spent(20, tokens=7)], 100.0)
    assert one.counted == (20.0, 7.0)
    (other,) = book.share("b", [], 100.0)
    assert other.counted is None


def test_what_is_under_way_elsewhere_is_told_while_its_member_lives() -> None:
    """A router that died has no requests."""
    book = QuotaBook()
    book.share("a", [spent(1, in_flight=3)], 100.0)
    (told,) = book.share("b", [spent(1, in_flight=2)], 100.0)
    assert told.in_flight_elsewhere == 3
    (told,) = book.share("b", [spent(1, in_flight=2)], 100.0 + FRESH_SECONDS + 0.1)
    assert told.in_flight_elsewhere == 0


def test_a_full_one_is_forgotten_and_so_is_who_is_silent() -> None:
    """Nothing grows."""
    book = QuotaBook()
    book.share("a", [spent(60)], 100.0)
    assert book.share("b", [], 159.0) != []
    assert book.share("b", [], 161.0) == []
    book.share("a", [spent(60, counted=60, in_flight=1)], 200.0)
    assert book.share("b", [], 204.0) != [], "it is full, but in use"
    assert book.share("b", [], 210.0) == []
    book.share("a", [spent(1000)], 300.0)
    (told,) = book.share("a", [], 300.0 + FORGET_SECONDS + 1)
    assert told.counted is None


def test_a_debt_is_a_minute_at_most_and_limits_may_change() -> None:
    """As in one bucket."""
    book = QuotaBook()
    assert level(book.share("a", [spent(500)], 100.0)) == -60.0
    assert level(book.share("a", [spent(500, limit=100)], 100.0)) == -20.0
    (told,) = book.share("a", [spent(500, limit=None, in_flight=1)], 100.0)
    assert told.requests_level is None


def test_there_are_no_more_than_so_many_keys() -> None:
    """Those that there are go on."""
    book = QuotaBook()
    book.share("a", [spent(1, key_id=str(number)) for number in range(MAX_KEYS + 5)], 100.0)
    assert len(book.share("a", [spent(2, key_id="0"), spent(1, key_id="x")], 100.0)) == MAX_KEYS
