"""Which records are used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.intake import RecordJudge
from fleet.records import Plan, PowerReading, SiteInfo, SolverReport
from fleet.wire import Record

UNIX = 1_800_000_000.0


def reading(sequence: int, feed_id: str = "a", observed_at: float = UNIX) -> PowerReading:
    return PowerReading(
        feed_id=feed_id,
        sequence=sequence,
        site_id="north",
        farm_id="north",
        observed_at_unix_seconds=observed_at,
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


def info(sequence: int, agent_id: str = "a") -> SiteInfo:
    return SiteInfo(
        agent_id=agent_id,
        sequence=sequence,
        site_id="north",
        farm_id="north",
        region="here",
        ingress_url="http://127.0.0.1:1",
        gpu_model="none",
        gpu_count=0,
        server_idle_watts=0.0,
        overhead_ratio=1.0,
        ride_through_seconds=5.0,
        ride_through_joules=0.0,
        safe_floor_watts=0.0,
        max_site_watts=0.0,
    )


def reason(judge: RecordJudge, record: Record, now: float) -> str | None:
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


def test_a_new_epoch_counts_from_any_sequence_and_at_once() -> None:
    """A leader whose clock is behind still leads; within its epoch sequences only grow."""
    judge = RecordJudge()
    assert reason(judge, plan(1, 500), 0.0) is None
    assert reason(judge, plan(2, 3, "b"), 0.1) is None
    assert reason(judge, plan(2, 2, "b"), 0.2) == "stale"
    assert reason(judge, plan(2, 4, "b"), 0.3) is None


def test_one_epoch_has_one_writer() -> None:
    """Two leaders of one term: the second is an alarm."""
    judge = RecordJudge()
    assert reason(judge, plan(1, 5), 0.0) is None
    assert reason(judge, plan(1, 6, "b"), 0.1) == "second_writer"


def test_an_epoch_from_the_far_future_shuts_nobody_out() -> None:
    """It would fence off every leader to come."""
    judge = RecordJudge()
    assert reason(judge, plan((1 << 53) - 1, 5), 0.0) == "far_sequence"
    assert reason(judge, plan(1, 5), 0.1) is None


def test_an_old_epoch_is_never_forgotten() -> None:
    """Plans are minutes apart: their silence says nothing."""
    judge = RecordJudge()
    assert reason(judge, plan(2, 5), 0.0) is None
    assert reason(judge, plan(1, 6, "b"), 100_000.0) == "stale_epoch"


def test_an_emptied_world_recovers_after_a_minute_of_silence() -> None:
    """A writer that begins behind the old sequence, its key and its clock's lead gone, is heard then."""
    judge = RecordJudge()
    assert reason(judge, reading(5000), 0.0) is None
    assert reason(judge, reading(10, "b"), 59.9) == "stale"
    assert reason(judge, reading(11, "b"), 60.0) is None
    assert reason(judge, reading(12, "b"), 61.0) is None


@pytest.mark.parametrize("off_seconds", [-3600.0, -30.1, 30.1, 3600.0])
def test_after_silence_a_wrong_clock_that_also_went_back_is_refused(off_seconds: float) -> None:
    """So that a left-over or a replay of an old record is no news; one that advances is used all the same."""
    judge = RecordJudge(max_clock_skew_seconds=30.0)
    assert reason(judge, reading(5000), 0.0) is None
    assert reason(judge, reading(10, "b", UNIX + off_seconds), 100.0) == "stale"
    assert reason(judge, reading(5001, "b", UNIX + off_seconds), 100.0) is None


def test_the_same_record_stays_a_duplicate_however_long_it_lies_there() -> None:
    """A dead feed's last reading, read again every second, is never news."""
    judge = RecordJudge()
    assert reason(judge, reading(5), 0.0) is None
    assert reason(judge, reading(5), 3600.0) == "duplicate"


def test_a_record_without_a_time_cannot_go_back() -> None:
    """Nothing tells an old SiteInfo from a new one."""
    judge = RecordJudge()
    assert reason(judge, info(5000), 0.0) is None
    assert reason(judge, info(10, "b"), 3600.0) == "stale"
    assert reason(judge, info(5001, "b"), 3600.0) is None


@given(
    offers=st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from("ab"), st.floats(0, 30), st.floats(-100, 100)),
        max_size=40,
    )
)
def test_what_is_used_advances_or_follows_silence_with_a_right_clock(
    offers: list[tuple[int, str, float, float]],
) -> None:
    """And another writer is never used within two seconds of the first."""
    judge = RecordJudge(max_clock_skew_seconds=30.0)
    now = 0.0
    used: tuple[int, str, float] | None = None
    for sequence, writer, gap, off in offers:
        now += gap
        if judge.judge(reading(sequence, writer, UNIX + off), now=now, unix_now=UNIX) is not None:
            continue
        if used is not None:
            last_sequence, last_writer, last_at = used
            assert writer == last_writer or now - last_at >= 2.0
            assert sequence > last_sequence or (now - last_at >= 60.0 and abs(off) <= 30.0)
        used = (sequence, writer, now)


@pytest.mark.parametrize(
    ("sequence", "writer", "at", "is_worth_saying"),
    [
        (99, "a", 1.0, False),
        (97, "a", 1.0, False),
        (96, "a", 1.0, True),
        (99, "a", 5.0, True),
        (99, "b", 5.0, True),
    ],
    ids=["the one before", "three before", "an old one", "long after", "another writer"],
)
def test_a_record_that_the_next_one_overtook_is_not_worth_a_word(
    sequence: int, writer: str, at: float, is_worth_saying: bool
):
    """It came by the slower of its two ways; what is older tells of a replay, or of a second writer."""
    judge = RecordJudge()
    assert judge.judge(reading(100), now=0.5, unix_now=UNIX) is None
    refusal = judge.judge(reading(sequence, writer), now=at, unix_now=UNIX)
    assert refusal is not None
    assert (refusal.reason, refusal.is_worth_saying) == ("stale", is_worth_saying)
