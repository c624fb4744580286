"""The planner's live side: one router replica leads, plans when it is due, and publishes (DESIGN §6).

Rule: no request waits for any of this. The lease (`planner-lease`, with a TTL) says who plans; the epoch
that every plan carries fences what an earlier leader still writes, and only grows, over an emptied Redis too.
A plan that fails costs an event and a count: the last valid one stays in use until it is over, then routing
is reactive.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Callable

from fleet.records import PlannerLease, RouterPresence, is_of_no_clock, next_sequence
from fleet.signing_keys import Signing
from fleet.store import Store, StoreError
from fleet.version import extra_hint
from fleet.wire import RecordError
from router.config import PlannerConfig
from router.live.demand_meter import from_record
from router.live.events import EventRing
from router.live.fleet_view import FleetView
from router.live.plan_metrics import PlannerFigures
from router.live.solver_process import SolverFailedError, SolverProcess
from router.policy.planner.agenda import PlanKind
from router.policy.planner.check import CLASSES
from router.policy.planner.demand import add_loads
from router.policy.planner.from_records import SiteRecordsView
from router.policy.planner.orders import orders_of
from router.policy.planner.plan_maker import (
    DEMAND_SECONDS,
    LEASE_TTL_SECONDS,
    RENEW_SECONDS,
    BrokenPlanError,
    PlanMaker,
    Question,
    Task,
)
from router.policy.planner.problem import Planned, PlannerParameters

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
SHORTFALL_WORTH_SAYING = 0.05
"""Requests per second."""
MISSING_EXTRA = (
    f"planning is off: the solver is not installed. Install it with {extra_hint('plan')}, "
    "or set [router.planner] enabled = false; routing goes on without plans"
)


class Planner:
    """One per router, whatever number of workers it has."""

    def __init__(
        self,
        config: PlannerConfig,
        *,
        store: Store,
        view: FleetView,
        router_id: str,
        events: EventRing,
        signing: Signing,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        solvers: dict[PlanKind, SolverProcess] | None = None,
    ) -> None:
        self.figures = PlannerFigures()
        self._config = config
        self._store = store
        self._view = view
        self._router_id = router_id
        self._events = events
        self._signer, self._trust = signing
        self._clock = clock
        self._unix_clock = unix_clock
        self._solvers = solvers or {"slow": SolverProcess(), "fast": SolverProcess()}
        self._maker = PlanMaker(
            interval_seconds=config.interval_seconds,
            learn_seconds=config.learn_seconds,
            valid_for_seconds=config.valid_for_seconds,
            margin_ratio=config.margin_ratio,
            parameters=PlannerParameters(
                gap_ratio=config.gap_ratio,
                max_nodes=config.max_nodes,
                interval_seconds=config.interval_seconds,
            ),
        )
        self._solving: dict[PlanKind, asyncio.Task[None]] = {}
        self._said = ""
        """The gist of the last fast plan."""
        self._epoch: int | None = None
        self._highest_epoch: int | None = None
        self._sequence: int | None = None
        self._acquired_at = 0.0
        self._leads_until = float("-inf")
        """Monotonic: beyond it another may lead, whatever Redis says later."""
        self._renew_at = float("-inf")
        self._demand_at = float("-inf")

    @property
    def is_leader(self) -> bool:
        """Whether this router's lease still stands."""
        return self._clock() < self._leads_until

    async def run(self) -> None:
        """Until cancelled; at once where planning is off."""
        if not self._config.enabled:
            return
        if importlib.util.find_spec("highspy") is None:
            logger.warning(MISSING_EXTRA)
            self._events.add("plan", MISSING_EXTRA, level="warning")
            return
        self.figures.is_available = True
        try:
            while True:
                await self._tick()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            await self._stop_solving()
            for solver in self._solvers.values():
                await solver.close()

    async def _tick(self) -> None:
        now = self._clock()
        if now >= self._renew_at:
            self._renew_at = now + RENEW_SECONDS
            await self._renew()
        if now >= self._demand_at:
            self._demand_at = now + DEMAND_SECONDS
            await self._read_demand()
        if self.figures.is_leader and not self.is_leader:
            self._lose("its lease ran out")
        if not self.is_leader:
            await self._stop_solving()
            return
        now = self._clock()
        sites = self._sites()
        kind = self._maker.due(sites, now)
        if kind is not None and kind not in self._solving:
            self._begin(kind, sites, now)

    # leading
    async def _renew(self) -> None:
        """Take or keep the lease. The clock is read before the call: a slow answer makes no lease longer."""
        before = self._clock()
        unix = self._unix_clock()
        if not self.is_leader:
            await self._learn_epochs()
            self._epoch = next_sequence(None, self._highest_epoch, round(unix * 1000))
            self._acquired_at = unix
        assert self._epoch is not None
        self._sequence = next_sequence(self._sequence, None, round(unix * 1000))
        record = PlannerLease(
            router_id=self._router_id,
            sequence=self._sequence,
            epoch=self._epoch,
            acquired_at_unix_seconds=self._acquired_at,
        )
        raw = self._signer.to_json(record, unix_now=unix)
        try:
            is_held = await self._store.acquire_planner_lease(self._router_id, raw, LEASE_TTL_SECONDS)
            if not is_held and (forged := await self._forged_lease()):
                is_held = await self._store.acquire_planner_lease(
                    self._router_id, raw, LEASE_TTL_SECONDS, instead_of=forged
                )
        except StoreError as error:
            logger.debug("the planner's lease cannot be asked for: %s", error)
            return
        if not is_held:
            if self.figures.is_leader:
                self._lose("another router leads")
            return
        self._leads_until = before + LEASE_TTL_SECONDS
        if not self.figures.is_leader:
            self.figures.is_leader = True
            self._highest_epoch = self._epoch
            self._maker.lead()
            self._events.add("plan", f"this router plans for the fleet (epoch {self._epoch})")

    async def _forged_lease(self) -> bytes:
        """The lease that is there, if no router wrote it, or none of late; b"": one did.

        Raises:
            StoreError: it cannot be read.
        """
        raw = await self._store.planner_lease()
        if raw is None or not self._trust.asks("router"):
            return b""
        try:
            self._trust.read(PlannerLease, raw, unix_now=self._unix_clock())
        except RecordError as error:
            self._view.refuse("PlannerLease", error.reason, str(error))
            return raw
        return b""

    async def _learn_epochs(self) -> None:
        """The highest epoch seen anywhere: in the lease that is there, and in plans that came here."""
        seen = [self._highest_epoch or 0, self._view.plans.highest_epoch or 0]
        try:
            raw = await self._store.planner_lease()
            epoch = 0 if raw is None else self._trust.read(PlannerLease, raw, unix_now=None).epoch
            if is_of_no_clock(epoch, self._unix_clock()):
                logger.warning("the epoch of the planner's lease is from no clock: passed over: %d", epoch)
            else:
                seen.append(epoch)
        except (StoreError, RecordError) as error:
            logger.debug("no planner's lease can be read: %s", error)
        self._highest_epoch = max(seen)

    def _lose(self, why: str) -> None:
        self.figures.is_leader = False
        self._leads_until = float("-inf")
        self._events.add("plan", f"this router no longer plans: {why}")

    async def _read_demand(self) -> None:
        """What every router was asked for of late."""
        try:
            records = await self._store.routers()
        except StoreError:
            return
        newest: dict[str, RouterPresence] = {}
        unix_now = self._unix_clock()
        for raw in records:
            try:
                record = self._trust.read(RouterPresence, raw, unix_now=unix_now)
            except RecordError as error:
                self._view.refuse("RouterPresence", error.reason, str(error))
                continue
            known = newest.get(record.router_id)
            if known is None or known.sequence < record.sequence:
                newest[record.router_id] = record  # each counts once, under however many names it lies
        loads = [from_record(record.demand, CLASSES) for record in newest.values()]
        self._maker.take_loads(add_loads(loads), self._clock())

    # planning
    def _sites(self) -> dict[str, SiteRecordsView]:
        power = self._view.snapshot.power
        found = {}
        for site_id in self._view.known_sites():
            kept = self._view.records(site_id)
            if kept is not None and self._view.cordons.of(site_id) is None:
                found[site_id] = SiteRecordsView(
                    info=kept.info, report=kept.report, outlook=power.get(site_id)
                )
        return found

    def _begin(self, kind: PlanKind, sites: dict[str, SiteRecordsView], now: float) -> None:
        question = self._maker.begin(kind, sites, now)
        self._solving[kind] = asyncio.create_task(self._solve(question))

    async def _solve(self, question: Question) -> None:
        began = self._clock()
        task, planned, why = None, None, ""
        try:
            task = await asyncio.to_thread(question.task)  # requests may be forwarded in this process
            planned = await self._solvers[task.kind].solve(task, timeout_seconds=self._config.timeout_seconds)
            why = "" if planned.is_usable else f"{planned.status}: {planned.explanation}"
            if not why:
                why = await self._publish(task, planned, self._clock() - began)
        except SolverFailedError as error:
            why = str(error)
        except Exception as error:
            logger.exception("planning failed: please report this")
            why = repr(error)
        finally:
            self._solving.pop(question.kind, None)
        self._note(question.kind, task, planned, why, self._clock() - began)

    async def _publish(self, task: Task, planned: Planned, seconds: float) -> str:
        """Why the plan was not published; empty: it was."""
        if not self.is_leader or self._epoch is None:
            return "the lease was lost meanwhile"
        unix = self._unix_clock()
        self._sequence = next_sequence(self._sequence, None, round(unix * 1000))
        try:
            plan = self._maker.plan(
                task,
                planned,
                self._view.infos(),
                router_id=self._router_id,
                sequence=self._sequence,
                epoch=self._epoch,
                solved_at_unix_seconds=unix,
                solver_seconds=seconds,
            )
        except BrokenPlanError as error:
            return str(error)
        raw = self._signer.to_json(plan, unix_now=unix)
        if len(raw) > plan.max_bytes:
            return f"it has {len(raw)} bytes, at most {plan.max_bytes}"
        self._view.take_plan(raw)
        try:
            await self._store.publish_plan(raw, self._config.valid_for_seconds)
        except StoreError as error:
            return f"Redis does not take it: {error}"
        return ""

    def _note(
        self, kind: PlanKind, task: Task | None, planned: Planned | None, why: str, seconds: float
    ) -> None:
        result = "failed" if why else "ok"
        figures = self.figures
        figures.solves[kind, result] = figures.solves.get((kind, result), 0) + 1
        figures.seconds[(kind,)] = seconds
        if task is None or planned is None or why:
            self._maker.failed(kind, self._clock())
            self._say(kind, f"no {kind} plan: {why}; the last one stays until it is over", why)
            return
        self._maker.solved(kind, planned)
        figures.shortfall_requests_per_second = short = sum(planned.shortfall.values())
        figures.unplanned_sites = len(planned.unplanned)
        instances = sum(target.instances for targets in planned.targets.values() for target in targets)
        orders = orders_of(self._maker.targets, task.problem.sites)
        self._say(
            kind,
            f"{kind} plan: {instances} instances carry it, {len(orders)} sites are to split their GPUs anew, "
            f"{short:.1f} requests/s that no site can serve, in {seconds:.2f} s",
            f"{short > SHORTFALL_WORTH_SAYING}",
        )

    def _say(self, kind: PlanKind, message: str, gist: str) -> None:
        """An event. Fast plans come every few seconds: only where the gist is not that of the last one."""
        if kind == "slow" or gist != self._said:
            self._events.add("plan", message)
        if kind == "fast":
            self._said = gist

    async def _stop_solving(self) -> None:
        tasks = list(self._solving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._solving.clear()
