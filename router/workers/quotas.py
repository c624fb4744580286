"""Quotas of keys that a router's workers share: the parent's ring holds what is left, and is shared itself
with the fleet's other routers (`router.live.quota_sharing`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson

from fleet.quota_book import Spending, Standing
from router.live.quota_sharing import SHARE_SECONDS, QuotaSharing
from router.policy.key_ring import KeyRing
from router.policy.quota import Bucket
from router.workers.child import Child
from router.workers.frames import Kind, encode


class CrewQuotas:
    """One per parent."""

    def __init__(
        self,
        ring: KeyRing,
        children: Callable[[], Sequence[Child]],
        sharing: QuotaSharing,
        clock: Callable[[], float],
    ) -> None:
        self._ring = ring
        self._sharing = sharing
        self._children = children
        self._clock = clock
        self._is_told = False
        """Something was, so that its end must be."""

    def take(self, child: Child, body: bytes) -> None:
        """A worker's SPENT frame: what it spent since it began."""
        now = self._clock()
        for one in (Spending(*values) for values in orjson.loads(body)):
            credential = self._ring.credential(one.key_id)
            if credential is None:
                continue
            before = child.spendings.get(one.key_id)
            child.spendings[one.key_id] = one
            quota = credential.quota
            _take(quota.requests, one.requests - (0.0 if before is None else before.requests), now)
            _take(quota.tokens, one.tokens - (0.0 if before is None else before.tokens), now)

    def loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """By name; each runs until cancelled."""
        return {"quotas": self._sharing.run, "workers' quotas": self._tell_on}

    async def _tell_on(self) -> None:
        while True:
            await asyncio.sleep(SHARE_SECONDS)
            self.tell()

    def tell(self) -> None:
        """Tell every worker where keys stand that are in use."""
        children, now = self._children(), self._clock()
        in_flight = Counter[str]()
        for child in children:
            for key_id, one in child.spendings.items():
                in_flight[key_id] += one.in_flight
        used: list[tuple[str, float | None, float | None, int]] = []
        for credential in self._ring.credentials():
            quota = credential.quota
            if not quota.is_limited:
                continue
            quota.in_flight = in_flight[credential.key_id]
            levels = [None if one is None else one.refill(now) for one in (quota.requests, quota.tokens)]
            under_way = quota.in_flight + quota.in_flight_elsewhere
            if under_way or not (_is_full(quota.requests) and _is_full(quota.tokens)):
                used.append((credential.key_id, levels[0], levels[1], under_way))
        if used or self._is_told:
            for child in children:
                told = [list(one) for one in _for_child(child, used)]
                child.send(encode(Kind.QUOTAS, orjson.dumps(told)))
        self._is_told = bool(used)


def _for_child(
    child: Child, used: Iterable[tuple[str, float | None, float | None, int]]
) -> Iterable[Standing]:
    for key_id, requests, tokens, under_way in used:
        own = child.spendings.get(key_id)
        counted = None if own is None else (own.requests, own.tokens)
        yield Standing(key_id, requests, tokens, counted, under_way - (0 if own is None else own.in_flight))


def _take(bucket: Bucket | None, amount: float, now: float) -> None:
    if bucket is not None and amount:
        bucket.refill(now)
        bucket.take(amount)


def _is_full(bucket: Bucket | None) -> bool:
    return bucket is None or bucket.level >= bucket.per_minute


def standings_of(body: bytes) -> list[Standing]:
    """Of a QUOTAS frame."""
    found: list[list[Any]] = orjson.loads(body)
    return [
        Standing(key_id, requests, tokens, None if counted is None else tuple(counted), elsewhere)
        for key_id, requests, tokens, counted, elsewhere in found
    ]
