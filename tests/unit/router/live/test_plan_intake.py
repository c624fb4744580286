"""Plans as they arrive."""

from __future__ import annotations

from typing import Any

import pytest
from support.golden_records import golden_value

from fleet.records import Plan, SiteInfo
from router.live.plan_intake import PlanIntake, PlanRefusedError

INFO = SiteInfo.model_validate(golden_value("SiteInfo"), strict=False)
INFOS = {"north": INFO}
UNIX = 1.8e9
EPOCH = 1_732_320_000_000


def plan(**changes: Any) -> bytes:
    """A plan for north."""
    values = golden_value("Plan") | {
        "epoch": EPOCH,
        "sequence": EPOCH,
        "weights": {"llama-3.1-70b": {"SS": {"north": 1.0}}},
        "targets": {},
        "shares": {},
        "expected_shortfall": {},
    }
    return Plan.model_validate(values | changes, strict=False).to_json()


def refused(intake: PlanIntake, raw: bytes, infos: dict[str, SiteInfo], *, now: float = 10.0) -> str:
    """Why it is."""
    with pytest.raises(PlanRefusedError) as found:
        intake.take(raw, infos, now=now, unix_now=UNIX)
    return found.value.reason


def test_a_plan_is_used_once_and_lasts_from_when_it_came() -> None:
    """The writer's clock is not asked; the same bytes again are nothing new."""
    intake = PlanIntake()
    view = intake.take(plan(valid_for_seconds=60.0), INFOS, now=10.0, unix_now=UNIX)
    assert view is not None
    assert view.fraction("llama-3.1-70b", "SS", "north") == 1.0
    assert view.is_valid(69.0)
    assert not view.is_valid(71.0)
    assert intake.take(plan(valid_for_seconds=60.0), INFOS, now=11.0, unix_now=UNIX) is None


def test_a_lower_epoch_is_refused_whatever_its_sequence() -> None:
    """And a higher one used from any sequence and writer."""
    intake = PlanIntake()
    assert intake.take(plan(), INFOS, now=10.0, unix_now=UNIX) is not None
    assert refused(intake, plan(epoch=EPOCH - 1, sequence=EPOCH + 9), INFOS) == "stale_epoch"
    newer = plan(epoch=EPOCH + 1, sequence=5, router_id="another")
    assert intake.take(newer, INFOS, now=10.1, unix_now=UNIX) is not None
    assert intake.highest_epoch == EPOCH + 1


def test_a_plan_for_a_site_that_is_not_known_yet_waits_for_its_info() -> None:
    """Refused as a whole, and used when it is read again."""
    intake = PlanIntake()
    assert refused(intake, plan(), {}) == "broken_plan"
    assert intake.plan is None
    assert intake.take(plan(), INFOS, now=11.0, unix_now=UNIX) is not None


def test_a_broken_plan_leaves_the_last_good_one() -> None:
    """Nor does its higher epoch shut the next one out."""
    intake = PlanIntake()
    intake.take(plan(), INFOS, now=10.0, unix_now=UNIX)
    broken = plan(epoch=EPOCH + 5, weights={"m": {"SS": {"north": 0.9, "south": 0.9}}})
    assert refused(intake, broken, INFOS) == "broken_plan"
    assert intake.take(plan(epoch=EPOCH + 1), INFOS, now=12.0, unix_now=UNIX) is not None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "malformed"),
        (b"{}", "malformed"),
        (plan().replace(b'"1.0"', b'"2.0"'), "schema_version"),
        (b" " * (2 << 20), "too_large"),
        (plan(epoch=9_000_000_000_000_000, sequence=1), "far_sequence"),
    ],
)
def test_what_is_no_plan_is_refused_with_a_reason(raw: bytes, reason: str) -> None:
    """Anybody may write there."""
    assert refused(PlanIntake(), raw, INFOS) == reason


def test_a_repeat_of_an_older_plan_is_passed_over() -> None:
    """It comes two ways; the second may be late."""
    intake = PlanIntake()
    first, second = plan(), plan(sequence=EPOCH + 1)
    intake.take(first, INFOS, now=10.0, unix_now=UNIX)
    intake.take(second, INFOS, now=11.0, unix_now=UNIX)
    assert intake.take(first, INFOS, now=11.5, unix_now=UNIX) is None
    assert intake.raw == second
    assert refused(intake, plan(sequence=EPOCH - 9), INFOS, now=11.5) == "stale"
