"""Who this router is: said in the log once it listens, to operators, and in Redis while it lives."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any

from fleet.records import RouterPresence
from fleet.signing import RecordSigner
from fleet.store import Store, StoreError
from fleet.version import installed_version
from router.config import RouterConfig
from router.live.demand_meter import DemandWindow, Totals, to_record

logger = logging.getLogger(__name__)

PRESENCE_SECONDS = 5.0
PRESENCE_TTL_SECONDS = 15


class Presence:
    """One per router. Nothing depends on its record."""

    def __init__(
        self,
        config: RouterConfig,
        store: Store,
        *,
        demand: Callable[[], Totals],
        rng: random.Random,
        policy: Callable[[], str],
        signer: RecordSigner,
    ) -> None:
        """`demand`: what clients asked for so far; `policy`: the one that routes now."""
        self.router_id = f"{os.getpid()}-{rng.getrandbits(32):08x}"
        self._about: dict[str, Any] = {}
        self._policy = policy
        self._signer = signer
        self._config = config
        self._demand = demand
        self._window = DemandWindow()
        self._store = store
        self._sequence = time.time_ns() // 1_000_000
        self.started_at_unix_seconds = time.time()

    @property
    def about(self) -> dict[str, Any]:
        """What it is; empty before `listens`."""
        return {**self._about, "policy": self._policy()} if self._about else {}

    def listens(self, port: int, operations_port: int) -> None:
        """The router listens there from now on."""
        config = self._config
        self._about = {
            "router_id": self.router_id,
            "url": f"{'https' if config.speaks_tls else 'http'}://{config.host}:{port}",
            "operations_url": f"http://{config.operations_host}:{operations_port}",
            "version": installed_version(),
            "auth": config.auth,
            "workers": config.workers,
        }
        logger.info("router listens", extra=self.about)
        if config.auth == "open":
            logger.warning('auth = "open": whoever reaches %s:%d may use this fleet', config.host, port)

    async def run(self) -> None:
        """Write the record until cancelled."""
        while True:
            self._sequence += 1
            self._window.take(self._demand(), time.monotonic())
            about = self.about
            record = RouterPresence(
                sequence=self._sequence,
                router_id=self.router_id,
                started_at_unix_seconds=self.started_at_unix_seconds,
                url=about["url"],
                operations_url=about["operations_url"],
                version=about["version"],
                policy=about["policy"],
                workers=self._config.workers,
                demand=to_record(self._window.loads()),
            )
            raw = self._signer.to_json(record, unix_now=time.time())
            try:
                await self._store.publish_router(self.router_id, raw, PRESENCE_TTL_SECONDS)
            except StoreError as error:
                logger.debug("presence not written: %s", error)
            await asyncio.sleep(PRESENCE_SECONDS)
