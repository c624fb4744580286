"""Cells, their names, and the arguments that make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import main as command_line
from cli.simulate import cells_of
from fleet.config import ConfigError
from router.policy.parameters import PolicyParameterError
from simulator.batch import Store
from simulator.cell import Cell, CellError, Sample, seconds_of
from simulator.inputs import blocks_of

CELL = Cell(wind="synthetic-far", first_day=1, last_day=1, trace="synthetic-conv")


def cells(*words: str) -> list[Cell]:
    return cells_of(command_line.parse(["simulate", *words]))


def test_durations_and_samples_are_read() -> None:
    """As a person writes them."""
    assert seconds_of("1h30m") == 5400
    assert Sample.parse("6h:15m:5m") == Sample(every_seconds=21_600, seconds=900, warm_up_seconds=300)
    assert Sample.parse(str(Sample.parse("1d:10m:4m"))) == Sample.parse("1d:10m:4m")


@pytest.mark.parametrize("text", ["6h:15m", "15m:6h:5m", "6h:5m:15m", "6h:x:5m", ""])
def test_a_sample_that_cannot_be_meant_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(CellError):
        Sample.parse(text)


def test_blocks_are_spread_over_the_days() -> None:
    """Every so often, and the whole as one where there is no sample."""
    assert blocks_of(CELL.with_(sample=Sample.parse("6h:15m:5m"))) == [
        (start, 900, 300) for start in (0, 21_600, 43_200, 64_800)
    ]
    assert blocks_of(CELL) == [(0, 86_400, 300)]


def test_a_cell_is_named_by_what_it_depends_on(tmp_path: Path) -> None:
    """Another seed or another state of the code is another result; the same is found again."""
    assert CELL.key("a") == CELL.with_().key("a")
    assert len({CELL.key("a"), CELL.key("b"), CELL.with_(seed=2).key("a")}) == 3
    store = Store(tmp_path)
    assert store.find(CELL) is None
    store.keep(CELL, {"result": 1})
    assert store.find(CELL) == {"result": 1}
    assert store.find(CELL.with_(load=0.6)) is None
    assert not list(tmp_path.rglob("*.part"))


def test_each_policy_and_seed_is_a_cell() -> None:
    """With the same wind and load."""
    found = cells("--policy", "heron,round_robin", "--seeds", "2", "--load", "0.7", "--resume", "off")
    assert [(one.policy, one.seed) for one in found] == [
        ("heron", 1),
        ("heron", 2),
        ("round_robin", 1),
        ("round_robin", 2),
    ]
    assert {one.load for one in found} == {0.7}
    assert not any(one.resume for one in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "best"), "no policy 'best'"),
        (("--days", "fts-127"), "expected A:B"),
        (("--seeds", "0"), "at least 1"),
        (("--fault", "crash:area1"), "KIND:SITE:AT:FOR"),
        (("--fault", "flood:area1:1m:1m"), "crash, trip, silence"),
        (("--sites", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], message: str) -> None:
    """Before anything runs, naming it."""
    with pytest.raises((CellError, ConfigError, PolicyParameterError), match=message):
        cells(*words)


def test_a_fault_is_read() -> None:
    """Where, when and for how long."""
    [cell] = cells("--fault", "trip:all:6m:30s")
    [fault] = cell.faults
    assert (fault.kind, fault.site_id, fault.at_seconds, fault.seconds) == ("trip", None, 360.0, 30.0)
