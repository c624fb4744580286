"""What the router logs of its events."""

from __future__ import annotations

import logging

import pytest

from router.live.events import EventLevel, EventRing


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        (None, logging.INFO),
        ("good", logging.INFO),
        ("warning", logging.WARNING),
        ("bad", logging.ERROR),
    ],
)
def test_an_event_is_logged_at_its_own_level(
    caplog: pytest.LogCaptureFixture, level: EventLevel | None, logged: int
) -> None:
    """Whoever shows warnings alone must see that Redis is gone."""
    caplog.set_level(logging.INFO)
    EventRing().add("site_state", "coast is dark", site_id="coast", level=level)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logged, "coast is dark")


def test_where_nothing_is_said_the_kind_has_a_level(caplog: pytest.LogCaptureFixture) -> None:
    """As the console shows it."""
    EventRing().add("clock", "clocks differ by 9 s")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
