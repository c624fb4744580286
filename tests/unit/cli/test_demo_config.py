"""What the demo runs: its powers, its scenarios, its configuration file."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from cli import demo_config
from cli.demo_config import (
    SCENARIOS,
    SIZES,
    DemoOptions,
    Scenario,
    VllmEngine,
    WindFile,
    demo_tables,
    schedule,
)
from cli.toml_text import to_toml
from cli.topology import build_topology
from power_feed.true_power import TruePower

OPTIONS = DemoOptions(
    run_directory=Path("/run dir"),
    ports=range(9001, 9011),
    site_token="token",
    seconds=60.0,
)
WIND = WindFile(path=Path("/wind.csv"), columns={"north": "Area1", "coast": "Area5", "ridge": "Area3"})
VLLM = VllmEngine(command=("/opt/vllm",), model_path="/models/tiny", gpus_per_instance=0)
SIZE = SIZES["emulated"]


def test_the_floor_is_just_above_stopped_engines() -> None:
    """The scenarios cap a site at 1.1 × the draw of stopped engines, where one awake engine is too many."""
    assert SIZE.idle_watts == pytest.approx((3 * 280 + 600) * 1.1)
    grant = SIZE.floor_ratio * SIZE.nameplate_watts
    assert grant == pytest.approx(1.1 * SIZE.idle_watts / (1 - demo_config.MARGIN_RATIO))
    cap = demo_config.cap_rule(replace(OPTIONS, scenario="sudden-drop")).cap_watts(grant)
    assert cap == pytest.approx(SIZE.floor_cap_watts)
    one_awake = demo_config.POWER_MODEL.site_watts(2 * 280 + demo_config.PROFILE.idle_watts)
    assert SIZE.idle_watts < cap < one_awake


def test_strong_wind_lets_a_site_run_at_full_power() -> None:
    """The scenarios' strong wind grants more than the site's maximum, margin taken off."""
    for engine, size in SIZES.items():
        rule = demo_config.cap_rule(replace(OPTIONS, engine=engine, scenario="calm"))
        cap = rule.cap_watts(demo_config.STRONG_WIND_RATIO * size.nameplate_watts)
        assert cap == size.max_site_watts > size.peak_watts


@pytest.mark.parametrize(
    ("scenario", "site_id", "expected"),
    [
        ("calm", "coast", [(0.0, "strong")]),
        ("site-crash", "coast", [(0.0, "strong")]),
        ("sudden-drop", "north", [(0.0, "strong")]),
        ("sudden-drop", "coast", [(0.0, "strong"), (20.0, "floor"), (40.0, "strong")]),
        ("all-dark", "north", [(0.0, "strong"), (20.0, "floor"), (35.0, "strong")]),
        ("all-dark", "coast", [(0.0, "strong"), (20.0, "floor"), (35.0, "strong")]),
    ],
)
def test_schedules(scenario: Scenario, site_id: str, expected: list[tuple[float, str]]) -> None:
    """What falls falls at a third of the run; it comes back at two thirds, or after 15 s if all are dark."""
    names = {demo_config.STRONG_WIND_RATIO: "strong", SIZE.floor_ratio: "floor"}
    points = schedule(replace(OPTIONS, scenario=scenario), site_id)
    assert [(at, names[ratio]) for at, ratio in points] == expected


def test_only_site_crash_kills_an_agent() -> None:
    """It is killed at a third of the run and started again at two thirds."""
    assert demo_config.crash_at_seconds(replace(OPTIONS, scenario="site-crash")) == (20.0, 40.0)
    assert demo_config.crash_at_seconds(replace(OPTIONS, scenario="sudden-drop")) is None
    assert demo_config.crash_at_seconds(OPTIONS) is None


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scripted_wind_needs_no_firm_power(scenario: Scenario) -> None:
    """A scenario's wind never falls below the draw of stopped engines, so no firm power is assumed."""
    options = replace(OPTIONS, scenario=scenario)
    assert demo_config.cap_rule(options).safe_floor_watts == 0.0
    lowest = min(ratio for site in options.sites for _, ratio in schedule(options, site))
    assert lowest * SIZE.nameplate_watts * (1 - demo_config.MARGIN_RATIO) > SIZE.idle_watts


@pytest.mark.parametrize(
    "options", [OPTIONS, replace(OPTIONS, wind=WIND), replace(OPTIONS, wind=WIND, scenario="sudden-drop")]
)
def test_wind_that_may_be_nothing_comes_with_named_firm_power(options: DemoOptions) -> None:
    """Real and synthetic wind assume a safe floor, and the configuration names what gives it."""
    site = demo_tables(options)["sites"][0]
    assert site["safe_floor_watts"] == SIZE.floor_cap_watts
    assert "the demo's assumption" in site["firm_power_source"]


def test_wind_columns_go_to_their_sites() -> None:
    """`--wind` makes each site's farm follow its own column."""
    farms = demo_tables(replace(OPTIONS, wind=WIND, wind_speed=60.0))["power_feed"]["farms"]
    assert [(farm["site_id"], farm["source"]["column"]) for farm in farms] == list(WIND.columns.items())


def test_a_scenario_over_a_wind_file_only_takes_wind_away() -> None:
    """With both, a site gets the lesser: the file's wind, and in the fall the script's."""
    farms = demo_tables(replace(OPTIONS, wind=WIND, scenario="sudden-drop"))["power_feed"]["farms"]
    script, wind = farms[1]["source"]["of"]
    assert (script["kind"], wind["kind"]) == ("schedule", "csv")
    assert min(script["points"][0][1], script["points"][2][1]) > 1.0
    assert script["points"][1][1] == SIZE.floor_ratio


def test_every_port_is_used_once() -> None:
    """Redis, router, its operations, the feed, and two ports a site: all different."""
    tables = demo_tables(OPTIONS)
    used = [int(tables["fleet"]["redis_url"].split(":")[2].split("/")[0])]
    used += [tables["router"]["port"], tables["router"]["operations_port"], tables["power_feed"]["port"]]
    used += [site[key] for site in tables["sites"] for key in ("port", "operations_port")]
    assert sorted(used) == list(range(9001, 9011))
    assert demo_config.ports_needed("emulated") == 10


def test_seeds_differ_between_sites_and_runs() -> None:
    """No two fake GPUs make the same noise, and another seed makes other noise."""
    seeds = [
        site["engine"]["seed"]
        for seed in (0, 1)
        for site in demo_tables(replace(OPTIONS, seed=seed))["sites"]
    ]
    assert len(set(seeds)) == len(seeds) == 6


@pytest.mark.parametrize(
    "options",
    [
        OPTIONS,
        *(replace(OPTIONS, scenario=scenario) for scenario in SCENARIOS),
        replace(OPTIONS, engine="vllm", vllm=VLLM, scenario="calm"),
    ],
    ids=["synthetic", *SCENARIOS, "vllm"],
)
def test_the_services_accept_the_configuration(options: DemoOptions, tmp_path: Path) -> None:
    """Router, feed and every agent read the file; the agents' cap rule is the judge's, and so is the wind."""
    path = tmp_path / "heron.toml"
    path.write_text(to_toml(demo_tables(options)))
    topology = build_topology(path, {}, redis=None)
    assert [site.site_id for site in topology.sites] == list(options.sites)
    assert {site.cap_rule() for site in topology.sites} == {demo_config.cap_rule(options)}
    assert {site.ride_through() for site in topology.sites} == {demo_config.ride_through(options)}
    assert {site.site_model().server_idle_watts for site in topology.sites} == {options.size.idle_watts}
    assert topology.feed is not None
    wind = TruePower(topology.feed, start_unix_seconds=1000.0)
    if options.scenario == "sudden-drop":
        watts = [wind.available_watts("coast", at) for at in (1019.0, 1021.0, 1041.0)]
        strong, low = (
            demo_config.STRONG_WIND_RATIO * SIZE.nameplate_watts,
            SIZE.floor_ratio * SIZE.nameplate_watts,
        )
        assert watts == [strong, low, strong]


def test_tables_survive_the_file() -> None:
    """What is written reads back as what was meant, a path with a space too."""
    tables = tomllib.loads(to_toml(demo_tables(replace(OPTIONS, scenario="sudden-drop"))))
    assert tables["power_feed"]["farms"][1]["source"]["points"][1] == [20.0, SIZE.floor_ratio]
    assert tables["sites"][2]["state_dir"] == "/run dir/sites/ridge"
