"""`heron_site_*`: every family has its help, its unit, and the site as a label."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from site_agent import metrics
from site_agent.metrics import Sample, SiteCollector, SiteFacts

FACTS = SiteFacts(
    site_id="north",
    farm_id="f",
    model="m",
    gpu="fake",
    is_governor_enabled=True,
    server_idle_watts=1584.0,
    safe_floor_watts=0.0,
    max_site_watts=7000.0,
)


def sample(cap_watts: float | None = 5000.0, reading_age_seconds: float | None = 0.5) -> Sample:
    return Sample(
        state="dark",
        cap_watts=cap_watts,
        draw_watts=1600.0,
        draw_source="gpu",
        granted_watts=None,
        cap_exceeded_seconds=1.5,
        below_idle_seconds=0.5,
        episodes=2,
        correction_ratio=1.0,
        clock_mhz=800,
        target_instances=0,
        instance_states={"stopped": 3},
        headroom_requests=0,
        in_flight=0,
        reading_age_seconds=reading_age_seconds,
        clock_skew_seconds=None,
        is_path_up={"stream": True, "redis": False},
        readings_taken=7,
        records_refused={"malformed": 1},
        is_plan_valid=True,
        outcomes={"completed": 5},
        pushbacks={"power": 2},
        commands={"Drain": 3},
        broken_streams=4,
        engine_faults={},
        scrape_failures=0,
        loop_failures={},
        reports_published=9,
        reports_failed=0,
        watchdog_restarts=0,
    )


def page(taken: Sample) -> dict[str, dict[tuple[str, ...], float]]:
    """Family → (label values but the site's, sorted) → value."""
    registry = metrics.create_registry(SiteCollector(facts=FACTS, sample=lambda: taken))
    text = metrics.render(registry).decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith("heron_site_"):
            assert family.documentation, family.name
            for one in family.samples:
                assert one.labels["site"] == "north"
                rest = tuple(value for key, value in sorted(one.labels.items()) if key != "site")
                found.setdefault(one.name, {})[rest] = one.value
    return found


def test_the_page_says_what_the_agent_knows() -> None:
    """Counters as counters, states as one of all."""
    found = page(sample())
    assert found["heron_site_power_cap_watts"] == {(): 5000.0}
    assert found["heron_site_power_draw_watts"] == {("gpu",): 1600.0}
    assert found["heron_site_cap_exceeded_seconds_total"] == {(): 1.5}
    assert found["heron_site_state"] == {
        ("serving",): 0.0,
        ("draining",): 0.0,
        ("dark",): 1.0,
        ("faulted",): 0.0,
    }
    assert found["heron_site_requests_total"] == {("completed",): 5.0}
    assert found["heron_site_info"] == {("f", "fake", "m"): 1.0}


def test_what_is_unknown_is_not_exported() -> None:
    """A missing reading is never 0 W."""
    found = page(sample(cap_watts=None, reading_age_seconds=None))
    for name in ("power_cap_watts", "power_granted_watts", "clock_skew_seconds", "power_reading_age_seconds"):
        assert f"heron_site_{name}" not in found


def test_a_page_can_be_read_twice() -> None:
    """Nothing piles up."""
    assert page(sample()) == page(sample())
