"""Alerts and dashboard against a real Prometheus that scrapes the real services."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.alert_faults import FAULTS, LATER, READ, RULES
from support.metric_document import documented
from support.programs import need
from support.scraped_fleet import PROMETHEUS, ROOT, Scraped, wait_until

HERON_NAME = re.compile(r"\bheron_\w+")
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/heron.json").read_text())
VARIABLES = {"$__rate_interval": "20s", "$__range": "1m", "$site": "north"}

ALWAYS_THERE = (
    "$site: wind, cap, draw",
    "State of each site",
    "Headroom of each site",
    "Requests by outcome",
    "Time to first token",
    "Requests sent to each site",
    "End to end",
    "Engines",
    "Age of reports and readings",
    "Sites serving",
    "Requests/s",
    "In flight",
    "Waiting for room",
    "Answers broken off",
    "Seconds above cap",
    "Policy",
    "Wind granted to sites, and not",
    "Where the energy goes",
    "Tenants' energy",
    "Grant in 5 to 15 minutes, p10",
    "Redis and power paths",
    "Breakers",
    "Age of measurements",
)
"""Panels that must show something once a healthy fleet has answered; the others wait for something bad."""

QUIET = {
    "HeronRequestsShed": {'heron_router_refusals_total{code="rate_limit_exceeded"}': "0+5x20"},
    "HeronRequestsFail": {
        'heron_router_requests_total{model="m",outcome="client_error"}': "0+5x20",
        'heron_router_requests_total{model="m",outcome="failed"}': "0x8 1x12",
        'heron_router_requests_total{model="m",outcome="completed"}': "0+5x20",
    },
    "HeronSiteFailsRequests": {
        'heron_router_site_requests_total{site="a"}': "0+1x40",
        'heron_router_site_results_total{site="a",result="failed"}': "0x8 2x32",
    },
    "HeronTargetDown": {'up{job="heron-site",instance="a"}': "1x6 0 1x20"},
    "HeronSiteStale": {
        'heron_router_site_report_age_seconds{site="a"}': "1x4 stale",
        'up{job="heron-router"}': "1x4 0x20",
    },
    "HeronKeysLost": {"heron_router_api_keys_gone": "0x20", "heron_router_api_keys": "1x20"},
    "HeronNobodyGetsIn": {
        "heron_router_auth_open": "0x20",
        "heron_router_api_keys": "1x20",
        "heron_router_api_keys_age_seconds": "1x20",
    },
    "HeronNobodyPlans": {"heron_router_planner_available": "0x20", "heron_router_planner_leader": "0x20"},
    "HeronCapExceeded": {
        'heron_site_cap_exceeded_seconds_total{site="a"}': "0+1x20",
        'heron_site_below_idle_seconds_total{site="a"}': "0+1x20",
    },
}
"""What looks like an alert's fault and is another's, or nobody's: it must not fire."""

ABSENT = {
    "HeronNoSiteServes": {
        'heron_router_site_state{site="a",state="serving"}': "1x4 stale",
        'heron_router_site_report_age_seconds{site="a"}': "1 16 31 46 stale",
        "heron_router_in_flight_requests": "0x20",
    },
    "HeronSiteStale": {'heron_router_site_report_age_seconds{site="a"}': "1 16 31 46 stale"},
    "HeronFeedSilent": {
        'heron_site_power_path_up{site="a",path="stream"}': "0x20",
        'heron_site_power_path_up{site="a",path="redis"}': "0x20",
    },
}
"""The same where what would tell of it is not there, or no longer: the alert must fire, others may too."""


def queries() -> list[tuple[str, str]]:
    """Panel and expression, Grafana's variables put in."""
    found = []
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            found.append((panel["title"], expression))
    return found


def test_all_targets_are_up(scraped: Scraped) -> None:
    """Router, feed, three sites, Alertmanager and itself, at the shipped configuration's addresses."""
    wait_until(
        lambda: scraped.targets() == dict.fromkeys(scraped.expected_targets, "up"),
        seconds=20,
        what=lambda: str(scraped.get("targets", state="active")["activeTargets"]),
    )
    assert len(scraped.expected_targets) == 7
    found = scraped.get("alertmanagers")["activeAlertmanagers"]
    assert [one["url"] for one in found] == [f"{scraped.alertmanager_url}/api/v2/alerts"]


def test_every_rule_evaluates(scraped: Scraped) -> None:
    """As Prometheus itself reports it, after it has evaluated each."""

    def rules() -> list[dict[str, Any]]:
        return [rule for group in scraped.get("rules")["groups"] for rule in group["rules"]]

    def unhealthy() -> list[Any]:
        return [(rule["name"], rule.get("lastError")) for rule in rules() if rule["health"] != "ok"]

    wait_until(lambda: not unhealthy(), seconds=20, what=lambda: str(unhealthy()))
    assert sorted(rule["name"] for rule in rules()) == sorted(rule["alert"] for rule in RULES)
    assert not [rule for rule in rules() if "lastError" in rule]


@pytest.mark.parametrize("title", sorted({title for title, _ in queries()}))
def test_every_query_of_the_dashboard_runs(scraped: Scraped, title: str) -> None:
    """And shows something for a fleet that answers requests, where the panel is not about faults."""

    def has_values(expression: str) -> bool:
        scraped.ask()
        return any(not math.isnan(float(one["value"][1])) for one in scraped.query(expression))

    for expression in [expression for panel, expression in queries() if panel == title]:
        scraped.query(expression)
        if title in ALWAYS_THERE:
            wait_until(
                lambda expression=expression: has_values(expression),  # type: ignore[misc]
                seconds=30,
                what=lambda expression=expression: expression,  # type: ignore[misc]
            )


def test_every_metric_that_is_used_exists(scraped: Scraped) -> None:
    """In the documentation, which a test holds to the code; and what was scraped is documented."""
    known = {name for row in documented() for name in row.series}
    text = [rule["expr"] for rule in RULES] + [expression for _, expression in queries()]
    used = {name for expression in text for name in HERON_NAME.findall(expression)}
    assert used - known == set()
    wait_until(lambda: scraped.query("heron_site_info"), seconds=20, what=lambda: "no series")
    seen = {name for name in scraped.get("label/__name__/values") if name.startswith("heron_")}
    created = {name for name in seen if name.endswith("_created")}
    assert seen - created - known == set()


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "--lint-fatal"), ("check", "rules", "--lint-fatal")],
    ids=["config", "rules"],
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    """Prometheus' own checker, its lint too."""
    path = PROMETHEUS / ("prometheus.yml" if "config" in arguments else "rules.yml")
    command = [need("promtool", "prometheus"), *arguments, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_to_do() -> None:
    """An alert without an action only frightens; and each has a fault below that makes it fire."""
    for rule in RULES:
        assert rule["annotations"].keys() >= {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
    assert sorted(rule["alert"] for rule in RULES) == sorted(FAULTS)


def test_every_alert_fires_on_its_fault_and_on_no_other(tmp_path: Path) -> None:
    """By `promtool test rules`."""
    tests = []
    cases = [(fault, READ | series, (1, 0)) for fault, series in FAULTS.items()]
    cases += [(fault, READ | series, (1, None)) for fault, series in ABSENT.items()]
    cases += [(fault, READ | series, (0, None)) for fault, series in QUIET.items()]
    for fault, series, counts in cases:
        own, others = f'alertname="{fault}",alertstate="firing"', f'alertname!="{fault}"'
        expressions = [
            {
                "expr": f"count(ALERTS{{{which}}}) > bool 0 or vector(0)",
                "eval_time": LATER.get(fault, "4m"),
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for which, value in zip((own, others), counts, strict=True)
            if value is not None
        ]
        tests.append(
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": expressions,
            }
        )
    path = tmp_path / "alerts.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(PROMETHEUS / "rules.yml")], "tests": tests}))
    command = [need("promtool", "prometheus"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
