"""What `heron simulate` prints fits the terminal, whatever was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from cli.simulate_show import show
from router.policy.policies import POLICIES
from simulator.cell import Cell, Sample

LOAD = {
    "description": "constant",
    "mean_requests_per_second": 10.0,
    "peak_requests_per_second": 50.0,
    "nameplate_watts": {"area1": 1e6, "area2": 2e6},
}
CELL = Cell(
    wind="/data/fts213_Wind_data.csv", first_day=127, last_day=133, sample=Sample.parse("6h:15m:5m:2h")
)


def cell(policy: str, seed: int, *, off: float = 0.0) -> dict[str, Any]:
    """A run of a whole week, whose figures are long; `off` sets it apart from other seeds'."""
    times = {"p50": 1.234, "p99": 123.456 + off}
    part = {
        "offered": 15_123_456,
        "shed": 1_512_345 + round(1e6 * off),
        "broken": 12_345 + round(100 * off),
        "resumed": 1234,
        "offered_requests_per_second": 25.0,
        "goodput_requests_per_second": 12.0,
        "slo_attainment_ratio": 0.8815 - off / 10,
        "served_ratio": 0.9,
        "ttft_seconds": times,
        "e2e_seconds": times,
    }
    found = {
        "all": part,
        "load": LOAD,
        "cap_exceeded_seconds": 1234.5 + off,
        "joules_per_output_token": 3.21 + off,
    }
    return {"cell": CELL.with_(policy=policy, seed=seed).as_dict(), "result": found}


def printed(
    columns: int,
    cells: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(cells)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= columns
    assert not any("…" in line for line in lines)
    return lines


@pytest.mark.parametrize("seeds", [1, 3, 9])
def test_all_policies_are_one_table_of_eighty_characters(
    seeds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row each, with all its figures, however many seeds; below the means what they are sure to."""
    cells = [cell(name, seed, off=seed / 10) for name in sorted(POLICIES) for seed in range(1, seeds + 1)]
    lines = printed(80, cells, monkeypatch, capsys)
    for name in POLICIES:
        [at] = [index for index, line in enumerate(lines) if line.startswith(f"{name} ")]
        assert len(lines[at].split()) == 8
        below = lines[at + 1].split()
        assert len(below) == 7 and below[0].startswith("±") if seeds > 1 else "±" not in lines[at + 1]
    assert any(f"over {seeds} seeds" in line for line in lines) == (seeds > 1)


@pytest.mark.parametrize("columns", [40, 60])
def test_a_narrow_terminal_has_a_table_for_each_policy(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure a line, none of them cut."""
    cells = [cell(name, seed, off=seed / 10) for name in ("heron", "static_weighted") for seed in (1, 2)]
    lines = printed(columns, cells, monkeypatch, capsys)
    text = "\n".join(lines)
    assert text.count("123.61 ± 0.64") == 2
    assert text.count("3.36 ± 0.64") == 2
    assert "static_weighted" in text


def test_one_policy_has_all_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named in full."""
    lines = printed(80, [cell("heron", 1)], monkeypatch, capsys)
    assert any("share of the offered requests within the SLO   │  88.15% │" in line for line in lines)
    assert any("requests refused " in line and "1512345" in line for line in lines)


@pytest.mark.parametrize(("seeds", "told"), [(1, "seed 1"), (3, "seeds 1–3")])
def test_the_head_says_what_was_simulated(
    seeds: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wind, days, sample, sites and their size, load, seeds."""
    lines = printed(80, [cell("heron", seed) for seed in range(1, seeds + 1)], monkeypatch, capsys)
    head = " ".join(line.strip() for line in lines[:3])
    assert head.startswith(
        "fts213_Wind_data.csv: days 127–133, sample 21600s:900s:300s:7200s; 2 sites sized at p40 "
        f"conv-2024 at load 0.5, sizes of 2023, bursty; {told}"
    )
