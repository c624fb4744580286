"""Watts of a measured profile: never fewer than were seen, and assumed only where they say so."""

from __future__ import annotations

from typing import Any

import pytest
from support.measured import document_of, row_of

from fleet.profile import LLAMA_70B_H100_TP4
from fleet.profiles.document import ProfileDocumentError, Row
from fleet.profiles.measured_points import points_of
from fleet.profiles.measured_watts import (
    NOTHING_ASSUMED,
    PREFILL_RATIO,
    AssumedWatts,
    WattsFit,
    check_watts,
    fit_watts,
)

TRUTH = LLAMA_70B_H100_TP4


def fit(
    rows: list[Row],
    assumed: AssumedWatts = NOTHING_ASSUMED,
    idle: float | None = 460.0,
    limit_watts: float | None = None,
) -> WattsFit:
    return fit_watts(
        points_of(document_of(rows), "f"),
        assumed,
        degree=4,
        idle_watts=idle,
        prefill_rate=TRUTH.prefill_tokens_per_second,
        limit_watts=limit_watts,
    )


def row(batch: int, watts: float | None, prompt: int = 512, clock: int = 1980, **changes: Any) -> Row:
    return row_of(TRUTH, batch, prompt, clock, watts=watts, **changes)


def test_the_highest_row_of_a_batch_counts_and_between_batches_it_is_straight() -> None:
    """A batch without watts is modelled, and says so."""
    found = fit([row(1, 1700.0), row(1, 1750.0, prompt=4096), row(8, None), row(15, 1890.0)])
    assert found.at(1) == (1750.0, "measured: heron profile run")
    assert found.at(8) == (1820.0, "modelled: between measured batches")


def test_the_highest_ratio_of_a_clock_counts_and_never_falls_as_it_rises() -> None:
    """Of batches that draw something; noise above full clock is none."""
    rows = [
        *(row(8, 1460.0), row(32, 1860.0), row(1, 470.0)),
        *(row(8, 960.0, clock=1400), row(32, 1300.0, clock=1400), row(1, 470.0, clock=1400)),
        *(row(8, 1060.0, clock=800), row(32, 900.0, clock=800)),
    ]
    points = dict(fit(rows).clock_points)
    assert points[800 / 1980] == points[1400 / 1980] == pytest.approx(0.6)
    assert points[1.0] == 1.0
    assert fit([row(8, 1460.0)]).clock_points == ()


def test_rows_of_a_clock_pair_by_the_prompts_asked_for_as_a_servers_count_differs_each_time() -> None:
    """The mean of what the server counted is another one in every window."""
    counts = iter((194.65, 1147.7, 194.45, 1150.8))
    rows = [
        row(32, TRUTH.watts(32, clock), prompt, clock, counted_prompt_tokens=next(counts))
        for clock in (1980, 1200)
        for prompt in (160, 1000)
    ]
    points = dict(fit(rows).clock_points)
    assert points[1200 / 1980] == pytest.approx(TRUTH.dynamic_power_ratio(1200))


@pytest.mark.parametrize(
    ("watts", "assumed", "idle", "fault"),
    [
        ([None, None], NOTHING_ASSUMED, None, "set assumed_idle_watts and assumed_busy_watts in"),
        ([None, None], AssumedWatts(idle=900.0), None, "set assumed_busy_watts in"),
        ([None, None], AssumedWatts(busy=900.0), None, "set assumed_idle_watts in"),
        ([None, None], AssumedWatts(busy=900.0), 460.0, None),
        ([None, None], AssumedWatts(busy=900.0, idle=400.0), None, None),
        ([1700.0, None], AssumedWatts(busy=900.0, idle=400.0), 460.0, "largest batch, 64, has no watts"),
        ([None, 2000.0], NOTHING_ASSUMED, 460.0, None),
    ],
)
def test_a_cap_is_kept_by_watts_that_somebody_measured_or_set(
    watts: list[float | None], assumed: AssumedWatts, idle: float | None, fault: str | None
) -> None:
    """Never by a default, nor by a smaller batch's for the largest; watts of lower clocks say neither."""
    rows = [row(1, watts[0]), row(64, watts[1])]
    rows += [row(64, 900.0, clock=800)] if watts[0] else []
    points = points_of(document_of(rows), "f")
    if fault is None:
        check_watts(points, assumed, idle_watts=idle, name="f")
        return
    with pytest.raises(ProfileDocumentError, match=fault):
        check_watts(points, assumed, idle_watts=idle, name="f")


def test_prefill_is_what_rows_lead_to_and_at_least_the_highest() -> None:
    """From rows of one batch whose shares of prefill differ; else a quarter more than the highest."""
    rate = TRUTH.prefill_tokens_per_second
    shares = {512: 0.1, 4096: 0.6}
    rows = [
        row(32, 2000 + 500 * share, prompt, output_tokens_per_second=share * rate / prompt * 256)
        for prompt, share in shares.items()
    ]
    assert fit(rows).prefill_watts == pytest.approx(2500)
    assert fit(rows, limit_watts=2400.0).prefill_watts == 2400.0
    assert fit(rows, limit_watts=900.0).prefill_watts == pytest.approx(2300)
    falling = [one.model_copy(update={"watts": 4000 - (one.watts or 0)}) for one in rows]
    assert fit(falling).prefill_watts == max(one.watts or 0 for one in falling)
    assert fit([row(8, 1800.0)]).prefill_watts == 1800 * PREFILL_RATIO


@pytest.mark.parametrize(
    ("assumed", "idle", "rows", "expected"),
    [
        (NOTHING_ASSUMED, 460.0, [1800.0], (280.0, 460.0, "idle measured")),
        (AssumedWatts(stopped=300.0), 460.0, [1800.0], (300.0, 460.0, "idle measured")),
        (AssumedWatts(stopped=900.0), 460.0, [1800.0], (460.0, 460.0, "idle measured")),
        (AssumedWatts(idle=500.0), None, [1800.0], (500 * 70 / 115, 500.0, "idle: assumed_idle_watts")),
        (NOTHING_ASSUMED, None, [1800.0], (280.0, 460.0, "idle modelled")),
        (NOTHING_ASSUMED, None, [300.0], (300 * 70 / 115, 300.0, "idle modelled")),
        (NOTHING_ASSUMED, None, [None], (200 * 70 / 115, 200.0, "idle assumed")),
    ],
)
def test_empty_and_stopped_are_measured_configured_or_modelled(
    assumed: AssumedWatts, idle: float | None, rows: list[float | None], expected: tuple[float, float, str]
) -> None:
    """In this order, never stopped above empty, never empty above busy."""
    found = fit([row(8, watts) for watts in rows], assumed, idle)
    assert (found.stopped_watts, found.idle_watts) == pytest.approx(expected[:2])
    assert found.idle_source.startswith(expected[2])


def test_without_any_watts_the_configurations_busy_watts_count() -> None:
    """At every batch."""
    found = fit([row(8, None)], AssumedWatts(busy=650.0, idle=100.0), None)
    assert found.at(8)[0] == found.at(64)[0] == 650.0
    assert found.at(8)[1].startswith("assumed")
    assert found.prefill_watts is None
