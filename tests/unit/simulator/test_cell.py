"""Cells, their names, and the arguments that make them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli import main as command_line
from cli.simulate import cells_of
from fleet.config import ConfigError
from router.config import RouterConfig
from router.config import load as load_router
from router.policy.parameters import PolicyParameterError
from simulator.batch import Store
from simulator.cell import Cell, CellError, Sample, seconds_of
from simulator.code_state import versions
from simulator.inputs import blocks_of, files_of

CELL = Cell(wind="synthetic-far", first_day=1, last_day=1, trace="synthetic-conv")


def resolve(name: str) -> Path:
    raise FileNotFoundError(name)


def cells(*words: str) -> list[Cell]:
    return cells_of(command_line.parse(["simulate", *words]))


def test_durations_and_samples_are_read() -> None:
    """As a person writes them."""
    assert seconds_of("1h30m") == 5400
    assert Sample.parse("6h:15m:5m") == Sample(every_seconds=21_600, seconds=900, warm_up_seconds=300)
    for text in ("1d:10m:4m", "1d:10m:4m:2h"):
        assert Sample.parse(str(Sample.parse(text))) == Sample.parse(text)
    assert Sample.parse("1d:10m:4m:2h").offset_seconds == 7200


def test_every_seed_has_its_own_hours() -> None:
    """Spread over the distance of two blocks however many there are; the first keeps what was asked for."""
    one = Sample.parse("27h:10m:4m")
    assert one.at_seed(1) == one
    assert [one.at_seed(seed).offset_seconds // 3600 for seed in range(1, 7)] == [0, 9, 18, 3, 12, 21]
    assert Sample.parse("27h:10m:4m:20h").at_seed(2).offset_seconds == 2 * 3600


@pytest.mark.parametrize(
    "text",
    ["6h:15m", "15m:6h:5m", "6h:5m:15m", "6h:x:5m", "", "6h:15m:5m:6h", "6h:15m:5m:1h:1h", "6h:15m:5m:"],
)
def test_a_sample_that_cannot_be_meant_is_refused(text: str) -> None:
    """With what was expected."""
    with pytest.raises(CellError):
        Sample.parse(text)


def test_blocks_are_spread_over_the_days() -> None:
    """Every so often, and the whole as one where there is no sample."""
    assert blocks_of(CELL.with_(sample=Sample.parse("6h:15m:5m"))) == [
        (start, 900, 300) for start in (0, 21_600, 43_200, 64_800)
    ]
    assert [start for start, _, _ in blocks_of(CELL.with_(sample=Sample.parse("6h:15m:5m:1h")))] == [
        3600,
        25_200,
        46_800,
        68_400,
    ]
    assert blocks_of(CELL) == [(0, 86_400, 300)]


def test_a_sample_beyond_the_days_is_refused() -> None:
    """There would be nothing to count."""
    with pytest.raises(CellError, match="counts nothing"):
        CELL.with_(sample=Sample.parse("2d:10m:4m:1d")).check()


def test_a_cell_is_named_by_what_it_depends_on(tmp_path: Path) -> None:
    """Another seed or another state of the code is another result; the same is found again."""
    assert CELL.key("a") == CELL.with_().key("a")
    assert len({CELL.key("a"), CELL.key("b"), CELL.key("a", "c"), CELL.with_(seed=2).key("a")}) == 4
    store = Store(tmp_path, resolve)
    assert store.find(CELL) is None
    store.keep(CELL, {"result": 1})
    assert store.find(CELL) == {"result": 1}
    assert store.find(CELL.with_(load=0.6)) is None
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_changed_is_another_result(tmp_path: Path) -> None:
    """Wind or load: by what the file says, not by where it lies."""
    wind, load = tmp_path / "wind.csv", tmp_path / "load.csv"
    wind.write_text("wind")
    load.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
    cell = CELL.with_(wind=str(wind), trace=str(load))
    store = Store(tmp_path / "cache", Path)
    store.keep(cell, {"result": 1})
    assert store.find(cell) == {"result": 1}
    for file in (wind, load):
        before = file.read_text()
        file.write_text(before + "more")
        assert store.find(cell) is None
        file.write_text(before)
        assert store.find(cell) == {"result": 1}
    other = tmp_path / "other"
    other.mkdir()
    copies = [file.rename(other / file.name) for file in (wind, load)]
    assert Store(tmp_path / "cache", {str(wind): copies[0], str(load): copies[1]}.__getitem__).find(cell)


def test_a_cells_files_are_those_that_it_reads(tmp_path: Path) -> None:
    """Wind first; a load per bin takes its sizes from a file of requests; what is synthetic reads none."""
    bins = tmp_path / "my_code.csv"
    bins.write_text("Time,TIMESTAMP\n")

    def find(name: str) -> Path:
        return bins if name == "mine" else Path(name)

    def names(**changes: str) -> list[str]:
        return [path.name for path in files_of(CELL.with_(**changes), find)]

    assert names() == []
    assert names(wind="w", trace="conv-2023") == ["w", "azure-2023-conv"]
    assert names(trace="code-2024") == ["azure-2024-code-10s", "azure-2023-code"]
    assert names(trace="both-2024") == [
        "azure-2024-conv-10s",
        "azure-2023-conv",
        "azure-2024-code-10s",
        "azure-2023-code",
    ]
    assert names(trace="mine") == ["my_code.csv", "azure-2023-code"]


def test_the_state_of_the_code_has_the_versions_of_what_computes() -> None:
    """Another solver is another result."""
    assert re.fullmatch(r"python 3\.[0-9.]+, highspy \S+, numpy [0-9.]+", versions())


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
        (("--policy-parameters", "/nowhere.toml"), "/nowhere.toml"),
        (("--load", "nan"), "load = nan: must be above 0"),
        (("--load", "inf"), "load = inf: must be above 0, and at most 10"),
        (("--load", "0"), "load = 0: must be above 0"),
        (("--load", "-1"), "load = -1: must be above 0"),
        (("--days", "2:1"), "days 2:1: days count from 1"),
        (("--days", "0:1"), "days 0:1: days count from 1"),
        (("--size-percentile", "101"), "size_percentile = 101: allowed is 0 to 100"),
        (("--report-delay-seconds", "-1"), "report_delay_seconds = -1: allowed is 0 to 3600"),
        (("--report-loss-ratio", "1.5"), "report_loss_ratio = 1.5: allowed is 0 to 1"),
        (("--turbulence-ratio", "nan"), "turbulence_ratio = nan: allowed is 0 to 1"),
        (("--forecast-error-ratio", "-0.1"), "forecast_error_ratio"),
        (("--length-error-ratio", "inf"), "length_error_ratio"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], message: str) -> None:
    """Before anything runs, naming it."""
    with pytest.raises((CellError, ConfigError, PolicyParameterError), match=message):
        cells(*words)


def test_circumstances_reach_the_cell() -> None:
    """How late and incomplete reports are, how the wind moves, how wrong estimates are, whether one plans."""
    words = "--report-delay-seconds 3 --report-loss-ratio 0.1 --turbulence-ratio 0 --constant-power"
    words += " --forecast-error-ratio 0.4 --length-error-ratio 0.5 --planner on --policy heron,planned"
    words += " --trips-per-day 12"
    for cell in cells(*words.split()):
        assert cell.report_delay_seconds == 3
        assert cell.report_loss_ratio == 0.1
        assert cell.turbulence_ratio == 0
        assert cell.constant_power
        assert cell.trips_per_day == 12
        assert cell.forecast_error_ratio == 0.4
        assert cell.length_error_ratio == 0.5
        assert cell.has_planner
    assert not any(cell.has_planner for cell in cells("--planner", "off", "--policy", "planned"))
    assert [cell.has_planner for cell in cells("--policy", "heron,planned")] == [False, True]


def test_the_default_policy_is_the_routers() -> None:
    """Who names none simulates what runs live."""
    assert [cell.policy for cell in cells()] == [RouterConfig.model_fields["policy"].default]


def test_router_and_simulator_take_the_same_parameter_file(tmp_path: Path) -> None:
    """By the same option, with the same words for what is wrong."""
    path = tmp_path / "policies.toml"
    path.write_text("[power_weighted]\nage_seconds = 900\n[heron]\npacking = 0.5\n")
    option = ("--policy-parameters", str(path))
    found = {cell.policy: dict(cell.parameters) for cell in cells("--policy", "all", *option)}
    arguments = command_line.parse(["router", "--policy", "heron", *option])
    _, config = load_router(None, {}, parameters=arguments.policy_parameters)
    assert found["power_weighted"] == config.policy_parameters["power_weighted"] == {"age_seconds": 900}
    assert found["heron"] == config.policy_parameters["heron"] == {"packing": 0.5}
    assert found["round_robin"] == {}
    path.write_text("[heron]\nspeed = 1\n")
    messages = []
    for read in (lambda: cells(*option), lambda: load_router(None, {}, parameters=path)):
        with pytest.raises(ConfigError, match=r"heron\.speed = 1: no such parameter") as raised:
            read()
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_a_fault_is_read() -> None:
    """Where, when and for how long."""
    [cell] = cells("--fault", "trip:all:6m:30s")
    [fault] = cell.faults
    assert (fault.kind, fault.site_id, fault.at_seconds, fault.seconds) == ("trip", None, 360.0, 30.0)
