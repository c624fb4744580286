"""Without the extra `telemetry` everything else works, and a live source says what to install."""

from __future__ import annotations

import sys

import pytest

from fleet.config import ConfigError
from power_feed.config import FeedConfig
from power_feed.sources.registry import build_sources

SOURCES = {
    "pymodbus": {"kind": "modbus", "host": "h", "power": {"address": 0}, "unit": "kW"},
    "asyncua": {"kind": "opcua", "url": "opc.tcp://h:4840", "node": "i=1", "unit": "kW"},
    "aiomqtt": {"kind": "mqtt", "host": "h", "topic": "t", "unit": "kW"},
    "jmespath": {"kind": "http", "url": "http://h/", "json_path": "p", "unit": "kW"},
}
MODULES = {"pymodbus": "modbus", "asyncua": "opcua", "aiomqtt": "mqtt", "jmespath": "http_json"}


@pytest.mark.parametrize("package", SOURCES)
def test_a_missing_package_is_a_configuration_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the farm, the package and the command."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for module in (MODULES[package], "json_reading"):
        monkeypatch.delitem(sys.modules, f"power_feed.sources.{module}", raising=False)
    farm = {"farm_id": "f", "site_id": "s", "nameplate_watts": 1000.0, "source": SOURCES[package]}
    config = FeedConfig.model_validate({"farms": [farm]})
    with pytest.raises(ConfigError, match=r"farm f.*pip install '\.\[telemetry\]' in a checkout") as error:
        build_sources(config, start_unix_seconds=0.0)
    assert package in str(error.value)


def test_an_expression_that_is_none_is_a_configuration_error() -> None:
    """Before anything connects."""
    source = SOURCES["jmespath"] | {"json_path": "a[?"}
    farm = {"farm_id": "f", "site_id": "s", "nameplate_watts": 1000.0, "source": source}
    with pytest.raises(ConfigError, match="is no JMESPath"):
        build_sources(FeedConfig.model_validate({"farms": [farm]}), start_unix_seconds=0.0)
