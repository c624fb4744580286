"""One block of simulated time: sites, feed, router and requests put together, run, and summed up.

A block has three parts. In the warm-up nothing is counted. Requests of the counted part count, whenever they
end. In the tail requests go on coming, so that the last counted ones meet the same load as the others, and
after it the block runs on until every counted request is over, at most `MAX_DRAIN_SECONDS`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fleet.records import Plan, SiteReport
from router.live.fleet_reader import SILENT_SECONDS
from simulator.events import Events
from simulator.faults import Faults
from simulator.feed import SimulatedFarm, SimulatedFeed
from simulator.forecast_error import ForecastError
from simulator.planning import PastLoads, SimulatedPlanner
from simulator.record import Record, SiteRecord
from simulator.router import SimulatedRouter
from simulator.settings import Fault, RouterSettings, SiteSettings, Telemetry
from simulator.site import SimulatedSite
from simulator.site_records import site_info
from simulator.wind import History, Watts
from simulator.workload import Arrivals
from site_agent.plan_follow import REREAD_SECONDS

TAIL_SECONDS = 60
MAX_DRAIN_SECONDS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a block depends on."""

    sites: tuple[SiteSettings, ...]
    router: RouterSettings
    telemetry: Telemetry
    watts: Mapping[str, Watts]
    """Site → what its farm can give at each second, to all its sites; as long as the whole block."""
    nameplate_watts: Mapping[str, float]
    arrivals: Arrivals
    warm_up_seconds: int
    seconds: int
    """End of the counted part."""
    seed: str
    faults: tuple[Fault, ...] = ()
    past_loads: PastLoads = ()
    """What was asked for before the block, for the planner's forecast."""
    past_lengths: tuple[tuple[int, int], ...] = ()
    """(prompt, answer) in tokens, of before the block, for the router's estimates."""
    history: Mapping[str, History] = field(default_factory=dict)
    """Site → what its farm had measured before; a site without has a forecast that knows nothing."""

    @property
    def total_seconds(self) -> int:
        """How much wind a block needs."""
        return self.seconds + TAIL_SECONDS + MAX_DRAIN_SECONDS + 1


@dataclass(slots=True, kw_only=True)
class Block:
    """What came of it."""

    scene: Scene
    record: Record
    sites: dict[str, SiteRecord]
    exceeded_seconds: dict[str, float]
    below_idle_seconds: dict[str, float]
    commands: Counter[str]
    pushbacks: Counter[str]
    joules: dict[str, float]
    """In the counted part."""
    events: int
    decisions: int
    solves: dict[str, int] = field(default_factory=dict)
    preemptions: int = 0
    in_flight: int = 0
    """Offered and not over when the block ended."""
    ends_at: float = 0.0
    notes: list[str] = field(default_factory=list)


class World:
    """Builds a scene and runs it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.events = events = Events()
        self.record = Record(len(scene.arrivals))
        self._network = random.Random(f"{scene.seed}/network")
        self._is_asked = False
        """A site reports because its second is round, or because it is asked."""
        self._plan: Plan | None = None
        """What lies in Redis."""
        self._is_store_up = True
        self.sites: dict[str, SimulatedSite] = {}
        self.router = SimulatedRouter(
            scene.router,
            model=scene.sites[0].profile.model,
            sites=self.sites,
            round_trips={site.site_id: site.round_trip_seconds for site in scene.sites},
            events=events,
            record=self.record,
            rng=random.Random(f"{scene.seed}/router"),
        )
        self.router.learn(scene.past_lengths)
        self.planner: SimulatedPlanner | None = None
        if scene.router.planner is not None:
            self.planner = SimulatedPlanner(
                scene.router.planner,
                events=events,
                snapshot=lambda: self.router.view.snapshot,
                publish=self._publish_plan,
                past=scene.past_loads,
            )
            self.router.on_request = self.planner.came
        for settings in scene.sites:
            self.sites[settings.site_id] = SimulatedSite(
                settings,
                events=events,
                seed=scene.seed,
                send_report=self._send_report,
                on_first_token=self.router.first_token,
                on_finish=self.router.finished,
                on_break=self.router.broke,
                stored_plan=self._stored_plan,
            )
        self._site_list = list(self.sites.values())
        self.feed = SimulatedFeed(self._farms(), events)
        self.faults = Faults(
            scene.faults,
            events=events,
            sites=self.sites,
            farms=self.feed.farms,
            on_store=self._note_store,
            on_heard=lambda site_id: events.after(REREAD_SECONDS, self._reread_plan, site_id),
        )
        self.site_records = {site_id: SiteRecord(scene.seconds + 1) for site_id in self.sites}
        self._joules: dict[str, float] = {}
        self._exceeded = dict.fromkeys(self.sites, 0.0)
        self._below_idle = dict.fromkeys(self.sites, 0.0)
        arrivals = scene.arrivals
        self._at = arrivals.at_seconds.tolist()
        self._prompts = arrivals.prompt_tokens.tolist()
        self._outputs = arrivals.output_tokens.tolist()
        counted = arrivals.at_seconds < scene.seconds
        self._must_close = int(np.count_nonzero(counted))

    def _farms(self) -> list[SimulatedFarm]:
        scene = self.scene
        members: dict[str, list[SimulatedSite]] = {}
        for site in self._site_list:
            members.setdefault(site.settings.farm_name, []).append(site)
        return [
            SimulatedFarm(
                sites[0].settings.farm_id,
                sites,
                scene.watts[name],
                events=self.events,
                nameplate_watts=scene.nameplate_watts[name],
                history=scene.history.get(name),
                error=ForecastError(
                    scene.telemetry.forecast_error_ratio, random.Random(f"{scene.seed}/{name}/forecast")
                ),
            )
            for name, sites in members.items()
        ]

    def begin(self) -> None:
        """Tell everybody of each other, and put the first events in line."""
        scene, events = self.scene, self.events
        for site in self._site_list:
            info = site_info(site)
            self.router.view.take_info(info)
            if self.planner is not None:
                self.planner.take_info(info)
        events.at(0.0, self._second, 0)
        for index, site in enumerate(self._site_list):
            offset = (index + 1) / (len(self._site_list) + 1)
            events.at(offset * scene.telemetry.report_seconds, self._report, site)
        if self._at:
            events.at(self._at[0], self._arrive, 0)

    def run(self) -> Block:
        """Let it all happen."""
        scene, events = self.scene, self.events
        self.begin()
        events.run(float(scene.seconds + TAIL_SECONDS))
        until = scene.seconds + TAIL_SECONDS
        while until < scene.seconds + TAIL_SECONDS + MAX_DRAIN_SECONDS and self._is_any_open():
            until += 5
            events.run(float(until))
        return self._block()

    def _is_any_open(self) -> bool:
        outcome = self.record.outcome[: self._must_close]
        return bool(np.any(outcome == 0))

    def _arrive(self, index: int) -> None:
        self.record.open(index, self.events.now)
        if index + 1 < len(self._at):
            self.events.at(self._at[index + 1], self._arrive, index + 1)
        self.router.arrive(index, self._prompts[index], self._outputs[index])

    def _second(self, second: int) -> None:
        """Once a second: the feeds, the agents' scrapes, and this run's own notes."""
        scene = self.scene
        if second == scene.warm_up_seconds:
            self._begin_counting()
        if second <= scene.seconds:
            self._note(second)
        if second == scene.seconds:
            self._end_counting()
        for reading in self.feed.tick(second):
            if reading.site_id not in self.faults.silent_since:
                events_at = self.events.now + scene.telemetry.report_delay_seconds
                self.events.at(events_at, self.router.view.take_power, reading)
        for site in self._site_list:
            site.scrape()
        if self.planner is not None:
            self.planner.tick()
        if second + 1 < scene.total_seconds:
            self.events.at(float(second + 1), self._second, second + 1)

    def _note(self, second: int) -> None:
        now = self.events.now
        for site in self._site_list:
            row = self.site_records[site.site_id]
            row.available_watts[second] = self.feed.farms[site.site_id].available_watts(second)
            row.cap_watts[second] = 0.0 if site.is_down else site.cap.cap_watts(now)
            row.draw_watts[second] = site.plant.draw_watts()
            row.running[second] = site.slots.total_in_flight
            row.awake[second] = sum(one.state.is_admitted for one in site.instances)
            row.joules[second] = site.plant.joules()
            row.exceeded_seconds[second] = site.exceeded_seconds

    def _begin_counting(self) -> None:
        for site in self._site_list:
            self._joules[site.site_id] = -site.plant.joules()
            self._exceeded[site.site_id] = -site.exceeded_seconds
            self._below_idle[site.site_id] = -site.below_idle_seconds

    def _end_counting(self) -> None:
        for site in self._site_list:
            self._joules[site.site_id] += site.plant.joules()
            self._exceeded[site.site_id] += site.exceeded_seconds
            self._below_idle[site.site_id] += site.below_idle_seconds

    # Reports

    def _report(self, site: SimulatedSite) -> None:
        self._is_asked = True
        site.report()
        self._is_asked = False
        self.events.after(self.scene.telemetry.report_seconds, self._report, site)

    def _send_report(self, report: SiteReport) -> None:
        telemetry, site_id = self.scene.telemetry, report.site_id
        delay = telemetry.report_delay_seconds
        silent_since = self.faults.silent_since.get(site_id)
        if silent_since is not None:  # the router asks the site itself, once a second, after a while
            if not self._is_asked or self.events.now - silent_since <= SILENT_SECONDS:
                return
            delay = self.sites[site_id].one_way_seconds
        elif telemetry.report_loss_ratio and self._network.random() < telemetry.report_loss_ratio:
            return
        self.events.after(delay, self._hear_report, report)

    def _hear_report(self, report: SiteReport) -> None:
        """Router and feed read the same record."""
        self.feed.farms[report.site_id].take_report(report, self.events.now)
        self.router.take_report(report)
        if self.planner is not None:
            self.planner.take_report(report)

    # Plans

    def _publish_plan(self, plan: Plan) -> None:
        """The router that made it reads it at once, the agents in Redis, as far as they reach it."""
        self.router.view.take_plan(plan)
        if self._is_store_up:
            self._plan = plan
            for farm in self.feed.all_farms:
                farm.take_plan(plan)
            for site in self._site_list:
                if site.site_id not in self.faults.silent_since:
                    site.take_plan(plan)

    def _stored_plan(self, site_id: str) -> Plan | None:
        return None if site_id in self.faults.silent_since else self._plan

    def _reread_plan(self, site_id: str) -> None:
        plan = self._stored_plan(site_id)
        if plan is not None:
            self.sites[site_id].take_plan(plan)

    def _note_store(self, is_up: bool) -> None:
        self._is_store_up = is_up
        if self.planner is not None:
            self.planner.is_store_up = is_up

    def _block(self) -> Block:
        commands: Counter[str] = Counter()
        for site in self._site_list:
            commands.update(site.commands)
        record = self.record
        offered = int(np.count_nonzero(record.outcome >= 0))
        return Block(
            scene=self.scene,
            record=record,
            sites=self.site_records,
            exceeded_seconds=self._exceeded,
            below_idle_seconds=self._below_idle,
            commands=commands,
            pushbacks=self.router.pushbacks,
            joules=self._joules,
            events=self.events.happened,
            decisions=self.router.decisions,
            solves={} if self.planner is None else self.planner.solves,
            preemptions=sum(one.engine.preemptions for site in self._site_list for one in site.instances),
            in_flight=offered - record.closed,
            ends_at=self.events.now,
        )


def simulate(scene: Scene) -> Block:
    """Run one block."""
    for site_id, watts in scene.watts.items():
        if len(watts) < scene.total_seconds:
            raise ValueError(
                f"site {site_id}: {len(watts)} seconds of wind for {scene.total_seconds}: too few"
            )
    return World(scene).run()
