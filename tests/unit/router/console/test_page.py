"""The console's JSON: its shape, what is wrong first, and texts that mean harm."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from support.console import plan, power, site_facts

from fleet.records import ModelReport
from router.console.facts import Counters, PlanFacts, RouterFacts, SiteFacts
from router.console.page import MAX_SITES_SHOWN, TEXT_CHARACTERS, console_page, trends
from router.console.problems import MAX_SITE_PROBLEMS
from router.console.rates import LastMinute, SiteRates
from router.console.site_row import SiteRow
from router.console.status import site_status

NOW = 100.0
UP = RouterFacts(about={"router_id": "r", "policy": "heron"}, fleet="demo", is_store_up=True)


def row(facts: SiteFacts, sent: int = 0) -> SiteRow:
    """A site with what was sent there in the last minute."""
    rates = SiteRates()
    rates.take(0, 50.0)
    rates.take(sent, 100.0)
    rates.take_watts(facts.report and facts.report.power.draw_watts, None, 100.0)
    return SiteRow(facts=facts, status=site_status(facts, NOW), since_unix_seconds=1000.0, rates=rates)


def page(
    router: RouterFacts, *rows: SiteRow, minute: LastMinute | None = None, **counters: Any
) -> dict[str, Any]:
    """Through JSON and back, as a browser gets it."""
    made = console_page(
        router,
        rows,
        counters=Counters(**counters),
        minute=minute or LastMinute(),
        store_since_unix_seconds=1000.0,
        now=NOW,
        unix_now=2000.0,
    )
    decoded: dict[str, Any] = orjson.loads(orjson.dumps(made))
    return decoded


def well(site_id: str = "a", **fields: Any) -> SiteFacts:
    """A site whose report has just come."""
    return site_facts(site_id, arrived_at=NOW - 0.5, **fields)


def problem_texts(made: dict[str, Any]) -> list[str]:
    """Of the problems, in order."""
    return [problem["text"] for problem in made["problems"]]


def test_a_fleet_that_is_well_has_no_problem() -> None:
    """Shares, sums and every figure of its sites."""
    made = page(
        UP, row(well("a", power=power(9000.0)), 30), row(well("b", cap_watts=None, draw_watts=None), 10)
    )
    assert (made["level"], made["problems"]) == ("good", [])
    assert [one["share_ratio"] for one in made["rows"]] == [0.75, 0.25]
    assert made["power"] == {"granted_watts": 9000.0, "cap_watts": 8000.0, "draw_watts": 5000.0}
    first, second = made["rows"]
    assert (first["headroom_watts"], first["wind"]["quality"], first["gpus"]) == (3000.0, "good", "8 × H100")
    assert (second["cap_watts"], second["wind"]) == (None, None)
    assert first["models"][0]["headroom_requests"] == 9
    assert made["sites"] == {"known": 2, "shown": 2, "by_status": {"serving": 2}, "sent_last_minute": 40}


def test_sums_leave_out_sites_that_are_silent() -> None:
    """What they drew when they were last heard of is no figure of now."""
    made = page(UP, row(well("a")), row(site_facts("b", arrived_at=10.0)))
    assert (made["power"]["draw_watts"], made["power"]["cap_watts"]) == (5000.0, 8000.0)


def test_a_router_that_has_just_started_says_what_it_does_not_know() -> None:
    """No site, no Redis, no counts: unknown everywhere, and two things to do."""
    made = page(RouterFacts(not_ready="no site is known yet"))
    assert made["level"] == "bad"
    assert problem_texts(made) == ["No site is known.", "Redis has not answered yet."]
    assert all(problem["action"] for problem in made["problems"])
    assert made["traffic"]["requests_per_second"] is None
    assert made["power"] == {"granted_watts": None, "cap_watts": None, "draw_watts": None}


def test_everything_wrong_at_once_is_told_the_worst_first() -> None:
    """The router's own troubles, then the sites', each with what to do."""
    router = RouterFacts(
        is_store_up=False,
        not_ready="no worker is ready",
        held=7,
        workers=[{"is_ready": False}, {"is_ready": True}],
        plan=PlanFacts(plan=plan(), age_seconds=9999.0),
    )
    minute = LastMinute(outcomes={"broken": 2, "shed": 3, "failed": 1, "lost": 1})
    made = page(
        router,
        row(well("dark", state="dark", cap_watts=100.0)),
        row(site_facts("gone", arrived_at=10.0, state="dark")),
        row(well("hot", draw_watts=9000.0, power=power(1.0, "fallback"), is_clock_off=True)),
        minute=minute,
    )
    said = problem_texts(made)
    assert not any("No site can take requests" in text for text in said)  # `hot` may, once it has watts
    for words in (
        "Redis does not answer",
        "Not ready for clients: no worker is ready",
        "1 of 2 router workers",
        "The last plan is over",
        "7 requests wait",
        "3 requests were shed",
        "2 requests were broken off",
        "1 requests ended in an error",
        "1 requests have no outcome",
        "gone: no report for 90 s",
        "hot: it draws 1.0 kW more than its cap of 8.0 kW",
        "hot: the reading of its wind is fallback",
        "hot: its clock is off",
        "dark is dark: its cap of 100 W is below",
    ):
        assert any(words in text for text in said), words
    sites = [problem["level"] for problem in made["problems"] if problem["site_id"]]
    assert sites == sorted(sites, key=("bad", "warning").index)
    assert all(problem["action"] for problem in made["problems"])


def test_no_site_that_can_serve_is_the_worst() -> None:
    """All are dark."""
    made = page(UP, row(well(state="dark", cap_watts=0.0)))
    assert (made["level"], problem_texts(made)[0][:31]) == ("bad", "No site can take requests: what")


def test_a_site_that_is_left_out_says_that_the_policy_prefers_others() -> None:
    """Well, and nothing sent there while others got requests."""
    made = page(UP, row(well("a"), 10), row(well("b"), 0))
    assert "the policy sent it nothing" in made["rows"][1]["status"]["why"]
    assert made["level"] == "good"


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "\u202e\x00\x1b[31m", "ä" * 512, "</script>"]
)
def test_hostile_texts_pass_as_texts_and_short(text: str) -> None:
    """The JSON is sound and bounded; that the page shows them as texts the browser test shows."""
    model = ModelReport(model=text, ready_instances=1, headroom_requests=1_000_000_000)
    made = page(UP, row(well(models=(model,))))
    shown = made["rows"][0]["models"][0]["model"]
    assert len(shown) <= TEXT_CHARACTERS
    assert text.startswith(shown.removesuffix("…"))


def test_a_large_fleet_shows_its_worst_sites() -> None:
    """At most so many rows and problems; the counts are of all."""
    rows = [row(well(f"s{number:04}")) for number in range(400)]
    rows += [row(site_facts(f"z{number:02}", arrived_at=10.0)) for number in range(40)]
    made = page(UP, *rows)
    assert made["sites"]["known"] == 440
    assert len(made["rows"]) == MAX_SITES_SHOWN
    assert sum(one["site_id"].startswith("z") for one in made["rows"]) == 40
    assert [one["site_id"] for one in made["rows"]] == sorted(one["site_id"] for one in made["rows"])
    assert len(made["problems"]) == MAX_SITE_PROBLEMS + 1
    assert made["problems"][-1]["text"] == "20 more like these."


def test_trends_have_gaps_where_nothing_was_known() -> None:
    """None, which JSON has, for what the series cannot hold."""
    assert trends([row(well())]) == {"a": {"draw_watts": [5000], "cap_watts": [None]}}


def test_the_plan_says_who_made_it_and_how_old_it_is() -> None:
    """And whether it is still read."""
    router = RouterFacts(is_store_up=True, plan=PlanFacts(plan=plan("r9"), age_seconds=12.0, is_planner=True))
    found = page(router, row(well()))["plan"]
    assert (found["leader"], found["epoch"], found["is_valid"], found["is_leader"]) == ("r9", 7, True, False)
    none = page(UP, row(well()))["plan"]
    assert (none["epoch"], none["is_valid"]) == (None, False)


def test_gaps_between_tokens_are_weighed_by_requests() -> None:
    """The median of what runs, and the worst site's p99; sites without requests do not count."""

    def busy(running: int, p50: float, p99: float) -> tuple[ModelReport, ...]:
        return (
            ModelReport(
                model="m",
                ready_instances=1,
                running_requests=running,
                headroom_requests=5,
                itl_seconds_p50=p50,
                itl_seconds_p99=p99,
            ),
        )

    made = page(
        UP,
        row(well("a", models=busy(90, 0.02, 0.1))),
        row(well("b", models=busy(10, 0.5, 0.9))),
        row(well("c", models=busy(0, 7.0, 8.0))),
    )
    assert (made["traffic"]["itl_seconds_p50"], made["traffic"]["itl_seconds_p99"]) == (0.02, 0.9)
