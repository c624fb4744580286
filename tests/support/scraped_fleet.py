"""A small real fleet, made from the Compose fleet's file, and a real Prometheus that scrapes it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from cli.ports import free_ports
from cli.toml_text import to_toml
from support.heron_command import HERON
from support.processes import kill_all_with, pids_with
from support.programs import need

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "deploy" / "compose" / "fleet.toml"
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
GPU_SITE = "plains"
LOOPBACK = "127.0.0.1"


def wait_until(condition: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> None:
    """Return once `condition()` is true; else fail with what `what()` then says."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what()}"
        time.sleep(0.1)


@dataclass(frozen=True, kw_only=True)
class Scraped:
    """A running fleet and the Prometheus that scrapes it."""

    base_url: str
    prometheus_url: str
    alertmanager_url: str
    expected_targets: frozenset[str]

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of Prometheus' API; its errors fail the test."""
        answer = httpx.get(f"{self.prometheus_url}/api/v1/{path}", params=parameters, trust_env=False)
        page = answer.json()
        assert page["status"] == "success", f"{parameters}: {page.get('error')}"
        return page["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def targets(self) -> dict[str, str]:
        """Address → health of every target."""
        active = self.get("targets", state="active")["activeTargets"]
        return {target["discoveredLabels"]["__address__"]: target["health"] for target in active}

    def ask(self) -> None:
        """One streamed request through the router, to its end."""
        body = {"model": "llama-3.1-70b", "prompt": "one two three", "max_tokens": 4, "stream": True}
        answer = httpx.post(f"{self.base_url}/v1/completions", json=body, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text


@contextmanager
def scraped_fleet(directory: Path) -> Iterator[Scraped]:
    """The Compose fleet without its GPU site, on free loopback ports, by `heron up`; and Prometheus."""
    prometheus = need("prometheus", "prometheus")
    tables, addresses = _on_loopback(tomllib.loads(FLEET.read_text()), directory)
    (directory / "fleet.toml").write_text(to_toml(tables))
    marker = f"TEST_OF_HERON={directory}"
    router = tables["router"]
    try:
        with _running([*HERON, "up", "--config", str(directory / "fleet.toml")], directory, "fleet"):
            operations = f"http://{LOOPBACK}:{router['operations_port']}"
            log = directory / "fleet.log"
            wait_until(
                lambda: _answers(f"{operations}/readyz"), seconds=60, what=lambda: log.read_text()[-4000:]
            )
            port = free_ports(1)[0]
            addresses["127.0.0.1:9090"] = f"{LOOPBACK}:{port}"  # Prometheus reads itself
            with contextlib.ExitStack() as stack:
                alerts_url = stack.enter_context(alertmanager(ALERTMANAGER, directory))
                addresses["alertmanager:9093"] = alerts_url.removeprefix("http://")
                config = _prometheus_config(addresses, directory)
                command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}"]
                command.append(f"--web.listen-address={LOOPBACK}:{port}")
                stack.enter_context(_running(command, directory, "prometheus"))
                url = f"http://{LOOPBACK}:{port}"
                log = directory / "prometheus.log"
                wait_until(
                    lambda: _answers(f"{url}/-/ready"), seconds=30, what=lambda: log.read_text()[-4000:]
                )
                yield Scraped(
                    base_url=f"http://{LOOPBACK}:{router['port']}",
                    prometheus_url=url,
                    alertmanager_url=alerts_url,
                    expected_targets=frozenset(addresses.values()),
                )
        assert pids_with(marker) == [], "processes are left behind"
    finally:
        kill_all_with(marker)


@contextmanager
def alertmanager(config: Path, directory: Path) -> Iterator[str]:
    """A real Alertmanager with this configuration; its URL."""
    program = need("prometheus-alertmanager", "prometheus-alertmanager")
    address = f"{LOOPBACK}:{free_ports(1)[0]}"
    command = [program, f"--config.file={config}", f"--storage.path={directory / 'alertmanager'}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]
    log = directory / "alertmanager.log"
    with _running(command, directory, "alertmanager"):
        url = f"http://{address}"
        wait_until(lambda: _answers(f"{url}/-/ready"), seconds=30, what=lambda: log.read_text()[-4000:])
        yield url


def _on_loopback(tables: dict[str, Any], directory: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The same fleet on this machine; Compose's address of each metrics page → the one here."""
    sites = [site for site in tables["sites"] if site["site_id"] != GPU_SITE]
    redis_port, port, operations_port, feed_port, *rest = free_ports(4 + 2 * len(sites))
    addresses = {
        f"router:{tables['router']['operations_port']}": f"{LOOPBACK}:{operations_port}",
        f"power-feed:{tables['power_feed']['port']}": f"{LOOPBACK}:{feed_port}",
    }
    tables["fleet"]["redis_url"] = f"redis://{LOOPBACK}:{redis_port}/0"
    tables["router"] |= {"host": LOOPBACK, "operations_host": LOOPBACK, "site_networks": ["127.0.0.0/8"]}
    tables["router"] |= {"port": port, "operations_port": operations_port}
    tables["power_feed"] |= {"host": LOOPBACK, "port": feed_port}
    for number, site in enumerate(sites):
        here = rest[2 * number + 1]
        addresses[f"site-{site['site_id']}:{site['operations_port']}"] = f"{LOOPBACK}:{here}"
        del site["ingress_url"]
        site |= {"host": LOOPBACK, "port": rest[2 * number], "operations_host": LOOPBACK}
        site |= {"operations_port": here, "feed_url": f"http://{LOOPBACK}:{feed_port}"}
        site |= {"state_dir": str(directory / site["site_id"])}
        site["engine"] |= {"instances": 1, "start_seconds": 0.1}
    # wind for certain: this is about metrics
    for farm in tables["power_feed"]["farms"]:
        farm["source"] = {"kind": "schedule", "points": [[0.0, 0.9]]}
    return {**tables, "sites": sites}, addresses


def _prometheus_config(addresses: dict[str, str], directory: Path) -> Path:
    """The shipped configuration with the addresses of here; scraped often, so that the test is short."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    config["scrape_configs"] = [job for job in config["scrape_configs"] if "static_configs" in job]
    for job in [*config["scrape_configs"], *config["alerting"]["alertmanagers"]]:
        for group in job["static_configs"]:
            group["targets"] = [addresses[target] for target in group["targets"]]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def _running(command: list[str], directory: Path, name: str) -> Iterator[None]:
    """A process for as long as the block lasts; its output in `<name>.log`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HERON_")}
    environment["TEST_OF_HERON"] = str(directory)
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
