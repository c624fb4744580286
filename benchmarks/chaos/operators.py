"""What operators do meanwhile: cordon a site, switch a policy, add and revoke keys, restore lost ones."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from benchmarks.chaos.fleet import ChaosFleet, NotDoneError
from benchmarks.chaos.incidents import Incident
from benchmarks.chaos.schedule import ROUTERS, SITES, Fault
from fleet.api_key import key_id
from fleet.records import ApiKey, Cordon
from fleet.store import Store, StoreError

KEYS_KNOWN_SECONDS = 3.0
"""Routers read keys each second, and say so within 2 s (docs/admission.md)."""
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 20.0


class Operators:
    """They talk to Redis and to the routers' operations ports, and try again."""

    def __init__(
        self, fleet: ChaosFleet, *, key: str, rng: random.Random, incidents: Sequence[Incident]
    ) -> None:
        self._fleet = fleet
        self._key = key
        self._rng = rng
        self._incidents = incidents

    async def switch(self, router: str, policy: str) -> None:
        """Another policy, at one router.

        Raises:
            NotDoneError: it did not take it.
        """
        try:
            answer = await self._fleet.client.put(
                f"{self._fleet.operations[router]}/heron/v1/policy", json={"policy": policy}
            )
        except httpx.HTTPError as error:
            raise NotDoneError(repr(error)) from None
        if answer.status_code != 200:
            raise NotDoneError(f"{answer.status_code}: {answer.text[:200]}")

    async def write_cordon(self, site_id: str, record: Cordon) -> None:
        """As `heron cordon` does.

        Raises:
            NotDoneError: Redis does not answer; `lift`, `exercise_keys` and `write_key` the same.
        """
        async with self._store() as store:
            await store.write_cordon(site_id, record.to_json(), None)

    async def lift(self, site_id: str) -> None:
        """As `heron cordon SITE --lift` does."""
        now = float(int(time.time()))
        await self.write_cordon(site_id, Cordon(since_unix_seconds=now, lifted_at_unix_seconds=now))

    async def insist(self, act: Callable[[], Awaitable[None]]) -> None:
        """An operator tries again."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await act()
            except NotDoneError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def exercise_keys(self, fault: Fault) -> None:
        """A key that was added opens every router; once it is revoked, none. Judged where Redis was well."""
        key = f"hk-chaos-{self._rng.getrandbits(64):x}"
        began = time.time()
        await self.write_key(key)
        await asyncio.sleep(KEYS_KNOWN_SECONDS)
        before = await self._statuses(key)
        async with self._store() as store:
            await store.update_api_key(key_id(key.encode()), {"revoked_at_unix_seconds": repr(time.time())})
        await asyncio.sleep(KEYS_KNOWN_SECONDS)
        after = await self._statuses(key)
        await asyncio.sleep(max(0.0, began + fault.seconds - time.time()))
        if any(one.ended_at + KEYS_KNOWN_SECONDS > began for one in self._incidents if "redis" in one.what):
            return
        for name, wanted, statuses in (("an added", 200, before), ("a revoked", 401, after)):
            for router, status in statuses.items():
                if status not in (wanted, None) and self._was_up(router, began):
                    self._fleet.violations.append(f"{router} answered {status} to {name} key, not {wanted}")

    def _was_up(self, router: str, since: float) -> bool:
        started = self._fleet.started_at.get(router)
        return started is not None and started < since

    async def _statuses(self, key: str) -> dict[str, int | None]:
        """GET /v1/models of every router with this key; None: it does not answer."""
        found: dict[str, int | None] = {}
        for name in ROUTERS:
            url = f"http://127.0.0.1:{self._fleet.routers[name].port}/v1/models"
            try:
                answer = await self._fleet.client.get(url, headers={"authorization": f"Bearer {key}"})
                found[name] = answer.status_code
            except httpx.HTTPError:
                found[name] = None
        return found

    async def write_key(self, key: str | None = None) -> None:
        """`heron keys add` or, after Redis lost it, `restore`."""
        record = ApiKey(
            tenant="chaos",
            tiers=("priority", "default", "flex"),
            created_at_unix_seconds=float(int(time.time())),
        )
        async with self._store() as store:
            await store.write_api_key(key_id((key or self._key).encode()), record.to_hash())

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        store = self._fleet.store()
        try:
            yield store
        except StoreError as error:
            raise NotDoneError(repr(error)) from None
        finally:
            await store.aclose()

    async def restore(self) -> None:
        """What an operator leaves behind: no cordon, the default policy, a key."""
        await self.insist(self.write_key)
        for site_id in SITES:
            await self.insist(lambda site_id=site_id: self.lift(site_id))  # type: ignore[misc]
        for router in ROUTERS:
            await self.insist(lambda router=router: self.switch(router, "heron"))  # type: ignore[misc]
