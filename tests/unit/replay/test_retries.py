"""When a refused request is sent again: as the official client does."""

from __future__ import annotations

from random import Random

import pytest

from replay.retries import retry_delay_seconds


def delay(
    status: int | None,
    *,
    retry_after: bytes | None = None,
    should_retry: bytes | None = None,
    taken: int = 0,
    max_retries: int = 2,
) -> float | None:
    """With defaults for what does not matter."""
    return retry_delay_seconds(
        status,
        retry_after=retry_after,
        should_retry=should_retry,
        taken=taken,
        max_retries=max_retries,
        rng=Random(1),
    )


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 504, None])
def test_what_may_pass_is_sent_again(status: int | None) -> None:
    """Overload, time-outs, faults of the server, and connections that fail (None)."""
    assert delay(status) is not None


@pytest.mark.parametrize("status", [200, 400, 401, 404])
def test_what_will_not_change_is_not(status: int) -> None:
    """Answers, and the client's own mistakes."""
    assert delay(status) is None


def test_the_server_may_say_otherwise() -> None:
    """`x-should-retry` goes over the status, both ways."""
    assert delay(503, should_retry=b"false") is None
    assert delay(404, should_retry=b"true") is not None


def test_retry_after_is_obeyed_up_to_a_minute() -> None:
    """A longer one, nothing and nonsense fall back to the client's own delay."""
    assert delay(503, retry_after=b"7") == 7.0
    assert delay(503, retry_after=b"60") == 60.0
    for value in (b"61", b"0", b"soon"):
        own = delay(503, retry_after=value)
        assert own is not None
        assert 0.375 <= own <= 0.5


def test_delays_double_and_end() -> None:
    """Half a second, a second, …, at most eight, less up to a quarter; then no more."""
    for taken, longest in [(0, 0.5), (1, 1.0), (2, 2.0), (6, 8.0)]:
        own = delay(503, taken=taken, max_retries=10)
        assert own is not None
        assert 0.75 * longest <= own <= longest
    assert delay(503, taken=2) is None
    assert delay(503, max_retries=0) is None
