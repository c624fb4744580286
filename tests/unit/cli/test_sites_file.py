"""The file of `--sites`: what it may say, and that what it may not say is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.sites_file import ROUTER_KEYS, SitesFile, read_sites_file
from fleet.config import ConfigError


def test_no_file_changes_nothing() -> None:
    """The default fleet."""
    assert read_sites_file(None) == SitesFile()


def test_everything_that_it_may_say_is_read(tmp_path: Path) -> None:
    """As a cell holds it: keys in order, lists as tuples, only what is there."""
    path = tmp_path / "sites.toml"
    path.write_text(
        "count = 4\nsites_per_farm = 2\nround_trip_seconds = 0\n"
        '[site]\ninstances = 4\nother_profile_ids = ["llama-3.1-70b/h100/tp2"]\n'
        "[governor]\nrest_seconds = 0\n[router]\nhold_seconds = 5\n"
        '[planner]\npower_quantile = "p10"\nmax_nodes = 50\n'
    )
    assert read_sites_file(path) == SitesFile(
        count=4,
        sites_per_farm=2,
        round_trip_seconds=0.0,
        site=(("instances", 4), ("other_profile_ids", ("llama-3.1-70b/h100/tp2",))),
        governor=(("rest_seconds", 0.0),),
        router=(("hold_seconds", 5.0),),
        planner=(("max_nodes", 50), ("power_quantile", "p10")),
    )


def test_each_site_can_be_another(tmp_path: Path) -> None:
    """They are counted by themselves."""
    path = tmp_path / "sites.toml"
    path.write_text(
        '[[sites]]\nwind = "farm3"\n[[sites]]\ncontrol = "gpu_idling"\nround_trip_seconds = 0.1\n'
    )
    found = read_sites_file(path)
    assert found.count == 2
    assert found.each_site == (
        (("wind", "farm3"),),
        (("control", "gpu_idling"), ("round_trip_seconds", 0.1)),
    )


def test_files_of_profiles_are_relative_to_the_file(tmp_path: Path) -> None:
    """Names of shipped ones stay as they are."""
    path = tmp_path / "sites.toml"
    path.write_text(
        '[site]\nprofile_id = "mine.json"\n'
        '[[sites]]\nother_profile_ids = ["/a/b.json", "llama-3.1-70b/h100/tp2"]\n'
    )
    found = read_sites_file(path)
    assert dict(found.site)["profile_id"] == str(tmp_path / "mine.json")
    assert dict(found.each_site[0])["other_profile_ids"] == ("/a/b.json", "llama-3.1-70b/h100/tp2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("router = 3", r"router = 3: must be a table: \[router\]"),
        ("[router]\nfoo = 1", r"\[router\] foo: no such key; allowed are .*hold_seconds"),
        ('[router]\npolicy = "heron"', r"\[router\] policy: no such key"),
        ("[router]\nhold_seconds = -1", r"\[router\] hold_seconds = -1: .*greater than or equal to 0"),
        ('count = "a"', r"toml: count = 'a': .*integer"),
        ("count = 0", r"count = 0: .*greater than or equal to 1"),
        ("sites_per_farm = 0", r"sites_per_farm = 0: .*greater than or equal to 1"),
        ("count = 201", r"count = 201: .*less than or equal to 200"),
        ("round_trip_seconds = nan", r"round_trip_seconds = nan: .*finite"),
        ('[site]\nmax_concurrency = "a"', r"\[site\] max_concurrency = 'a': .*integer"),
        ("[site]\nround_trip_seconds = 1", r"\[site\] round_trip_seconds = 1: no such key"),
        ("[site]\nfoo = 1", r"\[site\] foo = 1: no such key; allowed are instances"),
        ("[site]\ninstances = 0", r"\[site\] instances = 0"),
        ("[sites]\ninstances = 1", r"sites must be tables: \[\[sites\]\]"),
        ("count = 2\n[[sites]]\n", r"count = 2, and 1 \[\[sites\]\]"),
        ('[[sites]]\ncontrol = "best"', r"\[sites 1\] control = 'best': .*governed"),
        ("[governor]\nenabled = false", r"\[governor\] enabled: no such key"),
        ("[governor]\nrest_seconds = -1", r"\[governor\] rest_seconds = -1"),
        ("[planner]\nspeed = 1", r"\[planner\] speed = 1: no such key"),
        ("[planner]\ngap_ratio = -1", r"\[planner\] gap_ratio = -1.0: must be 0 or more"),
        ("[planner]\ngap_ratio = nan", r"\[planner\] gap_ratio = nan"),
        ('[planner]\npower_quantile = "p1"', r"\[planner\] power_quantile = 'p1'"),
        ("fleet = 1", "no such key: fleet"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the file, the table, the key and what is allowed."""
    path = tmp_path / "sites.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_sites_file(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    "key", ['profile_id = "~nosuchuser/x.json"', 'other_profile_ids = ["~nosuchuser/x.json"]']
)
def test_a_home_that_nobody_has_is_refused(tmp_path: Path, key: str) -> None:
    """With the table and the path."""
    path = tmp_path / "fleet.toml"
    path.write_text(f"[site]\n{key}\n")
    with pytest.raises(ConfigError, match=r"\[site\] ~nosuchuser/x\.json: there is no such home"):
        read_sites_file(path)


def test_the_routers_keys_are_those_of_a_fleets_file() -> None:
    """Time constants and limits; what has an argument of its own is not among them."""
    assert "hold_seconds" in ROUTER_KEYS
    assert not {"policy", "resume", "class_slos", "has_planner"} & set(ROUTER_KEYS)
