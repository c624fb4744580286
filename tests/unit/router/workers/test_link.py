"""When the other end of a worker's socket counts as stuck."""

from __future__ import annotations

from typing import Any

import pytest

from router.workers import link
from router.workers.link import MAX_UNSENT_BYTES, MOST_UNSENT_BYTES, STUCK_SECONDS, Link


class Transport:
    """Has so much unsent."""

    unsent = 0

    def write(self, data: bytes) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return self.unsent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(link.time, "monotonic", lambda: now[0])
    return now


def connected() -> tuple[Link, Transport]:
    transport: Any = Transport()
    subject = Link(lambda _frame: None, lambda: None)
    subject.connection_made(transport)
    return subject, transport


def test_a_worker_that_starts_may_have_much_to_read(clock: list[float]) -> None:
    """Of a large fleet; while it reads on, more may come, for as long as it takes."""
    subject, transport = connected()
    transport.unsent = MAX_UNSENT_BYTES + 1
    for _ in range(5):
        assert not subject.is_stuck
        clock[0] += STUCK_SECONDS - 1
        subject.send(b"x" * 1000)
        transport.unsent += 999  # one byte was read
    assert not subject.is_stuck


def test_one_that_reads_nothing_is_stuck(clock: list[float]) -> None:
    """Once there is more than it may leave, and time enough has passed."""
    subject, transport = connected()
    subject.send(b"x" * 1000)
    assert not subject.is_stuck
    clock[0] += 2 * STUCK_SECONDS
    transport.unsent = MAX_UNSENT_BYTES + 1
    assert not subject.is_stuck
    subject.send(b"x" * 1000)
    transport.unsent += 1000
    clock[0] += STUCK_SECONDS + 1
    assert subject.is_stuck
    transport.unsent = 0
    assert not subject.is_stuck


def test_what_waits_is_bounded(clock: list[float]) -> None:
    """However it reads."""
    subject, transport = connected()
    transport.unsent = MOST_UNSENT_BYTES + 1
    assert subject.is_stuck
