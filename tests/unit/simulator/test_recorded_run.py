"""A recorded live run, fed to the simulator's driver: the same decisions.

Recorded by `python -m benchmarks.agreement.record`: a router of `heron demo` while one of three sites loses
its power. What it heard (reports, readings, answers) goes to the simulated router in the same order; what it
drew at random is drawn again.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fleet.records import PowerReading, SiteInfo, SiteReport
from fleet.request import RequestFeatures
from simulator.events import Events
from simulator.record import Record
from simulator.router import SimulatedRouter
from simulator.settings import RouterSettings

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "simulator" / "live_run.jsonl"
ENOUGH_DECISIONS = 50


class Script(random.Random):
    """Gives what the live router drew."""

    def __init__(self) -> None:
        super().__init__(0)
        self.draws: list[float] = []

    def random(self) -> float:
        return self.draws.pop(0)


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in GOLDEN.read_text().splitlines()]


def test_a_recorded_live_run_gets_the_same_decisions() -> None:
    """Site by site, also where nothing fitted; and the live router met a site that lost its power."""
    events, script = Events(), Script()
    recorded = lines()
    model = next(line["features"][0] for line in recorded if line["event"] == "choose")
    router = SimulatedRouter(
        RouterSettings(policy="heron"),
        model=model,
        sites={},
        round_trips={},
        events=events,
        record=Record(0),
        rng=script,
    )
    view, decisions, states = router.view, 0, set()
    for number, line in enumerate(recorded, start=1):
        events.now = line.get("now", events.now)
        if line["event"] == "report":
            report = SiteReport.from_json(line["report"].encode())
            states.add(report.state)
            if line["info"] is not None:
                view.take_info(SiteInfo.from_json(line["info"].encode()))
            view.take_report(report)
        elif line["event"] == "power":
            view.take_power(PowerReading.from_json(line["reading"].encode()))
        elif line["event"] == "load":
            getattr(view.loads[line["site"]], line["name"])(*line["arguments"])
        else:
            for site_id, seconds in line["trips"].items():
                view.loads[site_id].round_trip_seconds = seconds
            script.draws = list(line["draws"])
            router.decisions = line["turn"] - 1
            found = router.decide(
                RequestFeatures(*line["features"]),
                line["excluded"],
                is_resume=line["is_resume"],
                is_released=line["is_paced"],
            )
            chosen = None if found is None else found.site_id
            assert chosen == line["site"], f"line {number}: {chosen}, live {line['site']}"
            assert not script.draws, f"line {number}: live drew more"
            decisions += 1
    assert decisions >= ENOUGH_DECISIONS
    assert states >= {"serving", "dark"} or states >= {"serving", "draining"}
