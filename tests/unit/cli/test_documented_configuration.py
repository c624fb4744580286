"""Every TOML block of the documentation is read by the services that it is for."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.measured import document_of, row_of
from support.signing_keys import SigningKeys

import power_feed.config
import router.config
import site_agent.config
from cli.sites_file import read_sites_file
from cli.toml_text import to_toml
from fleet.profile import PROFILES

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "deploy" / "README.md"]
SERVICES = {"fleet", "router", "power_feed", "sites"}
FEED = {
    "farms": [
        {"farm_id": "farm", "nameplate_watts": 1e5, "site_id": "north", "source": {"kind": "synthetic"}}
    ]
}
ENGINE = {
    "kind": "vllm",
    "model": "llama-3.1-70b",
    "instances": 2,
    "model_path": "meta-llama/Llama-3.1-70B",
    "gpus_per_instance": 4,
    "other_tensor_parallel_degrees": [8],
}


def blocks() -> list[Any]:
    """(page:line, text) of each."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.finditer(text):
            name = f"{page.relative_to(ROOT)}:{text[: block.start()].count(chr(10)) + 1}"
            found.append(pytest.param(block[1], id=name))
    return found


def completed(tables: dict[str, Any]) -> dict[str, Any]:
    """With what a fragment leaves to the file that it is put into: its site, engine or farm."""
    made = dict(tables)
    sites = made.get("sites", [])
    made["sites"] = [
        {"site_id": "north", "farm_id": "farm", "state_dir": "state", **one}
        for one in (sites if isinstance(sites, list) else [sites])
    ]
    for site in made["sites"]:
        if "engine" in site and "kind" not in site["engine"]:
            site["engine"] = {**ENGINE, **site["engine"]}
    feed = made.get("power_feed")
    if feed and isinstance(feed.get("farms"), dict):
        farm = {"farm_id": "farm", "nameplate_watts": 100_000, "source": {"kind": "synthetic"}}
        made["power_feed"] = {**feed, "farms": [{**farm, **feed["farms"]}]}
    return made


def with_keys(tables: dict[str, Any], directory: Path) -> dict[str, Any]:
    """With real keys where the page shows their beginning, and each service's own, as it says in words."""
    keys, trusted = SigningKeys(), tables.get("fleet", {}).get("trusted_keys")
    if trusted is None:
        return tables
    shown = [
        *trusted["power_feed"],
        *trusted["router"],
        *trusted["operator"],
        *itertools.chain(*trusted["sites"].values()),
    ]
    assert set(shown) == {f"{keys.public('any')[:16]}…"}
    made = dict(tables)
    made["fleet"] = {
        **tables["fleet"],
        "trusted_keys": keys.trusted(*trusted["sites"]).model_dump(mode="json"),
    }
    keys.write(directory, "power_feed").rename(directory / tables["power_feed"]["signing_key_file"])
    made["power_feed"] = {**FEED, **tables["power_feed"]}
    made["router"] = {"signing_key_file": keys.write(directory, "router").name}
    made["sites"] = [
        {"site_id": name, "signing_key_file": keys.write(directory, name).name} for name in trusted["sites"]
    ]
    return made


@pytest.mark.parametrize("text", blocks())
def test_a_documented_configuration_loads(tmp_path: Path, text: str) -> None:
    """No key that is not there, no value that is refused, nothing that the page forgot."""
    tables = tomllib.loads(text)
    file = tmp_path / "fleet.toml"
    if not tables.keys() <= SERVICES:  # of `heron simulate --sites`
        file.write_text(text)
        assert read_sites_file(file).each_site
        return
    for name, degree in (("mine", 4), ("mine-tp8", 8)):  # as a sweep would leave them
        profile = PROFILES[f"llama-3.1-70b/h100/tp{degree}"]
        rows = [row_of(profile, batch, 512, clock) for batch in (1, 8, 64) for clock in (800, 1980)]
        made = document_of(rows, tensor_parallel_degree=degree)
        (tmp_path / f"{name}.json").write_text(made.model_dump_json())
    authority = Authority(tmp_path)
    for name in ("client", "north"):
        authority.sign(name)
    tables = completed(with_keys(tables, tmp_path))
    file.write_text(to_toml({name: table for name, table in tables.items() if table}))
    router.config.load(file, {})
    if "power_feed" in tables:
        assert power_feed.config.load(file, {})[1].farms
    for site in tables["sites"]:
        site_agent.config.load(file, site["site_id"], {})


def test_there_are_blocks() -> None:
    """Else the test above says nothing."""
    assert len(blocks()) > 12
