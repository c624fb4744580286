"""What the experiments say: intervals, crossings, parts of the way, goals; and blocks that see every hour."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments.__main__ import parser, setting_of
from benchmarks.experiments.document import fill
from benchmarks.experiments.figures import (
    at_equal_completion,
    crossing,
    lead,
    mean_of,
    number,
    ratio_of,
    way,
)
from benchmarks.experiments.grid import Fleet, _costs
from benchmarks.experiments.paper_results import Table
from benchmarks.experiments.power_short import Times, _goal, ratio_text, strongest
from benchmarks.experiments.setting import ALL_WEEKS, BASELINES, POLICIES, Setting
from simulator.estimates import Estimate, estimate
from simulator.inputs import blocks_of
from simulator.plots import BOUND
from simulator.quantiles import sketch
from simulator.sizing_cost import Prices

HOUR = 3600


def setting(*words: str) -> Setting:
    return setting_of(parser().parse_args(["paper_table", *words]))


# Figures


def test_a_ratio_of_means_has_an_interval() -> None:
    """Of numerator and denominator that move together it is narrow, whatever their spread."""
    assert ratio_of([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).text("{:.2f}") == "0.50"
    found = ratio_of([1.0, 2.0, 3.0], [2.0, 4.0, 5.0])
    residuals = [1 - found.mean * 2, 2 - found.mean * 4, 3 - found.mean * 5]
    spread = math.sqrt(sum(one * one for one in residuals) / 2 / 3)
    assert found.half == pytest.approx(4.30 * spread / (11 / 3))
    assert found.is_sure(2.0)
    assert not found.is_sure(found.mean)
    assert not estimate([0.479]).is_sure(0.48), "one value says nothing of how far off it is"
    assert math.isnan(ratio_of([0.0], [0.0]).mean)


def test_blocks_of_the_same_requests_differ_by_less_than_each_from_the_others() -> None:
    """Blocks move both alike: the difference is sure where neither share is."""
    offered = [100.0, 100.0, 100.0]
    ours, theirs = ([95.0, 85.0, 75.0], offered), ([94.0, 84.0, 74.0], offered)
    assert lead(ours, theirs).half < 1e-9 < ratio_of(*ours).half
    assert lead(ours, theirs).mean == pytest.approx(0.01)
    assert lead(ours, ours) == Estimate(mean=0.0, half=0.0)
    assert math.isnan(lead(ours, ([0.0], [0.0])).mean), "nothing was offered there"


def test_a_lead_counts_requests_not_blocks() -> None:
    """A block with more of them weighs more; of as many offered it is the ratio estimator's own."""
    ours, theirs = ([90.0, 10.0], [100.0, 20.0]), ([80.0, 10.0], [100.0, 20.0])
    found = lead(ours, theirs)
    assert found.mean == pytest.approx(10 / 120)
    direct = ratio_of([10.0, 0.0], [100.0, 20.0])
    assert (found.mean, found.half) == pytest.approx((direct.mean, direct.half))


def test_an_infinite_seed_makes_the_mean_infinite() -> None:
    """And is shown so; nothing at all is a dash."""
    assert number(mean_of([2.0, None])) == "∞"
    assert number(mean_of([2.0, 4.0])) == "3.00"
    assert number(math.nan) == "–"


@pytest.mark.parametrize(
    ("level", "text"), [(0.99, "< 0.50"), (0.95, "0.50"), (0.9, "0.60"), (0.5, "> 0.70")]
)
def test_a_sustained_load_is_never_made_up(level: float, text: str) -> None:
    """Between the loads that were run a straight line, beyond them only that it is beyond."""
    assert crossing([(0.5, 0.95), (0.7, 0.85)], level).text() == text


def test_the_way_is_from_the_best_baseline_to_the_bound() -> None:
    """Nothing where both are within two per cent of each other."""
    assert way(0.9, 0.8, 1.0) == pytest.approx(0.5)
    assert way(0.7, 0.8, 1.0) == pytest.approx(-0.5)
    assert way(0.99, 0.985, 1.0) is None
    assert way(0.0, 0.0, 0.0) is None


# Settings


@pytest.mark.parametrize("words", [("--quick",), ()])
def test_blocks_go_round_the_clock(words: tuple[str, ...]) -> None:
    """Of every week some begin in the night, the morning, the afternoon and the evening."""
    one = setting(*words)
    starts = range(0, 7 * 24 * HOUR, one.sample.every_seconds)
    hours = sorted({start % (24 * HOUR) / HOUR for start in starts})
    gaps = [later - earlier for earlier, later in zip(hours, [*hours[1:], hours[0] + 24], strict=True)]
    assert max(gaps) <= 3.5
    assert len(starts) >= 7


def test_the_quick_form_is_a_part_of_the_full_one() -> None:
    """What it ran need not be run again."""
    quick, full = setting("--quick"), setting()
    assert quick.sample == full.sample
    assert set(quick.seeds) < set(full.seeds)
    assert set(quick.loads) < set(full.loads)
    assert set(quick.weeks) < set(full.weeks)


def test_what_is_not_plain_has_files_of_its_own() -> None:
    """Another load, week, size or seed never writes over the plain form's results."""
    assert setting().stem == ""
    assert setting("--quick").stem == "-quick"
    words = ("--trace", "code-2024", "--sizes", "2024", "--size-percentile", "30", "--seeds", "2")
    assert setting("--quick", *words).stem == "-quick-code-2024-sizes-2024-p30-seeds-2"
    assert setting("--quick", "--load", "0.9", "--week", "fts-148").stem == "-quick-fts-148-load-0.9"
    assert setting("--quick", "--all-weeks").weeks == ALL_WEEKS
    with pytest.raises(SystemExit, match="--week: known are"):
        setting("--week", "never")


def test_prices_are_arguments() -> None:
    """Each by its own name; the others keep their defaults."""
    found = setting("--wind-usd-per-megawatt-hour", "20").prices
    assert found == replace(Prices(gpu_usd=found.gpu_usd), wind_usd_per_megawatt_hour=20.0)


def test_one_week_of_each_kind() -> None:
    """The first far and the first near one."""
    assert [name for _, name in setting().far_and_near] == ["fts-127", "rts-median"]
    assert [name for _, name in setting("--week", "rts-06-24").far_and_near] == ["rts-06-24"]


def test_a_smoke_cell_needs_no_file() -> None:
    """Neither of wind nor of load."""
    one = setting("--smoke")
    cell = one.cell(one.weeks[0], "heron", one.loads[0], 1)
    assert (cell.wind, cell.trace) == ("synthetic-far", "synthetic-conv")
    assert len(blocks_of(cell)) == 1


# The paper table's goals


class StubRuns:
    """Attained by (load, policy); the same at every seed."""

    def __init__(self, attained: dict[tuple[float, str], float]) -> None:
        self._attained = attained

    def attained(self, name: tuple[str, float, str], part: str = "all") -> list[float]:
        del part
        return [self._attained[name[1:]]]

    def counts(self, name: tuple[str, float, str], part: str = "all") -> tuple[list[float], list[float]]:
        """Two blocks of a hundred requests."""
        [ratio] = self.attained(name, part)
        return [100 * ratio, 100 * ratio], [100.0, 100.0]

    def offered_ratios(self, name: tuple[str, float, str]) -> list[float]:
        return [name[1]]


def table_of(ours: list[float], theirs: list[float], bound: list[float]) -> Table:
    """At loads 0.5 and 0.7; all other policies attain the same."""
    loads = (0.5, 0.7)
    attained = {
        (load, policy): (ours if policy == "heron" else theirs)[index]
        for index, load in enumerate(loads)
        for policy in POLICIES
    }
    ceilings = {
        ("week", load): [
            {
                "within_slo": {
                    "by_load": [
                        {
                            "bound": bound[index],
                            "bound_by_block": [bound[index], bound[index]],
                            "offered_by_block": [1.0, 1.0],
                            "baselines": {},
                        }
                    ]
                }
            }
        ]
        for index, load in enumerate(loads)
    }
    return Table(setting("--quick"), StubRuns(attained), ceilings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs", "bound", "text", "is_met"),
    [
        ([0.98, 0.88], [0.96, 0.84], [1.0, 0.89], "73%", False),
        ([0.98, 0.89], [0.85, 0.70], [1.0, 0.89], "> 98%", True),
        ([0.98, 0.88], [0.85, 0.70], [1.0, 0.89], "> 88%", None),
        ([0.98, 0.88], [0.85, 0.70], [1.0, 0.95], "not bracketed", None),
        ([0.95, 0.80], [0.94, 0.80], [1.0, 0.95], "< 7%", False),
        ([0.98, 0.95], [0.96, 0.94], [1.0, 0.99], "not bracketed", None),
        ([0.98, 0.85], [0.96, 0.92], [1.0, 0.95], "less than `round_robin`", False),
        ([0.89, 0.85], [0.96, 0.84], [1.0, 0.89], "less than `round_robin`", False),
        ([0.85, 0.70], [0.84, 0.70], [0.89, 0.80], "the bound has less too", None),
    ],
)
def test_sustained_load_says_only_what_the_loads_show(
    ours: list[float], theirs: list[float], bound: list[float], text: str, is_met: bool | None
) -> None:
    """At 90 %: a figure where all three cross, a limit where one does not, else nothing."""
    found, state = table_of(ours, theirs, bound).sustained_way("week", 0.9)
    assert found.startswith(text)
    assert state is is_met


def test_a_week_without_any_power_is_no_division_by_nothing() -> None:
    """Nothing of nothing is all of it."""
    dead = table_of([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    assert dead.share_of_bound("week", 0.5, "heron").mean == 1.0
    assert dead.way("week", 0.5) is None


def test_the_bound_is_a_policys_curve_too() -> None:
    """For sustained load and plots."""
    assert table_of([0.9, 0.8], [0.8, 0.7], [1.0, 0.9]).curve("week", BOUND) == [(0.5, 1.0), (0.7, 0.9)]


# Power-short minutes


def alike(value: float) -> dict[str, list[float]]:
    """One seed, the same of every policy."""
    return {policy: [value] for policy in POLICIES}


def times(ours: float, others: float, *, equal: float = 10.0, planned: float = 20.0) -> Times:
    plain = alike(others) | {"heron": [ours], "planned": [planned]}
    return Times(plain=plain, equal=alike(20.0) | {"heron": [equal]})


def test_the_goals_load_is_the_highest_at_which_both_are_finite() -> None:
    """Not the highest that was run: there ours refuses more than one in a hundred."""
    one = setting("--quick")
    found = {("w", 0.5, False): times(9.0, 20.0, equal=9.0), ("w", 0.7, False): times(math.inf, 41.0)}
    said = _goal(one, True, "w", found)
    assert "both are finite 0.5: 0.45 × plain, 0.45 × at equal completion; goal 0.48 ×: met" in said
    assert "Never worse than `planned` or `reactive`: **missed** at 0.7 (plain, `planned`)" in said


def test_where_nothing_is_finite_the_goal_is_missed_and_said_so() -> None:
    """At equal completion it is shown all the same; a near week has no goal."""
    one = setting("--quick")
    found = {("w", load, False): times(math.inf, math.inf, planned=math.inf) for load in one.loads}
    assert "at no load that was run are both finite" in _goal(one, True, "w", found)
    assert "0.50 ×; goal 0.48 ×: **missed**" in _goal(one, True, "w", found)
    assert "missed" not in _goal(one, False, "w", found)
    assert strongest(alike(1.0)) in BASELINES


def test_a_ratio_has_an_interval_and_none_is_made_of_nothing() -> None:
    """By the residuals of the ratio of means; a seed in which nothing came is left out."""
    seeds = {policy: [20.0, 40.0, math.nan] for policy in POLICIES} | {"heron": [11.0, 19.0, math.nan]}
    # means 15 and 30; residuals 1 and -1: sqrt(2 / 2) of a standard error, 12.71 of them, ÷ 30
    assert ratio_text(seeds) == "0.50 × ± 0.42 ×"
    assert ratio_text(alike(math.inf)) == "–"
    assert ratio_text(alike(math.nan)) == "–"
    assert ratio_text(alike(9.0) | {"heron": [math.inf]}) == "∞"


@pytest.mark.parametrize("served", [0.34967, 0.52, 0.9, 1.0])
def test_at_equal_completion_what_was_served_is_finite(served: float) -> None:
    """Between two levels of the sketch too: it is a quantile of those that were served."""
    values = np.full(100_000, np.inf, dtype=np.float32)
    count = round(served * len(values))
    values[:count] = np.arange(count)
    found = at_equal_completion(sketch(values), 0.99, served)
    assert found == pytest.approx(0.99 * count, rel=0.01)
    assert found < 0.995 * count or served == 1.0
    assert math.isnan(at_equal_completion([], 0.99, 1.0))
    assert math.isinf(at_equal_completion(sketch(values[count - 1 :]), 0.99, 1.0)) or served == 1.0


# The grid


def test_all_costs_are_those_of_heron_size() -> None:
    """Servers, buildings and sites by the hour, energy by what was drawn; a million tokens in an hour."""
    one = setting("--quick", "--interest-ratio", "0", "--maintenance-ratio", "0")
    result: dict[str, Any] = {
        "all": {"output_tokens": 1_000_000, "seconds": 3600.0, "good": 50, "served": 100},
        "kilowatt_hours": 2.0,
    }
    prices = one.prices
    grid = _costs(one, Fleet(gpus=8, peak_watts=6000.0, wind_sites=0), result)
    servers = 8 * prices.gpu_usd / prices.server_years
    building = 6000.0 / 1.1 * prices.facility_usd_per_watt / prices.facility_years
    energy = 0.002 * prices.grid_usd_per_megawatt_hour
    assert grid["usd"] == pytest.approx((servers + building) / 8760 + energy)
    assert grid["usd_of_good"] == pytest.approx(2 * grid["usd"])  # type: ignore[operator]
    wind = _costs(one, Fleet(gpus=8, peak_watts=6000.0, wind_sites=1), result)
    assert wind["energy_usd"] == pytest.approx(0.002 * prices.wind_usd_per_megawatt_hour)
    site = prices.wind_site_usd_per_year / 8760
    assert wind["usd"] - wind["usd_without_sites"] == pytest.approx(site)  # type: ignore[operator]
    empty = result | {"all": {"output_tokens": 0, "seconds": 3600.0, "good": 0, "served": 0}}
    assert set(_costs(one, Fleet(gpus=8, peak_watts=6000.0, wind_sites=1), empty).values()) == {None}


# docs/results.md


def test_a_document_is_filled_from_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Places whose file there is; the others stay, and are named."""
    document = tmp_path / "results.md"
    place = "<!-- results: {} -->\nold\n<!-- end -->\n"
    document.write_text("# R\n\n" + place.format("one") + "\nbetween\n" + place.format("two"))
    (tmp_path / "one.json").write_text(json.dumps({"summary": "new\n"}))
    assert fill(tmp_path, document) == ["one"]
    expected = "# R\n\n" + place.format("one").replace("old", "new") + "\nbetween\n" + place.format("two")
    assert document.read_text() == expected
    assert "two: no " in capsys.readouterr().out
    (tmp_path / "two.json").write_text("{}")
    assert fill(tmp_path, document) == ["one"]


def test_a_paper_tables_main_table_can_stand_alone(tmp_path: Path) -> None:
    """For other loads, whose goals are not shown."""
    document = tmp_path / "results.md"
    document.write_text("<!-- table: one -->\n<!-- end -->\n")
    (tmp_path / "one.json").write_text(json.dumps({"summary": "all of it", "table": "| a |"}))
    assert fill(tmp_path, document) == ["one"]
    assert document.read_text() == "<!-- table: one -->\n| a |\n<!-- end -->\n"
