"""Time stamps of sources."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_feed.sources.instants import TimeReader
from power_feed.sources.signals import SourceFaultError

COPENHAGEN = ZoneInfo("Europe/Copenhagen")


@pytest.mark.parametrize(
    ("reader", "raw", "seconds"),
    [
        ({}, "2026-11-20T10:15:00Z", 1_795_169_700.0),
        ({}, "2026-11-20T11:15:00+01:00", 1_795_169_700.0),
        ({"zone": ZoneInfo("UTC")}, "2026-11-20T10:15:00", 1_795_169_700.0),
        ({"zone": COPENHAGEN}, "2026-11-20T11:15:00", 1_795_169_700.0),
        ({"zone": COPENHAGEN}, "2026-11-20T10:15:00Z", 1_795_169_700.0),
        ({"shift_seconds": 900.0}, "2026-11-20T10:15:00Z", 1_795_170_600.0),
        ({"format": "unix_seconds"}, 1_795_169_700, 1_795_169_700.0),
        ({"format": "unix_milliseconds"}, 1_795_169_700_500, 1_795_169_700.5),
    ],
)
def test_times_are_read_as_configured(reader: dict[str, Any], raw: object, seconds: float) -> None:
    """With an offset, in a zone, as Unix time; a shift makes a begin an end."""
    assert TimeReader(**reader).unix_seconds(raw) == seconds


@pytest.mark.parametrize(
    ("reader", "raw", "message"),
    [
        ({}, "2026-11-20T10:15:00", "no offset: set time_zone"),
        ({"zone": COPENHAGEN}, "2026-10-25T02:30:00", "ambiguous in Europe/Copenhagen"),
        ({}, "yesterday", "not ISO 8601"),
        ({}, 1_795_169_700, "no text"),
        ({}, None, "no text"),
        ({"format": "unix_seconds"}, "1795169700", "not a number"),
        ({"format": "unix_seconds"}, 1_795_169_700_000, "no Unix time"),
        ({"format": "unix_milliseconds"}, -5, "no Unix time"),
        ({"format": "unix_seconds"}, float("nan"), "no Unix time"),
    ],
)
def test_what_is_no_time_is_refused(reader: dict[str, Any], raw: object, message: str) -> None:
    """Never guessed: an hour wrong is a stale value that counts as fresh."""
    with pytest.raises(SourceFaultError, match=message) as error:
        TimeReader(**reader).unix_seconds(raw)
    assert error.value.kind == "clock"


@given(st.none() | st.text() | st.integers() | st.floats(), st.sampled_from(["iso8601", "unix_seconds"]))
def test_whatever_comes_is_a_time_or_a_fault(raw: object, form: Any) -> None:
    """Nothing else escapes."""
    fault: SourceFaultError | None = None
    try:
        assert isinstance(TimeReader(format=form, zone=COPENHAGEN).unix_seconds(raw), float)
    except SourceFaultError as error:
        fault = error
    assert fault is None or fault.kind == "clock"
