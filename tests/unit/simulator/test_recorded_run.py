"""A recorded live run, fed to the simulator's drivers: the same decisions.

Recorded by `python -m benchmarks.agreement.record`: router and a site of `heron demo` while that site, one of
three, loses its power under more load than the others carry, with an SLO and a planner. What the router heard
(reports, readings, plans, answers) goes to the simulated router in the same order, and what it drew at random
is drawn again; what the site's governor saw goes to the simulated site's.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.agreement.plain import plain
from cli.demo_config import DRAIN_SECONDS, INSTANCES, MAX_CONCURRENCY, POWER_MODEL, PROFILE
from fleet.instance import InstanceState
from fleet.power import RideThrough
from fleet.records import Plan, PowerReading, SiteInfo, SiteReport
from fleet.request import ClassSlo, RequestFeatures
from router.policy.dispatch import NOT_YET
from router.policy.queue import LATE_RESERVE_RATIO
from simulator.events import Events
from simulator.record import Record
from simulator.router import SimulatedRouter
from simulator.settings import RouterSettings, SiteSettings
from simulator.site import SimulatedSite
from site_agent.controls import make_control
from site_agent.limits import MeanWork
from site_agent.situation import CapForecast, InstanceView, SiteView

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "simulator"
ENOUGH_DECISIONS = 500
ENOUGH_TURNS = 100
"""Of the governor."""


class Script(random.Random):
    """Gives what the live router drew."""

    def __init__(self) -> None:
        super().__init__(0)
        self.draws: list[float] = []

    def random(self) -> float:
        return self.draws.pop(0)


def lines(name: str) -> list[dict[str, Any]]:
    data = gzip.decompress((GOLDEN / f"{name}.jsonl.gz").read_bytes())
    return [json.loads(line) for line in data.splitlines()]


def features_of(values: list[Any]) -> RequestFeatures:
    *others, slo = values
    return RequestFeatures(*others, slo=None if slo is None else ClassSlo(**slo))


def test_a_recorded_live_router_gets_the_same_decisions() -> None:
    """Site by site, also where a request was made to wait; with plans, an SLO and resumes."""
    events, script = Events(), Script()
    recorded = lines("live_run")
    settings = RouterSettings(policy="heron")
    router = SimulatedRouter(
        settings,
        model=next(line["features"][0] for line in recorded if line["event"] == "choose"),
        sites={},
        round_trips={},
        events=events,
        record=Record(0),
        rng=script,
    )
    view, seen = router.view, Counter[str]()
    infos: dict[str, SiteInfo] = {}
    for number, line in enumerate(recorded, start=1):
        events.now = line.get("now", events.now)
        if line["event"] == "report":
            report = SiteReport.from_json(line["report"].encode())
            seen[report.state] += 1
            if line["info"] is not None:
                infos[report.site_id] = SiteInfo.from_json(line["info"].encode())
                view.take_info(infos[report.site_id])
            view.take_report(report)
        elif line["event"] == "power":
            view.take_power(PowerReading.from_json(line["reading"].encode()))
        elif line["event"] == "plan":
            plan = Plan.from_json(line["plan"].encode())  # its clock is the live one, not the simulator's
            taken = view.plans.use(plan, b"", infos, now=events.now, unix_now=plan.solved_at_unix_seconds)
            assert taken is not None
            view.snapshot = view.snapshot.with_plan(taken)
            seen["plans"] += 1
        elif line["event"] == "load":
            getattr(view.loads[line["site"]], line["name"])(*line["arguments"])
        else:
            chosen = choose(router, settings, script, line)
            assert chosen == line["site"], f"line {number}: {chosen}, live {line['site']}"
            assert not script.draws, f"line {number}: live drew more"
            seen["decisions"] += 1
            seen["resumes"] += line["is_resume"]
            seen["made to wait"] += chosen == "not yet"
            seen["by a plan"] += bool(seen["plans"])
    assert seen["decisions"] >= ENOUGH_DECISIONS
    for what in ("serving", "dark", "plans", "resumes", "made to wait", "by a plan"):
        assert seen[what], what


def choose(
    router: SimulatedRouter, settings: RouterSettings, script: Script, line: dict[str, Any]
) -> str | None:
    """What the simulated router decides, in the recording's words."""
    for site_id, seconds in line["trips"].items():
        router.view.loads[site_id].round_trip_seconds = seconds
    script.draws = list(line["draws"])
    router.decisions = line["turn"] - 1
    must_leave_room = line["reserve_ratio"] != settings.resume_reserve_ratio
    if must_leave_room:
        assert line["reserve_ratio"] == settings.resume_reserve_ratio + LATE_RESERVE_RATIO
    found = router.decide(
        features_of(line["features"]),
        line["excluded"],
        is_resume=line["is_resume"],
        is_released=line["is_paced"],
        must_leave_room=must_leave_room,
        is_patient=line["is_patient"],
    )
    return None if found is None else "not yet" if found is NOT_YET else found.site_id


def test_a_recorded_live_governor_gets_the_same_decisions() -> None:
    """Command by command, over a fall to nothing and a rise, by the rule that a simulated site has."""
    head, *turns = lines("live_site")
    site = SimulatedSite(
        SiteSettings(
            site_id="coast",
            wind="",
            instances=INSTANCES["emulated"],
            profile_id=PROFILE.profile_id,
            max_concurrency=MAX_CONCURRENCY,
            start_seconds=2.0,
            overhead_ratio=POWER_MODEL.overhead_ratio,
            host_idle_watts=POWER_MODEL.host_idle_watts,
            other_profile_ids=(),
            control_parameters=(("drain_seconds", DRAIN_SECONDS),),
        ),
        events=Events(),
        seed="recorded",
        send_report=lambda _report: None,
        on_first_token=lambda _request, _now: None,
        on_finish=lambda _request, _now: None,
        on_break=lambda _request, _tokens: None,
    )
    assert plain(site.settings.rule) == head["rule"]
    ride_through = RideThrough(**head["ride_through"])  # of the demo's own limit, a round number
    assert ride_through.joules == pytest.approx(site.ride_through.joules, rel=0.01)
    governor = make_control(site.settings.control, site.model, site.settings.rule, ride_through)
    commands = Counter[str]()
    for number, line in enumerate(turns, start=2):
        decision = plain(governor.decide(site_view(line["view"]), line["now"]), is_named=True)
        assert decision == line["decision"], f"line {number}"
        commands.update(name for one in decision["Decision"]["commands"] for name in one)
    assert len(turns) >= ENOUGH_TURNS
    assert commands.keys() >= {"SetClock", "Drain", "BreakStreams", "StopEngine", "StartEngine"}


def site_view(values: dict[str, Any]) -> SiteView:
    """As `plain` wrote it."""
    made = dict(values)
    made["instances"] = tuple(
        InstanceView(
            **{
                **one,
                "state": InstanceState(one["state"]),
                "gpu_indices": tuple(one.get("gpu_indices", ())),
            }
        )
        for one in values["instances"]
    )
    made["forecast"] = tuple(CapForecast(**one) for one in values.get("forecast", ()))
    if values.get("work") is not None:
        made["work"] = MeanWork(**values["work"])
    assert "targets" not in made, "a plan that orders: read it too"
    return SiteView(**made)
