"""The examples of docs/site.md and docs/vllm.md are configurations that load."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from fleet.config import FleetConfig
from site_agent import config
from site_agent.config import SiteConfig
from site_agent.doctor import Gpus, numbers_of
from site_agent.drivers.options import VllmOptions
from site_agent.meter_options import MeterOptions
from site_agent.promises import findings

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = [
    (page, block)
    for page in ("site.md", "vllm.md")
    for block in re.findall(r"^```toml\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
]
SITE = '[[sites]]\nsite_id = "north"\nfarm_id = "north-farm"\nstate_dir = "north"\n'
"""Before a block that is an engine's table alone."""


def test_the_pages_have_examples() -> None:
    """Else the next test would pass over nothing: a site, foreign engines, TLS, a meter, a profile, vLLM."""
    assert [page for page, _ in EXAMPLES] == ["site.md"] * 5 + ["vllm.md"]


def test_a_site_with_the_meter_rides_through(tmp_path: Path) -> None:
    """The two blocks together: the doctor finds that ladder and lag fit."""
    whole, meter = (
        next(block for _, block in EXAMPLES if table in block) for table in ("[[sites]]", "[sites.meter]")
    )
    path = tmp_path / "fleet.toml"
    path.write_text(whole + meter)
    _, site = config.load(path, None, {})
    [ladder] = [one for one in findings(numbers_of(site, Gpus(findings=()))) if one.check == "ladder"]
    assert ladder.status == "pass", ladder.message


@pytest.mark.parametrize(("page", "block"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_can_be_copied(page: str, block: str, tmp_path: Path) -> None:
    """As it stands, whatever the environment says; keys to add to a table are keys that it has."""
    if "[sites.meter]" in block:
        assert MeterOptions.model_validate(tomllib.loads(block)["sites"]["meter"]).unit == "W"
        return
    if "tls_certificate_file" in block:
        tables = tomllib.loads(block)
        assert set(tables["fleet"]) <= set(FleetConfig.model_fields)
        assert set(tables["sites"][0]) <= set(SiteConfig.model_fields)
        return
    if "kind = " not in block:
        assert set(tomllib.loads(block)["sites"]["engine"]) <= set(VllmOptions.model_fields)
        return
    path = tmp_path / "fleet.toml"
    path.write_text(block if "[[sites]]" in block else SITE + block)
    _, site = config.load(path, None, {})
    assert site.engine.kind == ("external" if "urls" in block else "vllm"), page
    assert site.site_model().full_watts > site.site_model().server_idle_watts
