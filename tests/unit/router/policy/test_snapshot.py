"""The picture that decisions are made on."""

from __future__ import annotations

from typing import Any

from support.views import view

from fleet.records import SiteInfo, SiteReport
from gateway.api_paths import PATHS
from router.policy.snapshot import Freshness, Snapshot, shortage, view_of

REPORT: dict[str, Any] = {
    "schema_version": "1.0",
    "agent_id": "w1",
    "sequence": 5,
    "site_id": "north",
    "observed_at_unix_seconds": 1000.0,
    "ingress_url": "http://127.0.0.1:1",
    "state": "serving",
    "models": [{"model": "m"}],
}

INFO: dict[str, Any] = {
    "schema_version": "1.0",
    "agent_id": "w1",
    "sequence": 1,
    "site_id": "north",
    "farm_id": "f",
    "region": "r",
    "ingress_url": "http://127.0.0.1:1",
    "gpu_model": "g",
    "gpu_count": 1,
    "server_idle_watts": 500.0,
    "overhead_ratio": 1.1,
    "ride_through_seconds": 5.0,
    "ride_through_joules": 1.0,
    "safe_floor_watts": 0.0,
    "max_site_watts": 1000.0,
    "capabilities": {"token_ids": True, "max_model_len": 4096},
}


def site(models: list[dict[str, Any]] | None = None, known: tuple[str, ...] = (), **changes: Any) -> Any:
    values = REPORT | changes
    if models is not None:
        values |= {"models": models}
    report = SiteReport.model_validate(values)
    return view_of(report, None, arrived_at=100.0, is_confirmed=True, known_models=known)


def test_missing_is_unknown():
    """Never zero."""
    model = site().models[0]
    assert model.headroom_requests is None
    assert model.ready_instances is None
    assert model.has_power
    assert not model.token_ids


def test_an_unknown_headroom_is_what_is_not_running():
    """Where both figures are given."""
    model = site([{"model": "m", "max_concurrency": 10, "running_requests": 4}]).models[0]
    assert (model.headroom_requests, model.capacity_requests) == (6, 10)


def test_a_reported_headroom_wins():
    """The site knows its cap."""
    model = site(
        [{"model": "m", "max_concurrency": 10, "running_requests": 4, "headroom_requests": 0}]
    ).models[0]
    assert model.headroom_requests == 0


def test_no_headroom_in_watts_is_no_power():
    """Draw at the cap."""
    assert not site(power={"headroom_watts": 0.0}).models[0].has_power


def test_a_dark_site_still_knows_its_models():
    """A client is told to wait, not that the model does not exist."""
    dark = site([], ("m", "n"), state="dark")
    assert [(model.model, model.ready_instances) for model in dark.models] == [("m", 0), ("n", 0)]


def test_capabilities_come_from_the_site_info():
    """No SiteInfo, no ids."""
    info = SiteInfo.model_validate(INFO)
    made = view_of(SiteReport.model_validate(REPORT), info, arrived_at=1.0, is_confirmed=True)
    assert (made.models[0].token_ids, made.models[0].max_model_len) == (True, 4096)
    assert made.server_idle_watts == 500.0


def test_age_decides_freshness():
    """3 s, 10 s; and nothing is fresh before its sequence has advanced."""
    assert view().freshness(103.0) is Freshness.FRESH
    assert view().freshness(103.1) is Freshness.STALE
    assert view().freshness(110.1) is Freshness.EXPIRED
    assert view(is_confirmed=False).freshness(100.0) is Freshness.STALE


def test_a_site_s_view_is_replaced_whole():
    """Models it no longer has are gone; others' stay; nothing is changed in place."""
    first = Snapshot().with_site(site([{"model": "m"}, {"model": "n"}]))
    both = first.with_site(site([{"model": "m"}], site_id="coast"))
    after = both.with_site(site([{"model": "n"}]))
    assert [one.site_id for one in both.models["m"]] == ["coast", "north"]
    assert [one.site_id for one in after.models["m"]] == ["coast"]
    assert list(first.sites) == ["north"]
    assert set(after.without_site("north").models) == {"m"}


def test_the_reason_for_a_shortage():
    """No power anywhere, or all full."""
    assert shortage([view()]) == "no_capacity"
    assert shortage([view(state="dark"), view("b", has_power=False)]) == "no_power"
    assert shortage([view(state="faulted")]) == "no_capacity"
    assert shortage([view(state="dark"), view("b")]) == "no_capacity"
    assert shortage([]) == "no_site"


def test_what_a_site_does_not_serve_is_known_only_from_what_it_says():
    """A site that lists its paths lacks the others; one that lists none may have them all."""
    assert view().lacks == frozenset()
    report = SiteReport.model_validate(REPORT)
    listed = SiteInfo.model_validate(INFO | {"capabilities": {"paths": ["/v1/completions", "/unheard-of"]}})
    made = view_of(report, listed, arrived_at=0.0, is_confirmed=True)
    assert made.lacks == made.models[0].lacks == frozenset(PATHS) - {"/v1/completions"}
    silent = view_of(report, SiteInfo.model_validate(INFO), arrived_at=0.0, is_confirmed=True)
    assert silent.lacks == frozenset()
