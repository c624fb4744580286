"""Whose tokens took how many joules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from router.live import energy
from router.live.energy import Energy, note_continuation, note_energy, note_first_part
from router.policy.stream_record import StreamRecord


def exchange(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "site_id": "north",
        "is_committed": False,
        "output_tokens": 50,
        "scanner": None,
        "resumes": 0,
        "used_tokens": None,
        "has_paid": False,
        "features": SimpleNamespace(tenant="acme", model="m", prompt_tokens=200),
    }
    return SimpleNamespace(**values | changes)


def snapshot(prompt: float | None = 0.5, output: float | None = 2.0) -> Any:
    views = [
        SimpleNamespace(site_id="coast", joules_per_prompt_token=9.0, joules_per_output_token=9.0),
        SimpleNamespace(site_id="north", joules_per_prompt_token=prompt, joules_per_output_token=output),
    ]
    return SimpleNamespace(models={"m": tuple(views)})


def test_tokens_are_priced_by_the_site_that_made_them() -> None:
    """Prompt and answer apart, added up."""
    found: Energy = {}
    note_energy(found, snapshot(), exchange())
    note_energy(
        found, snapshot(), exchange(is_committed=True, scanner=SimpleNamespace(events=10, record=None))
    )
    assert found == {("acme", "m", "prefill"): 200.0, ("acme", "m", "decode"): 120.0}


def test_what_is_not_known_is_not_counted() -> None:
    """No site, no tokens, no price, a stream whose parts were counted."""
    found: Energy = {}
    note_energy(found, snapshot(), exchange(site_id=""))
    note_energy(found, snapshot(), exchange(output_tokens=None))
    note_energy(found, snapshot(), exchange(site_id="gone"))
    note_energy(found, snapshot(None, None), exchange())
    scanner = SimpleNamespace(events=9)
    note_energy(found, snapshot(), exchange(is_committed=True, has_paid=True, scanner=scanner))
    assert found == {}


def test_the_prompt_is_as_long_as_the_site_says() -> None:
    """By its ids, or by the usage of an answer in one piece."""
    found: Energy = {}
    note_energy(found, snapshot(), exchange(used_tokens=80))
    assert found["acme", "m", "prefill"] == 30 * 0.5
    record = StreamRecord()
    record.prompt_ids = b"1,2,3,4"
    scanner = SimpleNamespace(events=3, record=record)
    note_energy(found, snapshot(), exchange(is_committed=True, scanner=scanner))
    assert found["acme", "m", "prefill"] == (30 + 4) * 0.5


def test_each_site_of_a_stream_is_paid_for_its_part() -> None:
    """The second one also for reading prompt and answer anew; a third that gave no token for nothing."""
    found: Energy = {}
    record = StreamRecord()
    record.prompt_ids = b"1,2,3,4"
    record.add_ids(b"5,6,7")
    stream = exchange(is_committed=True, scanner=SimpleNamespace(events=9, record=record))
    note_first_part(found, snapshot(), stream)
    assert found == {("acme", "m", "prefill"): 4 * 0.5, ("acme", "m", "decode"): 3 * 2.0}
    record.add_ids(b"8,9")
    note_continuation(found, snapshot(), stream, "coast", record, 3)
    note_continuation(found, snapshot(), stream, "north", record, 5)
    note_energy(found, snapshot(), stream)
    assert found["acme", "m", "prefill"] == 4 * 0.5 + (4 + 3) * 9.0
    assert found["acme", "m", "decode"] == 3 * 2.0 + 2 * 9.0


def test_series_are_bounded(monkeypatch: Any) -> None:
    """A known one still counts."""
    monkeypatch.setattr(energy, "MAX_SERIES", 2)
    found: Energy = {}
    note_energy(found, snapshot(), exchange())
    other = SimpleNamespace(tenant="other", model="m", prompt_tokens=1)
    note_energy(found, snapshot(), exchange(features=other))
    note_energy(found, snapshot(), exchange())
    assert len(found) == 2
    assert found["acme", "m", "decode"] == 200.0
