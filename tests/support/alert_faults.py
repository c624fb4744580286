"""The shipped alerts, and for each the series on which it must fire."""

from __future__ import annotations

from typing import Any

import yaml

from support.scraped_fleet import PROMETHEUS

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]

FAULTS = {
    "HeronCapExceeded": {
        'heron_site_cap_exceeded_seconds_total{site="a"}': "0+1x20",
        'heron_site_below_idle_seconds_total{site="a"}': "0x20",
    },
    "HeronCapBelowIdle": {'heron_site_below_idle_seconds_total{site="a"}': "0+1x20"},
    "HeronGovernorOff": {'heron_site_governor_enabled{site="a"}': "0x20"},
    "HeronDrawModelled": {
        'heron_site_power_draw_watts{site="a",source="modelled"}': "900x20",
        'heron_site_info{site="a",gpu="real"}': "1x20",
    },
    "HeronSiteMeterSilent": {'heron_site_meter_age_seconds{site="a"}': "11x20"},
    "HeronFeedFallback": {'heron_feed_quality{site="a",quality="fallback"}': "1x20"},
    "HeronFeedCheckFailed": {'heron_feed_failed_checks_total{site="a",check="ramp"}': "_x8 1x12"},
    "HeronSourceDown": {'heron_feed_source_connected{farm="f",source="modbus"}': "0x20"},
    "HeronSourceFaults": {
        'heron_feed_source_faults_total{farm="f",source="modbus",kind="timeout"}': "0+1x20"
    },
    "HeronSourceNeverMeasured": {
        'heron_feed_source_value_age_seconds{farm="f",source="modbus"}': " ".join(["+Inf"] * 20)
    },
    "HeronFeedSilent": {'heron_site_power_reading_age_seconds{site="a"}': "6x20"},
    "HeronPowerPathDown": {
        'heron_site_power_path_up{site="a",path="stream"}': "0x20",
        'heron_site_power_path_up{site="a",path="redis"}': "1x20",
        'heron_site_power_reading_age_seconds{site="a"}': "1x20",
    },
    "HeronReportsFail": {'heron_site_reports_failed_total{site="a"}': "0+15x20"},
    "HeronSecondWriter": {'heron_site_records_refused_total{site="a",reason="second_writer"}': "_x8 1x12"},
    "HeronRecordNotBelieved": {'heron_site_records_refused_total{site="a",reason="signature"}': "_x8 1x12"},
    "HeronSiteFaulted": {'heron_site_state{site="a",state="faulted"}': "1x20"},
    "HeronSiteStale": {'heron_router_site_report_age_seconds{site="a"}': "11x20"},
    "HeronSiteBreakerOpen": {'heron_router_site_breaker_state{site="a"}': "2x20"},
    "HeronSiteFailsRequests": {
        'heron_router_site_requests_total{site="a"}': "0+10x40",
        'heron_router_site_results_total{site="a",result="failed"}': "0+1x40",
    },
    "HeronEnginesMissing": {
        'heron_site_target_instances{site="a"}': "2x100",
        'heron_site_instances{site="a",state="ready"}': "1x100",
    },
    "HeronEngineUnread": {'heron_site_scrape_failures_total{site="a"}': "0+15x20"},
    "HeronWatchdogEnds": {'heron_site_watchdog_restarts_total{site="a"}': "0+1x20"},
    "HeronGpuHot": {'heron_site_gpu_temperature_celsius{site="a",gpu="0"}': "91x20"},
    "HeronEngineFaults": {'heron_site_engine_faults_total{site="a",reason="ended"}': "0+1x20"},
    "HeronNoCapacity": {'heron_router_held_requests{tier="default"}': "3x20"},
    "HeronKeysLost": {"heron_router_api_keys_gone": "1x20"},
    "HeronNobodyGetsIn": {"heron_router_auth_open": "0x20"},
    "HeronKeysStale": {"heron_router_api_keys_age_seconds": "40+15x20"},
    "HeronNoSiteServes": {
        'heron_router_site_state{site="a",state="serving"}': "0x20",
        'heron_router_site_report_age_seconds{site="a"}': "1x20",
        "heron_router_in_flight_requests": "0x20",
    },
    "HeronRequestsShed": {'heron_router_refusals_total{code="no_power"}': "0+5x20"},
    "HeronRequestsFail": {
        'heron_router_requests_total{model="m",outcome="failed"}': "0+1x20",
        'heron_router_requests_total{model="m",outcome="completed"}': "0+30x20",
    },
    "HeronFirstTokenLate": {
        'heron_router_ttft_seconds_bucket{model="m",le="6.0"}': "0+9x40",
        'heron_router_ttft_seconds_bucket{model="m",le="12.0"}': "0+10x40",
        'heron_router_ttft_seconds_bucket{model="m",le="+Inf"}': "0+10x40",
    },
    "HeronRequestsBroken": {'heron_router_requests_total{model="m",outcome="broken"}': "0+1x20"},
    "HeronWorkersDie": {"heron_router_worker_restarts_total": "0x8 1x12"},
    "HeronPartFails": {'heron_site_loop_failures_total{site="a",loop="reporter"}': "_x8 1x12"},
    "HeronRedisDown": {"heron_router_store_up": "0x20"},
    "HeronPoliciesDiffer": {
        'heron_router_policy_info{instance="a",policy="heron"}': "1x20",
        'heron_router_policy_info{instance="b",policy="reactive"}': "1x20",
    },
    "HeronNobodyPlans": {"heron_router_planner_available": "1x20", "heron_router_planner_leader": "0x20"},
    "HeronPlanOld": {
        "heron_router_plan_age_seconds": "1900+15x20",
        "heron_router_planner_available": "1x20",
        "heron_router_planner_leader": "1x20",
    },
    "HeronPlansFail": {'heron_router_planner_solves_total{kind="fast",result="failed"}': "0+1x20"},
    "HeronServerSwitchFails": {'heron_feed_server_errors_total{site="a"}': "0+1x20"},
    "HeronClockSkew": {'heron_site_clock_skew_seconds{site="a"}': "-6x20"},
    "HeronTargetDown": {'up{job="heron-site",instance="a"}': "0x20"},
    "HeronTargetMissing": {'up{job="heron-router"}': "1x4 stale"},
    "HeronAlertsNotSent": {'alertmanager_notifications_failed_total{integration="slack"}': "0+1x20"},
    "HeronCertificateExpires": {
        'heron_site_tls_certificate_expiry_timestamp_seconds{site="a",certificate="port"}': "600000x20"
    },
    "HeronVersionsDiffer": {
        'heron_router_build_info{version="1.0"}': "1x6000",
        'heron_site_build_info{site="a",version="1.1"}': "1x6000",
        **{f'up{{job="heron-{job}"}}': "1x6000" for job in ("router", "power-feed", "site")},
    },
}
"""Series, one value each 15 s, at whose end the alert must fire, and it alone."""
READ = {f'up{{job="heron-{job}"}}': "1x100" for job in ("router", "power-feed", "site")}
"""What Prometheus itself says while it reads everybody: in every case that does not say otherwise."""
LATER = {"HeronEnginesMissing": "20m", "HeronFirstTokenLate": "8m", "HeronVersionsDiffer": "25h"}
"""When those fire that wait for longer; all others within 4 minutes."""
