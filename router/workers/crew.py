"""All workers of a router: started, started again when they end, told what the parent learns, counted out
when they die.

Rule: what a worker has counted is counted once, whatever becomes of it. Its requests stand in shared memory;
when it is killed those that were under way are counted as failed, and everything moves to `ended` in one
step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fleet.config import FleetConfig
from fleet.failure import ServiceError
from gateway.tls_config import caller_files
from router.config import RouterConfig
from router.live.data_plane import site_token
from router.live.demand_meter import Totals, add_json
from router.live.events import EventRing
from router.live.fleet_view import FleetView, RecordKind
from router.live.ledger import UNKNOWN_MODEL, Ledger, Outcome
from router.live.site_counts import SiteCounts, finished_counts, sum_sites
from router.policy.shared_load import Shared
from router.workers.child import Child
from router.workers.frames import Kind, encode, encode_record
from router.workers.merge import Page, end
from router.workers.setup import WorkerSetup
from router.workers.shared import SLOTS, SharedMemory

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0
SOUND_SECONDS = 30.0
"""A worker that lived so long is started again at once when it dies."""
PARENT = 0
"""The parent sends no request, so it writes no worker's cell of the board."""
OTHERS_READY_SECONDS = 15.0
"""Once one worker serves: for the others to start, before clients are let in."""
NO_WORKER_SECONDS = 60.0
"""No worker serves for so long: the router ends. Its clients, who wait in its port's backlog, are refused
then, and what started it learns of it."""
WATCH_SECONDS = 1.0
ASK_SECONDS = 0.5
"""Workers have so long to answer; of one that does not, what it said last is used."""
STOP_MARGIN_SECONDS = 3.0
"""Beyond the grace: a worker that is not gone by then is killed."""
RESEND_SECONDS = 1.0
SITES_PER_RESEND = 100
"""A worker may refuse a record that the parent took (of a second writer, a moment too early for it): records
are sent again in turn, and those that are known cost a comparison."""
RELAYED: dict[RecordKind, Kind] = {
    "report": Kind.REPORT,
    "info": Kind.INFO,
    "power": Kind.POWER,
    "plan": Kind.PLAN,
    "cordon": Kind.CORDON,
    "forgotten": Kind.FORGET,
}


class Crew:
    """One per parent."""

    def __init__(
        self,
        fleet: FleetConfig,
        config: RouterConfig,
        *,
        view: Callable[[], FleetView],
        keys: Callable[[], Sequence[bytes]],
        policy: Callable[[], bytes],
        spent: Callable[[Child, bytes], None],
        events: EventRing,
        clock: Callable[[], float],
    ) -> None:
        """`policy`: the frame that says which routes now; `spent` takes a worker's word on quotas."""
        self._fleet = fleet
        self._config = config
        self._view = view
        self._keys = keys
        self._policy = policy
        self._spent = spent
        self._events = events
        self._clock = clock
        self._memory = SharedMemory.create(config.workers)
        self._slots: dict[tuple[str, str], int] = {}
        self._free_slots = list(range(SLOTS))
        self._is_stopping = False
        self._asks = 0
        self._resend_from = 0
        self.children: list[Child | None] = [None] * config.workers
        """By index; None between two lives."""
        self._is_one_ready = asyncio.Event()
        self._are_all_ready = asyncio.Event()
        self.restarts = 0
        self.lost_requests = 0
        """Were under way in workers that died; counted as failed."""
        self.requests = [0] * config.workers
        """By index, of lives that are over."""
        self.ended_ledger = Ledger()
        self.ended_metrics: Page = {}
        self.ended_sites: dict[str, SiteCounts] = {}
        self.ended_demand: Totals = {}

    @property
    def living(self) -> list[Child]:
        """Workers that have a process."""
        return [child for child in self.children if child is not None]

    @property
    def ready(self) -> int:
        """How many serve."""
        return sum(1 for child in self.living if child.is_ready)

    async def wait_until_one_is_ready(self) -> None:
        """Some worker serves."""
        await self._is_one_ready.wait()

    async def wait_until_ready(self) -> None:
        """Every worker serves, or one does and the others take too long."""
        await self.wait_until_one_is_ready()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OTHERS_READY_SECONDS):
                await self._are_all_ready.wait()

    def _note_ready(self) -> None:
        self._is_one_ready.set()
        if self.ready == len(self.children):
            self._are_all_ready.set()

    # what the parent learns, told to all
    def shared(self, site_id: str, model: str) -> Shared | None:
        """Called as the parent's registry meets a (site, model): it gets a slot of the board, for all."""
        if (site_id, model) not in self._slots:
            if not self._free_slots:
                self._take_slots_back()
            if not self._free_slots:
                logger.warning("more than %d sites' models: workers count alone", SLOTS)
                return None
            self._slots[site_id, model] = self._free_slots.pop()
            self.tell_all(self._slot_frame(site_id, model))
        return self._memory.part(self._slots[site_id, model], PARENT, takes_reports=True)

    def _take_slots_back(self) -> None:
        """Of models that are known no more, and that no worker has requests for."""
        loads = self._view().registry.loads
        for (site_id, model), slot in list(self._slots.items()):
            if site_id not in loads.get(model, ()) and self._memory.empty(slot):
                del self._slots[site_id, model]
                self._free_slots.append(slot)

    def relay(self, kind: RecordKind, site_id: str, raw: bytes) -> None:
        """A record that the parent uses."""
        self.tell_all(encode_record(RELAYED[kind], site_id, raw))

    def tell_all(self, frame: bytes) -> None:
        """Send a frame to every worker."""
        for child in self.living:
            child.send(frame)

    def _slot_frame(self, site_id: str, model: str) -> bytes:
        return encode(Kind.SLOT, orjson.dumps([site_id, model, self._slots[site_id, model]]))

    def _tell_known(self, child: Child) -> None:
        """All that a new worker must know before it serves."""
        for site_id, model in self._slots:
            child.send(self._slot_frame(site_id, model))
        for site_id in self._view().known_sites():
            self._tell_site(child, site_id)
        self._tell_plan(child)
        for frame in self._keys():
            child.send(frame)
        child.send(self._policy())
        child.send(encode(Kind.KNOWN))

    def _tell_plan(self, child: Child) -> None:
        if raw := self._view().plans.raw:
            child.send(encode_record(Kind.PLAN, "", raw))

    def _tell_site(self, child: Child, site_id: str) -> None:
        kept = self._view().records(site_id)
        if kept is None:
            return
        for kind, raw in (
            (Kind.CORDON, self._view().cordons.raw_of(site_id)),
            (Kind.REPORT, kept.raw_report),
            (Kind.INFO, kept.raw_info),
            (Kind.POWER, kept.raw_power),
        ):
            if raw:
                child.send(encode_record(kind, site_id, raw))

    async def resend_forever(self) -> None:
        """Every second a part of what is known."""
        while True:
            await asyncio.sleep(RESEND_SECONDS)
            sites = self._view().known_sites()
            if self._resend_from >= len(sites):
                self._resend_from = 0
            part = sites[self._resend_from : self._resend_from + SITES_PER_RESEND]
            self._resend_from += SITES_PER_RESEND
            for child in self.living:
                for site_id in part:
                    self._tell_site(child, site_id)
                self._tell_plan(child)

    # lives
    async def keep(self, index: int) -> None:
        """Run one worker, and again when it dies, until `stop` (then this returns) or cancelled."""
        backoff = FIRST_BACKOFF_SECONDS
        while not self._is_stopping:
            started_at = self._clock()
            try:
                how = f"ended ({_how(await self._live(index))}): it is started again"
            except OSError as error:  # no memory, no descriptors: those that serve go on
                how = f"cannot be started ({error.strerror or error}): it is tried again"
            if self._is_stopping:
                return
            self.restarts += 1
            if self._clock() - started_at >= SOUND_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._events.add("worker", f"worker {index} {how}", level="bad")
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    async def watch(self) -> None:
        """Until `stop`.

        Raises:
            ServiceError: no worker has served for NO_WORKER_SECONDS.
        """
        served_at = self._clock()
        while not self._is_stopping:
            await asyncio.sleep(WATCH_SECONDS)
            if self.ready:
                served_at = self._clock()
            elif not self._is_stopping and self._clock() - served_at >= NO_WORKER_SECONDS:
                raise ServiceError(
                    f"no worker has served for {NO_WORKER_SECONDS:g} s; how each of them ended is in the log"
                )

    async def _live(self, index: int) -> int:
        child = Child(
            self._setup(index),
            self._memory,
            on_event=self._note,
            on_break=lambda site_id, reason, count: self._view().note_break(site_id, reason, count),
            on_ready=self._note_ready,
            on_spent=self._spent,
        )
        try:
            await child.start()
            self.children[index] = child
            self._tell_known(child)
            if self._is_stopping:
                child.kill()
            return await child.wait()
        finally:
            child.kill()
            self.children[index] = None
            child.close()
            self._count_out(child)
            child.counted.set()

    def _setup(self, index: int) -> WorkerSetup:
        return WorkerSetup(
            index=index,
            workers=self._config.workers,
            is_ipv6=":" in self._config.host,
            log_level=logging.getLevelName(logging.getLogger().getEffectiveLevel()).lower(),
            config=self._config,
            site_token=site_token(self._fleet),
            max_clock_skew_seconds=self._fleet.max_clock_skew_seconds,
            calls=caller_files(self._fleet),
        )

    def _note(self, index: int, event: list[Any]) -> None:
        kind, text, site_id, level = event
        self._events.add(kind, f"worker {index}: {text}", site_id=site_id, level=level)

    def _count_out(self, child: Child) -> None:
        ledger = child.page.read_ledger()
        lost = ledger.in_flight
        if lost:
            key: tuple[str, Outcome] = (UNKNOWN_MODEL, "failed")
            ledger.by_model[key] = ledger.by_model.get(key, 0) + lost
            ledger.in_flight = 0
            self.lost_requests += lost
        self.ended_ledger.add(ledger)
        self.requests[child.index] += ledger.requests
        end(self.ended_metrics, child.metrics)
        self.ended_sites = sum_sites((self.ended_sites, finished_counts(child.sites)))
        add_json(self.ended_demand, child.demand)
        self._memory.clear_worker(child.index)

    async def stop(self, grace_seconds: float) -> None:
        """Every worker finishes what it has within the grace; returns when all are gone and counted."""
        self._is_stopping = True
        for child in self.living:
            if child.is_ready:
                child.stop(grace_seconds)
            else:
                child.kill()
        try:
            async with asyncio.timeout(grace_seconds + STOP_MARGIN_SECONDS):
                await asyncio.gather(*(child.counted.wait() for child in self.living))
        except TimeoutError:
            for child in self.living:
                logger.error("a worker did not end within the grace", extra={"worker": child.index})  # noqa: TRY400
                child.kill()
            await asyncio.gather(*(child.counted.wait() for child in self.living))

    # what they count
    def ledger(self) -> Ledger:
        """Of all workers, dead ones too."""
        total = Ledger()
        total.add(self.ended_ledger)
        for child in self.living:
            total.add(child.page.read_ledger())
        return total

    def requests_of(self, index: int) -> int:
        """That one worker index has taken, in all its lives."""
        child = self.children[index]
        return self.requests[index] + (0 if child is None else child.page.requests)

    def demand(self) -> Totals:
        """What clients asked for so far, as workers said it last."""
        totals = {key: list(entry) for key, entry in self.ended_demand.items()}
        for child in self.living:
            add_json(totals, child.demand)
        return totals

    def sites(self, site_ids: Sequence[str] | None = None) -> dict[str, SiteCounts]:
        """As workers said it last. `site_ids`: of these alone."""
        parts = [self.ended_sites, *(child.sites for child in self.living)]
        if site_ids is not None:
            parts = [{key: part[key] for key in site_ids if key in part} for part in parts]
        return sum_sites(parts)

    def pages(self) -> list[Page]:
        """Metrics, as workers said them last (every few seconds); of dead ones their counters."""
        return [self.ended_metrics, *(child.metrics for child in self.living)]

    async def ask(self, kind: Kind) -> None:
        """Have every worker say it now; those that do not answer in time are left at what they said last."""
        self._asks += 1
        answers = [child.ask(self._asks, kind) for child in self.living if child.is_ready]
        if answers:
            _, late = await asyncio.wait(answers, timeout=ASK_SECONDS)
            for answer in late:
                answer.cancel()


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit status {code}"
