"""The examples of docs/power_feed.md are configurations that load, and whose sources can be built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from power_feed.config import load
from power_feed.sources.registry import build_sources

PAGE = Path(__file__).parents[3] / "docs" / "power_feed.md"
EXAMPLES = [
    block
    for block in re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    if re.search(r'kind = "(modbus|opcua|mqtt|http)"', block)
]


def test_every_protocol_has_an_example() -> None:
    """Else the next test would pass over nothing."""
    kinds = {kind for block in EXAMPLES for kind in re.findall(r'kind = "(\w+)"', block)}
    assert kinds == {"modbus", "opcua", "mqtt", "http"}


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_can_be_copied(example: str, tmp_path: Path) -> None:
    """As it stands."""
    path = tmp_path / "fleet.toml"
    path.write_text(example)
    _, config = load(path, {})
    assert len(build_sources(config, start_unix_seconds=0.0)) == 1
