"""What the simulated router knows of the fleet: records in, snapshot out, as `router.live.fleet_view`."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.records import Plan, PowerReading, SiteInfo, SiteReport
from router.live.plan_intake import PlanIntake
from router.policy.breaker import Breaker
from router.policy.load import Load
from router.policy.outlook import PowerOutlook, power_outlook
from router.policy.snapshot import ModelView, Snapshot, view_of
from simulator.events import Events


class SimulatedView:
    """One per router."""

    def __init__(self, model: str, events: Events, round_trips: Mapping[str, float]) -> None:
        """`round_trips`: seconds to each site and back, which live reads from the kernel."""
        self.snapshot = Snapshot()
        self.views: tuple[ModelView, ...] = ()
        """Of the model, in order of site."""
        self.loads: dict[str, Load] = {}
        """By site: what this router has sent there."""
        self.plans = PlanIntake()
        self._model = model
        self._events = events
        self._round_trips = round_trips
        self._infos: dict[str, SiteInfo] = {}
        self._outlooks: dict[str, tuple[object, PowerOutlook]] = {}

    def take_info(self, info: SiteInfo) -> None:
        """A SiteInfo."""
        self._infos[info.site_id] = info

    def take_report(self, report: SiteReport) -> bool:
        """Whether it is newer than what is known; an old one is refused by its sequence."""
        before = self.snapshot.sites.get(report.site_id)
        if before is not None and report.sequence <= before.sequence:
            return False
        view = view_of(
            report,
            self._infos.get(report.site_id),
            arrived_at=self._events.now,
            is_confirmed=before is not None,
            known_models=(self._model,),
        )
        load = self.loads.get(report.site_id)
        if load is None:
            load = self.loads[report.site_id] = Load(Breaker())
            load.round_trip_seconds = self._round_trips.get(report.site_id)
        for model in view.models:
            if model.model == self._model:
                load.reported(model)
        self.snapshot = self.snapshot.with_site(view)
        self.views = self.snapshot.models.get(self._model, ())
        return True

    def take_power(self, reading: PowerReading) -> None:
        """A power reading, for its forecast."""
        now = self._events.now
        kept = self._outlooks.get(reading.site_id)
        if kept is None or kept[0] is not reading.forecast:
            kept = self._outlooks[reading.site_id] = (
                reading.forecast,
                power_outlook(reading, arrived_at=now),
            )
        outlook = PowerOutlook(  # the same forecast as a second ago is not sorted again
            site_id=reading.site_id,
            granted_power_watts=reading.granted_power_watts,
            quality=reading.quality,
            arrived_at=now,
            forecast=kept[1].forecast,
        )
        self.snapshot = self.snapshot.with_power(outlook)

    def take_plan(self, plan: Plan) -> None:
        """A plan was published.

        Raises:
            PlanRefusedError: it may not be used; the simulated planner makes none of that kind.
        """
        now = self._events.now
        view = self.plans.use(plan, b"", self._infos, now=now, unix_now=now)
        if view is not None:
            self.snapshot = self.snapshot.with_plan(view)

    def is_losing_power(self, site_id: str) -> bool:
        """As `router.live.fleet_view`."""
        site = self.snapshot.sites.get(site_id)
        return site is not None and site.state in ("draining", "dark")
