"""How a site is, and why."""

from __future__ import annotations

import pytest
from support.console import site_facts

from fleet.records import Cordon, ModelReport
from router.console.facts import SiteFacts
from router.console.status import power_text, site_status, why_state

NOW = 100.0
NO_ENGINE = (ModelReport(model="m", ready_instances=0),)
FULL = (ModelReport(model="m", ready_instances=1, headroom_requests=0, waiting_requests=4),)


@pytest.mark.parametrize(
    ("facts", "name", "level", "can_serve", "word"),
    [
        (site_facts(arrived_at=99.5), "serving", "good", True, ""),
        (site_facts(arrived_at=99.5, is_allowed=False), "not_allowed", "bad", False, "site_networks"),
        (site_facts(arrived_at=80.0), "silent", "bad", True, "no report for 20 s"),
        (site_facts(arrived_at=80.0, state="dark"), "silent", "bad", False, "no report for 20 s"),
        (site_facts(arrived_at=99.5, state="faulted"), "faulted", "bad", False, "log"),
        (
            site_facts(arrived_at=99.5, state="dark", cap_watts=300.0),
            "dark",
            "warning",
            False,
            "below the 1.0 kW",
        ),
        (
            site_facts(arrived_at=99.5, state="dark", cap_watts=1200.0),
            "dark",
            "warning",
            False,
            "no engine runs",
        ),
        (
            site_facts(arrived_at=99.5, state="draining", cap_watts=2000.0, drain_seconds_left=4.2),
            *("draining", "warning", False, "over in 4 s: its cap is 2.0 kW, it drew 5.0 kW"),
        ),
        (
            site_facts(arrived_at=99.5, cordon=Cordon(reason="fans", since_unix_seconds=1.0)),
            *("cordoned", "warning", False, "no new work there: fans"),
        ),
        (site_facts(arrived_at=99.5, breaker="open"), "breaker_open", "bad", False, "probe"),
        (site_facts(arrived_at=95.0), "late", "warning", True, "5 s old"),
        (site_facts(arrived_at=99.5, breaker="half_open"), "probing", "warning", False, "probe"),
        (site_facts(arrived_at=99.5, models=NO_ENGINE), "no_engine", "warning", False, "engines"),
        (site_facts(arrived_at=99.5, draw_watts=8000.0), "no_watts", "warning", True, "all that its cap"),
        (site_facts(arrived_at=99.5, models=FULL), "full", "warning", True, "4 wait there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_state_has_a_name_a_level_and_a_reason(
    facts: SiteFacts, name: str, level: str, can_serve: bool, word: str
) -> None:
    """The first case that holds is the one that is said."""
    status = site_status(facts, NOW)
    assert (status.name, status.level, status.can_serve) == (name, level, can_serve)
    assert word in status.why
    assert bool(status.why) == (name != "serving")


def test_unknown_figures_are_no_reason() -> None:
    """A site that says nothing but that it serves is well."""
    models = (ModelReport(model="m"),)
    facts = site_facts(arrived_at=99.5, cap_watts=None, draw_watts=None, models=models, has_info=False)
    assert site_status(facts, NOW).name == "serving"


def test_a_drain_without_figures_has_no_trailing_colon() -> None:
    """The text ends where what is known ends."""
    facts = site_facts(arrived_at=99.5, state="draining", cap_watts=None, draw_watts=None)
    assert site_status(facts, NOW).why == "it takes no new work"


def test_a_site_that_serves_needs_no_why() -> None:
    """Only a drain and the dark have one."""
    view = site_facts().view
    assert view is not None
    assert why_state(view) == ""


def test_watts_have_the_unit_that_fits() -> None:
    """From watts to megawatts, negative ones too."""
    assert [power_text(watts) for watts in (0.0, 999.0, 6200.0, -1500.0, 48e6)] == [
        *("0 W", "999 W", "6.2 kW", "-1.5 kW", "48.0 MW")
    ]
