"""The door: whose request it is, what that key may ask for, and whether it can still be in time (DESIGN §5).

In order: the key (401), its requests at once and a minute (429); then, of what it asks for, its tier (403),
its tokens (429), its deadline (503). Nothing here waits: keys come from a `KeyRing` that something else keeps
current. Where no keys are asked for, and no deadline is set, a request passes with a few comparisons.

Rule: what `enter` and `admit` take of a quota, `leave` settles, once, however the request ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fleet.request import ClassSlo
from gateway.client_request import ClientRequest
from gateway.errors import JSON_HEADERS
from gateway.refusal import Refusal
from router.config import RouterConfig
from router.live.answers import key_refusal, refuse_key, refuse_late, refuse_over_quota, refuse_tier
from router.live.exchange import Exchange
from router.live.fleet_view import FleetView
from router.live.metrics import RouterMetrics
from router.live.request_head import RequestHead
from router.policy.deadline import start_by
from router.policy.key_ring import Credential, KeyFault, KeyRing, shown_key
from router.policy.promises import Promises
from router.policy.quota import OverQuota
from router.policy.retry_after import quota_retry_after_seconds


class Door:
    """One per process."""

    def __init__(
        self,
        *,
        config: RouterConfig,
        ring: KeyRing | None,
        view: FleetView,
        metrics: RouterMetrics,
        clock: Callable[[], float],
        unix_clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        """`ring`: the keys that are known; None where everybody may come in."""
        self._ring = ring
        self._view = view
        self._metrics = metrics
        self._clock = clock
        self._unix_clock = unix_clock
        self._rng = rng
        self._flex_hold_seconds = config.flex_hold_seconds
        by_class = {
            name: ClassSlo(ttft_seconds=slo.ttft_seconds, e2e_seconds=slo.e2e_seconds)
            for name, slo in config.slo.items()
        }
        promises = Promises(by_class, config.slo_factor)
        self._promises = promises if promises else None

    def find(self, authorization: bytes | None, x_api_key: bytes | None) -> Credential | KeyFault | None:
        """Whose key it is, or what is wrong with it; None: none is asked for."""
        if self._ring is None:
            return None
        found = self._ring.find(shown_key(authorization, x_api_key), self._unix_clock())
        if not isinstance(found, Credential):
            self._metrics.count_refusal("keys_not_read" if found == "not_read" else "invalid_api_key")
        return found

    def head_refusal(self, request: ClientRequest) -> Refusal | None:
        """Of a request whose body is still to come: it need not be held for a key that opens nothing."""
        if request.method == "OPTIONS":  # a browser's preflight carries none
            return None
        found = self.find(request.fields.get(b"authorization"), request.fields.get(b"x-api-key"))
        if found is None or isinstance(found, Credential):
            return None
        status, headers, body = key_refusal(found)
        return status, body, [header for header in headers if header not in JSON_HEADERS]

    def enter(self, exchange: Exchange, *, takes_request: bool = True) -> bool:
        """Before anything of it is looked at: False if the client was told that its key opens nothing, or has
        too many requests. `takes_request`: it counts among those of a minute, too."""
        if self._ring is None:
            return True
        request = exchange.request
        found = self.find(request.fields.get(b"authorization"), request.fields.get(b"x-api-key"))
        if isinstance(found, Credential):
            exchange.credential = found
            if not found.quota.is_limited:
                return True
            over = found.quota.enter(self._clock(), takes_request=takes_request)
            if over is None:
                exchange.is_counted = True
                return True
            exchange.request_id = RequestHead(request, self._rng).request_id
            self._refuse_over(exchange, over)
            return False
        assert found is not None
        exchange.request_id = RequestHead(request, self._rng).request_id
        refuse_key(exchange, found)
        return False

    def admit(self, exchange: Exchange) -> bool:
        """Once its features are known: False if the client was told why not."""
        features, credential = exchange.features, exchange.credential
        if features.tier == "flex":
            exchange.hold_until = exchange.received_at + self._flex_hold_seconds
        if credential is not None:
            if features.tier not in credential.tiers:
                self._metrics.count_refusal("tier_not_allowed")
                refuse_tier(exchange, sorted(credential.tiers))
                return False
            if exchange.is_counted and not self._take(exchange, credential):
                return False
        if self._promises is not None:
            slo = self._promises.of(features, self._view.snapshot, exchange.received_at)
            features = exchange.features = features._replace(slo=slo)
        if features.deadline_seconds is not None or features.slo is not None:
            return self._can_be_in_time(exchange)
        return True

    def leave(self, exchange: Exchange) -> None:
        """The request is over: settle what it took by what it used."""
        credential, taken = exchange.credential, exchange.taken_tokens
        if credential is None or not exchange.is_counted:
            return
        exchange.is_counted = False
        credential.quota.leave()
        if taken is not None:
            exchange.taken_tokens = None
            used = _used_tokens(exchange)
            credential.quota.settle(taken, taken if used is None else used)

    def refuse_late(self, exchange: Exchange) -> None:
        """Its deadline cannot be met, or has passed while it waited."""
        self._metrics.count_refusal("deadline_unreachable")
        why = self._view.shortage(exchange.features.model)
        refuse_late(exchange, self._view.retry_after_seconds(why))

    def _take(self, exchange: Exchange, credential: Credential) -> bool:
        features = exchange.features
        tokens = features.prompt_tokens + features.expected_output_tokens
        over = credential.quota.take(tokens, self._clock())
        if over is None:
            exchange.taken_tokens = tokens
            return True
        self._refuse_over(exchange, over)
        return False

    def _refuse_over(self, exchange: Exchange, over: OverQuota) -> None:
        self._metrics.count_refusal("rate_limit_exceeded")
        refuse_over_quota(exchange, over, quota_retry_after_seconds(over.retry_seconds, self._rng))

    def _can_be_in_time(self, exchange: Exchange) -> bool:
        features = exchange.features
        exchange.start_by = start_by(
            self._view.snapshot.models.get(features.model, ()),
            prompt_tokens=features.prompt_tokens,
            output_tokens=features.expected_output_tokens,
            received_at=exchange.received_at,
            deadline_seconds=features.deadline_seconds,
            slo=features.slo,
        )
        if self._clock() <= exchange.start_by:
            return True
        self.refuse_late(exchange)
        return False


def _used_tokens(exchange: Exchange) -> int | None:
    """Prompt and answer as far as they were worked on; None where that is not known."""
    if exchange.is_committed:
        scanner = exchange.scanner
        if scanner is None or exchange.resumes:
            return None
        record = getattr(scanner, "record", None)
        written = max(scanner.events, 0 if record is None else record.output_tokens)
        return exchange.features.prompt_tokens + int(written)
    if exchange.outcome == "completed":
        return exchange.used_tokens
    if exchange.outcome == "client_cancelled" and exchange.site_id:
        return exchange.features.prompt_tokens
    return 0
