"""The end of a demo: when the ledger agrees, when a run can be believed."""

from __future__ import annotations

from typing import Any

import pytest

from cli.demo_result import disagreements, others_requests, power_values, problems, total
from cli.judge import PowerVerdict

COUNTS = {"requests": 10, "completed": 7, "shed": 1, "client_cancelled": 0, "broken": 2, "failed": 0}
LEDGER = {**COUNTS, "client_error": 0, "lost": 0, "retried": 1, "resumed": 3, "in_flight": 0}


def test_equal_counts_agree() -> None:
    """The same numbers on both sides: nothing to say, nobody else was there."""
    assert disagreements(COUNTS, LEDGER) == []
    assert others_requests(COUNTS, LEDGER) == 0


def test_requests_of_other_clients_are_no_disagreement() -> None:
    """Somebody's curl makes the ledger larger by whole requests, each with an outcome."""
    ledger = LEDGER | {"requests": 13, "completed": 9, "client_error": 1}
    assert disagreements(COUNTS, ledger) == []
    assert others_requests(COUNTS, ledger) == 3


def test_an_answer_that_crossed_with_the_clients_leave_is_no_disagreement() -> None:
    """Ctrl-C while the last bytes are under way: completed for the router, cancelled for the client."""
    counts = COUNTS | {"requests": 12, "client_cancelled": 2}
    ledger = LEDGER | {"requests": 12, "client_cancelled": 1, "completed": 8}
    assert disagreements(counts, ledger) == []
    elsewhere = ledger | {"completed": 7, "failed": 1}
    assert any("client_cancelled" in fault for fault in disagreements(counts, elsewhere))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completed": 6, "broken": 3}, "completed: the load generator counted 7, the router 6"),
        ({"requests": 9, "completed": 6}, "requests: the load generator counted 10, the router 9"),
        ({"shed": 2}, "outcomes exceed the load generator's by 1, its requests by 0"),
        ({"requests": 12, "failed": 1}, "outcomes exceed the load generator's by 1, its requests by 2"),
        ({"in_flight": 1}, "still has 1 requests in flight"),
        ({"lost": 1}, "lost count of 1"),
    ],
)
def test_every_other_difference_is_a_fault(change: dict[str, int], message: str) -> None:
    """Whatever other clients cannot explain is said, with both numbers."""
    assert any(message in fault for fault in disagreements(COUNTS, LEDGER | change))


def summary(**changes: Any) -> dict[str, Any]:
    generator = {"corrupted": 0, "corruptions": [], "unsent": 0, "reasons": {}}
    generator |= changes.pop("load_generator", {})
    return {**COUNTS, "lost": 0, "load_generator": generator, **changes}


def test_a_bad_result_of_a_sound_run_is_no_problem() -> None:
    """Shed and broken requests and an exceeded cap are what a run may find."""
    assert problems(summary(shed=5, broken=3, cap_exceeded_seconds=9.0), faults=[]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lost": 2, "load_generator": {"reasons": {"lost: closed": 2, "shed: HTTP 503": 1}}},
            "2 × lost: closed",
        ),
        (
            {"failed": 3, "load_generator": {"reasons": {"failed: connection: connect": 3}}},
            "3 requests found no connection to the router",
        ),
        ({"load_generator": {"corrupted": 1, "corruptions": ["word 5"]}}, "foreign token (word 5)"),
        ({"load_generator": {"unsent": 4}}, "4 requests were not sent"),
        ({"completed": 0}, "not one request completed"),
    ],
)
def test_an_unsound_run_says_why(change: dict[str, Any], message: str) -> None:
    """Lost and corrupted answers, unsent requests, an empty run: each is named."""
    found = problems(summary(**change), faults=[])
    assert len(found) == 1
    assert message in found[0]


def test_faults_found_elsewhere_come_first() -> None:
    """A service that died makes a run unsound whatever was counted."""
    assert problems(summary(), faults=["router ended by itself"]) == ["router ended by itself"]


def test_unknown_power_stays_unknown() -> None:
    """A site without a power log has null everywhere, and then the sum is null too, not the others' sum."""
    verdict = PowerVerdict(
        cap_exceeded_seconds=1.5,
        below_idle_seconds=0.0,
        above_cap_seconds=2.0,
        episodes=1,
        energy_joules=1000.0,
        peak_watts=6000.0,
        unobserved_seconds=0.0,
    )
    known = power_values({"north": verdict, "coast": verdict})
    assert known["coast"]["peak_watts"] == 6000.0
    assert total(known, "energy_joules") == 2000.0
    partly = power_values({"north": verdict, "coast": None})
    assert set(partly["coast"].values()) == {None}
    assert total(partly, "energy_joules") is None
    assert total({}, "energy_joules") is None
