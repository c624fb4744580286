"""One client request from its head to its end: its ledger entry, and what it holds on the way."""

from __future__ import annotations

import asyncio
from typing import Any

from fleet.request import RequestFeatures
from gateway.server import ClientRequest
from gateway.upstream import UpstreamResponse
from router.live.ledger import LedgerEntry
from router.live.placement import Placement
from router.policy.body import Api, RequestBody
from router.policy.dispatch import FOREVER
from router.policy.key_ring import Credential
from router.policy.resumable import Resumability

FAR = float("inf")


class Exchange(LedgerEntry):
    """Mutable, owned by the one coroutine that serves the request."""

    __slots__ = (
        "api",
        "body",
        "credential",
        "cut_reason",
        "deadline_at",
        "excluded",
        "features",
        "has_had_turn",
        "hold_until",
        "is_between_sites",
        "is_committed",
        "is_cut",
        "is_paused",
        "is_terminated",
        "last_error",
        "passed_on",
        "placement",
        "progress",
        "pushbacks",
        "quiet_since",
        "request",
        "request_id",
        "response",
        "resumability",
        "scanner",
        "site_id",
        "start_by",
        "taken_tokens",
        "target",
        "task",
        "used_tokens",
        "wrote_at",
    )

    def __init__(self, request: ClientRequest, api: Api, *, hold_until: float, deadline_at: float) -> None:
        super().__init__(request.received_at)
        self.request = request
        self.api = api
        self.hold_until = hold_until
        """Loop time until which it waits for room."""
        self.has_had_turn = False
        """A site was tried: it waits before those that come after it."""
        self.deadline_at = deadline_at
        """Loop time at which the request ends, whatever it is doing."""
        self.start_by = FAR
        """Loop time by which a site must begin, or the answer would come too late."""
        self.credential: Credential | None = None
        """Whose key it came with; None where none is asked for."""
        self.taken_tokens: int | None = None
        """Of the key's quota; None: nothing is taken."""
        self.used_tokens: int | None = None
        """What an answer in one piece says that it took; None where it does not say."""
        self.target = request.path
        self.task: asyncio.Task[Any] | None = request.task
        self.request_id = b""
        self.passed_on: list[tuple[bytes, bytes]] = []
        """Of the client's headers."""
        self.body: RequestBody = None  # type: ignore[assignment]  # set before anything reads it
        self.features: RequestFeatures = None  # type: ignore[assignment]
        self.resumability: Resumability | None = None
        self.excluded: dict[str, int] = {}
        self.pushbacks = 0
        self.is_cut = False
        """A site had accepted it and lost its power: it goes before new work."""
        self.last_error: tuple[int, bytes] | None = None
        """Status and body of the last failure, for when no other site is left."""
        self.placement: Placement | None = None
        self.response: UpstreamResponse | None = None
        self.site_id = ""
        """Where the answer began."""
        self.scanner: Any = None
        """Has `events`, which grows as long as the stream gets anywhere."""
        self.is_committed = False
        """Status and headers are with the client."""
        self.is_paused = False
        """The client's socket is full."""
        self.cut_reason = ""
        """How the stream broke last."""
        self.is_between_sites = False
        """Its stream broke off, and the next site has not said anything yet."""
        self.is_terminated = False
        """This router ends it: it is shutting down."""
        self.progress = 0
        self.quiet_since = 0.0
        self.wrote_at = 0.0

    def exclude(self, site_id: str) -> None:
        """That site is not asked again for this request."""
        self.excluded[site_id] = FOREVER

    def exclude_until_newer(self, site_id: str, sequence: int) -> None:
        """That site is asked again once it has reported anew."""
        if self.excluded.get(site_id) != FOREVER:
            self.excluded[site_id] = sequence

    def forgive_pushbacks(self) -> None:
        """After a wait any site that did not fail may be tried again."""
        self.pushbacks = 0
        for site_id in [key for key, until in self.excluded.items() if until != FOREVER]:
            del self.excluded[site_id]

    def pause(self) -> None:
        """The client takes nothing now: stop reading from the site."""
        self.is_paused = True
        if self.response is not None:
            self.response.pause()

    def resume(self) -> None:
        """The client reads again."""
        self.is_paused = False
        self.quiet_since = 0.0
        if self.response is not None:
            self.response.resume()
