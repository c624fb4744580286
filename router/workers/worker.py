"""A worker: forwards what its parent hands it, on records that its parent relays, and ends with its parent.

It listens to nothing and speaks to no Redis. Signals are the parent's affair: one that is sent to the whole
group (Ctrl-C, systemd) must not end a worker before the requests that it has. `kill -9` of the parent ends it
at once, by the kernel (PR_SET_PDEATHSIG) and by the end of the parent's socket, whichever is first.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import signal
import socket
import sys
import time
from typing import Any

import orjson
import uvloop

from fleet.log import configure_logging
from fleet.loops import end
from fleet.parent import die_with_parent
from fleet.signing import BELIEVES_ALL
from gateway.garbage import relax_collector
from gateway.server import HttpServer
from router.live.data_plane import DataPlane
from router.live.demand_meter import to_json as demand_to_json
from router.live.events import EventKind, EventLevel, EventRing
from router.live.metrics import StateCollector
from router.live.site_counts import count_sites
from router.live.sites import SiteRegistry
from router.live.state_metrics import traffic_families
from router.policy.key_ring import KeyRing
from router.policy.quota_member import QuotaMember
from router.policy.shared_load import Shared
from router.workers.frames import Frame, Kind, decode_record, encode
from router.workers.key_relay import keys_from_json
from router.workers.link import Link
from router.workers.merge import to_json
from router.workers.prometheus import read_page
from router.workers.quotas import standings_of
from router.workers.setup import WorkerSetup
from router.workers.shared import SharedLedger, SharedMemory

logger = logging.getLogger(__name__)

STATE_SECONDS = 1.0
STATES_PER_METRICS = 5
"""All metrics are sent every so many seconds, beside every scrape: so much is lost with a killed worker."""
MAX_HANDED_AT_ONCE = 64
"""Connections taken in one turn of the loop."""
LAST_TAKEN_SECONDS = 0.5
"""For the handshakes of those that were accepted last."""
LAST_FRAMES_SECONDS = 2.0
OWN_EVENTS: frozenset[EventKind] = frozenset({"breaker"})
"""What only a worker sees; the rest the parent sees itself, or tells of all workers together (BREAK)."""
ORPHANED = 1
"""Exit status when the parent is gone."""


SPENT_SECONDS = 0.25
"""Between two words on what was spent of keys' quotas."""


class _WorkerEvents(EventRing):
    """Tells the parent, which has the timeline and the log."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def add(
        self, kind: EventKind, text: str, *, site_id: str | None = None, level: EventLevel | None = None
    ) -> None:
        if kind in OWN_EVENTS:
            self._link.send(encode(Kind.EVENT, orjson.dumps([kind, text, site_id, level])))


class Worker:
    """Made when the SETUP frame has come."""

    def __init__(self, setup: WorkerSetup, link: Link, hand: socket.socket, memory: SharedMemory) -> None:
        self._link = link
        self._hand = hand
        self._family = socket.AF_INET6 if setup.is_ipv6 else socket.AF_INET
        self._index = setup.index
        self._memory = memory
        self._page = memory.pages[setup.index]
        self._slots: dict[tuple[str, str], int] = {}
        self._of_slots: dict[int, tuple[str, str]] = {}
        self._loop = asyncio.get_running_loop()
        self._config = setup.own_config
        self._policy = self._config.policy
        self._ring = KeyRing() if self._config.auth == "keys" else None
        self._quotas = None if self._ring is None else QuotaMember(self._ring)
        self._sites = SiteRegistry(self._shared)
        self._plane = DataPlane(
            setup.fleet,
            self._config,
            events=_WorkerEvents(link),
            ledger=SharedLedger(self._page),
            sites=self._sites,
            ring=self._ring,
            trust=BELIEVES_ALL,  # the parent has judged what it relays
            clock=self._loop.time,
            rng=random.Random(),
        )
        StateCollector(
            self._plane.metrics, lambda: traffic_families(self._sites, self._plane.dispatcher.held_by_tier)
        )
        self._server = HttpServer(
            self._plane.application(),
            hot=self._plane.hot_route(),
            head_refusal=self._plane.head_refusal,
            cors=self._plane.cors,
            allows_half_close=True,
            host=self._config.host,
            port=self._config.port,
            max_body_bytes=self._config.max_body_bytes,
            is_listening=False,
            on_lost=self._page.count_closed,
            tls=self._plane.tls.port,
        )
        self._taking: set[asyncio.Task[None]] = set()
        self._stop_asked = asyncio.Event()
        self._grace_seconds = 0.0
        self.is_known = asyncio.Event()
        """The parent has sent all that it knows."""

    def take(self, frame: Frame) -> None:
        """What the parent says."""
        match frame.kind:
            case Kind.REPORT | Kind.INFO | Kind.POWER | Kind.PLAN | Kind.CORDON | Kind.FORGET:
                self._take_record(frame.kind, *decode_record(frame.body))
            case Kind.SLOT:
                self._take_slot(*orjson.loads(frame.body))
            case Kind.KEYS | Kind.KEYS_READ | Kind.QUOTAS:
                if self._ring is not None and self._quotas is not None:
                    self._take_keys(frame, self._ring, self._quotas)
            case Kind.POLICY:
                self._policy, parameters = orjson.loads(frame.body)
                self._plane.route_by(self._policy, parameters)
            case Kind.KNOWN:
                self.is_known.set()
            case Kind.ASK:
                number, kind = orjson.loads(frame.body)
                self._send(Kind(kind), number)
            case Kind.STOP:
                self._grace_seconds = orjson.loads(frame.body)
                self._stop_asked.set()
            case _:
                raise AssertionError(f"{frame.kind!r} is not for a worker")

    def _take_keys(self, frame: Frame, ring: KeyRing, quotas: QuotaMember) -> None:
        now = self._loop.time()
        match frame.kind:
            case Kind.KEYS:
                ring.take(keys_from_json(frame.body), now)  # what it refuses the parent has refused, and told
            case Kind.KEYS_READ:
                ring.note_read(now)
            case Kind.QUOTAS:
                quotas.take(standings_of(frame.body), now)

    def _take_record(self, kind: Kind, site_id: str, raw: bytes) -> None:
        view = self._plane.view
        match kind:
            case Kind.REPORT:
                view.take_report(raw, "event", site_id)
            case Kind.INFO:
                view.take_info(raw, site_id)
            case Kind.POWER:
                view.take_power(raw, site_id)
            case Kind.PLAN:
                view.take_plan(raw)
            case Kind.CORDON:
                view.take_cordon(raw, site_id)
            case Kind.FORGET:
                view.forget(site_id)

    async def run(self) -> None:
        """Serve until told to stop; returns when nothing is under way any more."""
        await self.is_known.wait()
        await self._server.start()
        self._loop.add_reader(self._hand.fileno(), self._take_handed)
        relax_collector()
        self._link.send(encode(Kind.READY))
        loops = [*self._plane.loops(), self._plane.keep("news", self._tell)]
        if self._quotas is not None:
            loops.append(self._plane.keep("quotas", functools.partial(self._tell_spent, self._quotas)))
        stop = asyncio.create_task(self._stop_asked.wait())
        done, _ = await asyncio.wait([*loops, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # a loop that ended has failed
        self._loop.remove_reader(self._hand.fileno())
        self._take_handed()  # accepted before the parent closed its port
        if self._taking:
            _, late = await asyncio.wait(self._taking, timeout=LAST_TAKEN_SECONDS)
            await end(late)
        await self._plane.shut_down(self._server, self._grace_seconds)
        await end(loops)
        await self._plane.aclose()
        self._plane.view.tell()
        self._send(Kind.METRICS)
        self._send(Kind.STATE)

    def _take_handed(self) -> None:
        """Connections that the parent accepted."""
        for _ in range(MAX_HANDED_AT_ONCE):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._hand, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._hand.fileno())
                return
            if not descriptors:  # no room for one more: the kernel has closed it
                self._page.count_closed()
            for descriptor in descriptors:
                connection = socket.socket(self._family, socket.SOCK_STREAM, 0, fileno=descriptor)
                task = self._loop.create_task(self._take_connection(connection))
                self._taking.add(task)
                task.add_done_callback(self._taking.discard)

    async def _take_connection(self, connection: socket.socket) -> None:
        try:
            await self._server.take(connection)
        except BaseException as error:
            self._page.count_closed()
            if not isinstance(error, OSError):
                raise
            logger.debug("a connection was gone before it was served: %s", error)

    def _shared(self, site_id: str, model: str) -> Shared | None:
        slot = self._slots.get((site_id, model))
        return None if slot is None else self._memory.part(slot, self._index)

    def _take_slot(self, site_id: str, model: str, slot: int) -> None:
        before = self._of_slots.get(slot)
        if before is not None and self._slots.get(before) == slot:
            del self._slots[before]  # the parent has taken it back
        self._of_slots[slot] = (site_id, model)
        self._slots[site_id, model] = slot
        load = self._sites.loads.get(model, {}).get(site_id)
        if load is not None:
            load.share(self._memory.part(slot, self._index))

    async def _tell(self) -> None:
        """Once a second what it does, now and then all metrics."""
        turn = 0
        while True:
            await asyncio.sleep(STATE_SECONDS)
            turn += 1
            for one in self._plane.view.take_breaks():
                self._link.send(encode(Kind.BREAK, orjson.dumps(one)))
            self._plane.view.tell()
            self._send(Kind.STATE)
            if turn % STATES_PER_METRICS == 0:
                self._send(Kind.METRICS)

    async def _tell_spent(self, quotas: QuotaMember) -> None:
        """What was spent of keys' quotas here, until cancelled."""
        while True:
            await asyncio.sleep(SPENT_SECONDS)
            if spendings := quotas.report():
                self._link.send(encode(Kind.SPENT, orjson.dumps([list(one) for one in spendings])))

    def _send(self, kind: Kind, ask: int = 0) -> None:
        value: dict[str, Any]
        if kind is Kind.METRICS:
            value = {"ask": ask, "page": to_json(read_page(self._plane.registry.collect()))}
        else:
            value = {
                "ask": ask,
                "held": self._plane.dispatcher.held,
                "policy": self._policy,
                "sites": count_sites(self._sites),
                "demand": demand_to_json(self._plane.metrics.demand.totals),
                "cpu_seconds": time.process_time(),
            }
        self._link.send(encode(kind, orjson.dumps(value)))


async def work(control: socket.socket, hand: socket.socket, memory_descriptor: int) -> None:
    """Run a worker over these sockets until its parent tells it to stop."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Worker] = loop.create_future()
    is_ending = False
    lost = asyncio.Event()

    def on_frame(frame: Frame) -> None:
        if made.done():
            made.result().take(frame)
            return
        setup = WorkerSetup.model_validate_json(frame.body)
        configure_logging(f"router-worker-{setup.index}", setup.log_level)
        memory = SharedMemory(memory_descriptor, setup.workers)
        made.set_result(Worker(setup, link, hand, memory))

    def on_lost() -> None:
        if not is_ending:
            os._exit(ORPHANED)  # the parent is gone, and nothing that is under way may outlive it
        lost.set()

    link = Link(on_frame, on_lost)
    await loop.create_unix_connection(lambda: link, sock=control)
    worker = await made
    await worker.run()
    is_ending = True
    link.finish()
    async with asyncio.timeout(LAST_FRAMES_SECONDS):
        await lost.wait()


def main(arguments: list[str]) -> None:
    """`python -m router.workers.worker PARENT_PID CONTROL HAND MEMORY`: descriptors from the parent."""
    parent, control, hand, memory = map(int, arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not die_with_parent(parent):
        sys.exit(ORPHANED)
    control_socket, hand_socket = socket.socket(fileno=control), socket.socket(fileno=hand)
    hand_socket.setblocking(False)
    uvloop.run(work(control_socket, hand_socket, memory))


if __name__ == "__main__":
    main(sys.argv[1:])
