"""Which records are used."""

from __future__ import annotations

from fleet.intake import RecordJudge
from fleet.records import Plan, PowerReading, SolverReport

UNIX = 1_800_000_000.0


def reading(sequence: int, feed_id: str = "a") -> PowerReading:
    return PowerReading(
        feed_id=feed_id,
        sequence=sequence,
        site_id="north",
        farm_id="north",
        observed_at_unix_seconds=UNIX,
        period_seconds=1.0,
        available_power_watts=1.0,
        granted_power_watts=1.0,
        nameplate_capacity_watts=1.0,
        quality="good",
        source="test",
    )


def plan(epoch: int, sequence: int, router_id: str = "a") -> Plan:
    return Plan(
        router_id=router_id,
        sequence=sequence,
        epoch=epoch,
        solved_at_unix_seconds=UNIX,
        valid_for_seconds=60.0,
        solver=SolverReport(status="optimal", seconds=0.1),
    )


def reason(judge: RecordJudge, record: PowerReading | Plan, now: float) -> str | None:
    refusal = judge.judge(record, now=now, unix_now=UNIX)
    return None if refusal is None else refusal.reason


def test_a_sequence_only_grows() -> None:
    """A repeat is passed over without a word, an older one is refused and said."""
    judge = RecordJudge()
    assert reason(judge, reading(5), 0.0) is None
    repeat = judge.judge(reading(5), now=0.1, unix_now=UNIX)
    assert repeat is not None
    assert (repeat.reason, repeat.is_worth_saying) == ("duplicate", False)
    assert reason(judge, reading(4), 0.2) == "stale"
    assert reason(judge, reading(6), 0.3) is None


def test_a_second_writer_waits_for_the_firsts_silence() -> None:
    """Two seconds; then the first one is the intruder."""
    judge = RecordJudge()
    assert reason(judge, reading(5), 0.0) is None
    assert reason(judge, reading(9, "b"), 1.9) == "second_writer"
    assert reason(judge, reading(9, "b"), 2.0) is None
    assert reason(judge, reading(10, "a"), 2.5) == "second_writer"


def test_a_new_writer_may_not_go_back_either() -> None:
    """Sequences grow over restarts: the same or a lower one of another writer is stale."""
    judge = RecordJudge()
    assert reason(judge, reading(5), 0.0) is None
    assert reason(judge, reading(5, "b"), 10.0) == "stale"


def test_a_sequence_from_the_far_future_shuts_nobody_out() -> None:
    """Nothing after it could ever be used."""
    judge = RecordJudge()
    assert reason(judge, reading((1 << 53) - 1), 0.0) == "far_sequence"
    assert reason(judge, reading(5), 0.1) is None


def test_a_plan_is_fenced_by_its_epoch() -> None:
    """A new leader is heard at once, the old one never again, whatever its sequence."""
    judge = RecordJudge()
    assert reason(judge, plan(1, 5), 0.0) is None
    assert reason(judge, plan(2, 6, "b"), 0.1) is None
    assert reason(judge, plan(1, 99), 0.2) == "stale_epoch"
