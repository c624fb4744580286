"""The ring of events."""

from __future__ import annotations

import orjson

from router.live.events import MAX_EVENTS, MAX_REFUSED_EVENTS, MAX_TEXT_CHARACTERS, EventRing


def test_events_have_numbers_and_a_level() -> None:
    """So that a page can ask for what is new, and show what is bad."""
    ring = EventRing()
    ring.add("policy", "one")
    ring.add("record_refused", "two")
    ring.add("store", "three", level="bad")
    assert [(event["number"], event["level"]) for event in ring.recent()] == [
        (1, "info"),
        (2, "warning"),
        (3, "bad"),
    ]
    assert [event["text"] for event in ring.recent(after=2)] == ["three"]
    assert ring.last_number == 3


def test_a_text_is_bounded_and_can_be_written_as_json() -> None:
    """Half a character of UTF-16, which Python can hold and JSON cannot, is replaced."""
    ring = EventRing()
    ring.add("record_refused", "refused: \ud800" + "x" * 5000)
    [event] = ring.recent()
    assert orjson.loads(orjson.dumps(event)) == event
    assert event["text"].startswith("refused: ?x")
    assert len(event["text"]) == MAX_TEXT_CHARACTERS


def test_refused_records_do_not_push_out_what_happened() -> None:
    """A writer that is wrong for an hour leaves the power drop before it in the ring."""
    ring = EventRing()
    ring.add("power", "the drop", site_id="a")
    for number in range(3 * MAX_EVENTS):
        ring.add("record_refused", f"refused {number}")
    found = ring.recent()
    assert len(found) == 1 + MAX_REFUSED_EVENTS
    assert found[0]["text"] == "the drop"
    assert found[-1]["text"] == f"refused {3 * MAX_EVENTS - 1}"
