"""Who is told of what: the shipped file in a real Alertmanager, its rules held to Prometheus' alerts."""

from __future__ import annotations

import itertools
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from support.alert_faults import FAULTS, LATER, READ, RULES
from support.programs import need
from support.scraped_fleet import ALERTMANAGER, PROMETHEUS, alertmanager, wait_until

CONFIG: dict[str, Any] = yaml.safe_load(ALERTMANAGER.read_text())
SEVERITY = {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
SUMMARY = {rule["alert"]: rule["annotations"] for rule in RULES}


def named(matchers: list[str]) -> list[str]:
    """The alerts that these matchers name."""
    name = next(one for one in matchers if one.startswith("alertname"))
    return re.findall(r"Heron\w+", name)


def pairs() -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """Of every rule: what is told, what is not beside it, labels that must be the same, and others."""
    found = []
    for rule in CONFIG["inhibit_rules"]:
        others = [one.split(" ")[0] for one in rule["target_matchers"] if not one.startswith("alertname")]
        for source, target in itertools.product(
            *(named(rule[f"{end}_matchers"]) for end in ("source", "target"))
        ):
            found.append((source, target, tuple(rule.get("equal", ())), tuple(others)))
    return found


@contextmanager
def told(directory: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The shipped rules with a webhook for a receiver and short waits: its URL, what the hook hears."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    route = CONFIG["route"] | {"group_wait": "1s", "group_interval": "1s"}
    route["routes"] = [one | {"group_wait": "1s", "group_interval": "1s"} for one in route["routes"]]
    config = CONFIG | {"receivers": [{"name": "on-call", "webhook_configs": [{"url": url}]}], "route": route}
    path = directory / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    try:
        with alertmanager(path, directory) as alerts_url:
            yield alerts_url, heard
    finally:
        server.shutdown()
        server.server_close()


def fire(url: str, *alerts: dict[str, str]) -> None:
    """As Prometheus does."""
    body = [
        {
            "labels": labels | {"severity": SEVERITY[labels["alertname"]]},
            "annotations": SUMMARY[labels["alertname"]],
        }
        for labels in alerts
    ]
    answer = httpx.post(f"{url}/api/v2/alerts", json=body, trust_env=False)
    assert answer.status_code == 200, answer.text


def test_amtool_accepts_the_file() -> None:
    """Alertmanager's own checker."""
    command = [need("amtool", "prometheus-alertmanager"), "check-config", str(ALERTMANAGER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_warnings_are_kept_back() -> None:
    """And only by what wakes somebody or stands for the cause."""
    assert {SEVERITY[target] for _, target, _, _ in pairs()} == {"warning"}


@pytest.mark.parametrize(("source", "target", "equal", "others"), pairs())
def test_alerts_have_the_labels_by_which_they_are_kept_back(
    tmp_path: Path, source: str, target: str, equal: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """As Prometheus makes them from the series of their faults, of one service."""
    series: dict[str, str] = dict(READ)
    for fault in (target, source):
        for name, values in FAULTS[fault].items():
            if name.startswith("up"):
                continue
            bare, _, labels = name.rstrip("}").partition("{")
            scraped = labels if "instance=" in labels else ",".join(filter(None, (labels, 'instance="r"')))
            series[f"{bare}{{{scraped}}}"] = values
    which = "".join(f',{label}!=""' for label in equal)
    beside = "".join(f',{label}!=""' for label in others)
    firing = f'ALERTS{{alertname="{target}",alertstate="firing"{which}{beside}}}'
    cause = f'ALERTS{{alertname="{source}",alertstate="firing"{which}}}'
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({firing} and on ({','.join(equal)}) {cause}) > bool 0",
                "eval_time": max(
                    LATER.get(target, "4m"), LATER.get(source, "4m"), key=lambda one: int(one[:-1])
                ),
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }
    path = tmp_path / "labels.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(PROMETHEUS / "rules.yml")], "tests": [test]}))
    command = [need("promtool", "prometheus"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_message_for_an_alert_and_none_for_what_follows(tmp_path: Path) -> None:
    """Three sites fault: one message with all three; what follows at these is kept back, elsewhere told."""
    sites = ("north", "coast", "ridge")
    with told(tmp_path) as (url, heard):
        fire(url, *({"alertname": "HeronSiteFaulted", "site": site, "instance": "r"} for site in sites))
        fire(
            url,
            *({"alertname": "HeronEngineFaults", "site": site} for site in (*sites, "plains")),
            {"alertname": "HeronPowerPathDown", "site": "north", "path": "redis"},
            {"alertname": "HeronPowerPathDown", "site": "north", "path": "stream"},
            {"alertname": "HeronRedisDown", "instance": "r"},
            {"alertname": "HeronReportsFail", "site": "coast"},
        )
        names = {"HeronSiteFaulted", "HeronEngineFaults", "HeronPowerPathDown", "HeronRedisDown"}
        wait_until(
            lambda: {one["groupLabels"]["alertname"] for one in heard} >= names,
            seconds=20,
            what=lambda: str(heard),
        )
        by_name = {one["groupLabels"]["alertname"]: one for one in heard}
        assert by_name.keys() == names, "what Redis took with it is not told"
        assert len(heard) == len(names), "one message each"
        assert sorted(one["labels"]["site"] for one in by_name["HeronSiteFaulted"]["alerts"]) == sorted(sites)
        assert [one["labels"]["site"] for one in by_name["HeronEngineFaults"]["alerts"]] == ["plains"]
        assert [one["labels"]["path"] for one in by_name["HeronPowerPathDown"]["alerts"]] == ["stream"]
        annotations = by_name["HeronSiteFaulted"]["alerts"][0]["annotations"]
        assert annotations == SUMMARY["HeronSiteFaulted"]
