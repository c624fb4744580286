"""One client request from its head to its end: its ledger entry, and what it holds on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fleet.request import RequestFeatures
from gateway.server import ClientRequest
from gateway.upstream import UpstreamResponse
from router.live.ledger import LedgerEntry
from router.live.placement import Placement
from router.policy.affinity_hint import Hint
from router.policy.body import Api, RequestBody
from router.policy.dispatch import FOREVER
from router.policy.key_ring import Credential
from router.policy.resumable import Resumability, resumability
from router.policy.stream_scan import Mode
from router.policy.suspicion import Suspicion

if TYPE_CHECKING:
    from router.live.spans import Trace


class AsItCame(NamedTuple):
    """A request that is asked for as a chat, as its client sent it."""

    raw: bytes
    body: RequestBody
    target: str


class Exchange(LedgerEntry):
    """Mutable, owned by the one coroutine that serves the request."""

    # Defaults live in the class: an instance is made per request, and sets only what differs.
    has_had_turn = False
    """A site was tried: it waits before those that come after it."""
    is_retry = False
    """Its client says that it was refused before."""
    request_id = b""
    shared_head = b""
    """The lines of the head that every site gets."""
    body: RequestBody = None  # type: ignore[assignment]  # set before anything reads it
    features: RequestFeatures = None  # type: ignore[assignment]
    hint: Hint | None = None
    """Which sites may hold its cache."""
    as_it_came: AsItCame | None = None
    """What was asked for, where a chat is asked for instead; until that has begun."""
    as_chat: tuple[str, str] | None = None
    """The API of a stream that may be asked for as a chat, and what came of that; None: any other request."""
    resumability: Resumability | None = None
    mode: Mode = "plain"
    """What the scanner of the answer keeps; set with each attempt."""
    cuts_ids = False
    """Token ids were asked for here, and not by the client."""
    asks_elsewhere = False
    """It names something that one site holds: a site that answers 404 is not the last word."""
    pinned_to = ""
    """The one site that is said to hold what it names."""
    on_opening: Callable[[bytes], None] | None = None
    """Gets the beginning of the answer: a stream's first events, or all of it."""
    failures = 0
    """Sites that failed it."""
    pushbacks = 0
    is_cut = False
    """A site had accepted it and lost its power: it goes before new work."""
    last_error: tuple[int, bytes] | None = None
    """Status and body of the last failure, for when no other site is left."""
    suspicion: Suspicion | None = None
    """A site answered it with an error: from then on it is no probe, and no other site's fault."""
    trace: Trace | None = None
    """Its spans, where they are asked for."""
    placement: Placement | None = None
    response: UpstreamResponse | None = None
    head_by = math.inf
    """Loop time until which the site must have begun to answer, where no timer watches that."""
    status = 0
    """Of the answer, for the access log; 0: there was none."""
    site_id = ""
    """Where the answer began."""
    scanner: Any = None
    """Has `events`, which grows as long as the stream gets anywhere."""
    is_committed = False
    """Status and headers are with the client."""
    is_paused = False
    """The client's socket is full."""
    cut_reason = ""
    """How the stream broke last."""
    is_between_sites = False
    """Its stream broke off, and the next site has not said anything yet."""
    is_terminated = False
    """This router ends it: it is shutting down."""
    progress = 0
    quiet_since = 0.0
    wrote_at = 0.0
    is_patient = False
    """The policy would have it wait, though there is room (`router.policy.triage`)."""
    start_by = math.inf
    """Loop time by which a site must begin, or the answer would come too late."""
    credential: Credential | None = None
    """Whose key it came with; None where none is asked for."""
    is_counted = False
    """Among the requests that its key has at once."""
    taken_tokens: int | None = None
    """Of the key's quota; None: nothing is taken."""
    used_tokens: int | None = None
    """What an answer in one piece says that it took; None where it does not say."""
    output_tokens: int | None = None
    """The same of its answers alone."""
    has_paid = False
    """Its stream broke, and its parts' energy is counted as each ends."""

    def __init__(self, request: ClientRequest, api: Api, *, hold_until: float, deadline_at: float) -> None:
        self.received_at = request.received_at  # as the base does, without its call
        self.request = request
        self.api = api
        self.hold_until = hold_until
        """Loop time until which it waits for room."""
        self.deadline_at = deadline_at
        """Loop time at which the request ends, unless its stream has begun; a client's own may be earlier."""
        self.target = self.path = request.path
        """What the site is asked for, with and without a query."""
        self.excluded: dict[str, int] = {}

    @property
    def about(self) -> dict[str, str | None]:
        """What a line of the log about this request carries."""
        about = self.request.about
        return about | {"request_id": self.request_id.decode("latin-1")} if self.request_id else about

    @property
    def held_bytes(self) -> int:
        """Of its body, while it waits."""
        came = 0 if self.as_it_came is None else len(self.as_it_came.raw)
        return len(self.request.body) + came

    @property
    def was_told_broken(self) -> bool:
        """Its client got an error from what makes a chat's answer its own, and sees nothing more."""
        outlet = self.request.outlet
        return outlet is not None and outlet.has_failed

    @property
    def is_told(self) -> bool:
        """Its client has all of its stream; the site's connection may end a little later."""
        return self.is_committed and self.scanner is not None and self.scanner.ending == "complete"

    def complete(self) -> None:
        """Its stream is whole."""
        self.outcome = "broken" if self.was_told_broken else "completed"
        self.request.finish()

    def note_gone(self) -> None:
        """Its client has left."""
        self.outcome = "client_cancelled"
        if self.is_told and not self.was_told_broken:
            self.outcome = "completed"

    def ask_as_it_came(self) -> None:
        """A site refuses the chat that was made of it: let it judge what the client sent."""
        assert self.as_it_came is not None
        self.as_chat = self.as_it_came.body.api.value, "refused"
        self.request.body, self.body, self.target = self.as_it_came
        self.request.outlet = self.as_it_came = None
        self.api, self.path = self.body.api, self.request.path
        self.resumability = resumability(self.api, {})

    def wait_for(self, response: UpstreamResponse) -> None:
        """Its request was sent; `stop` ends the waiting, which has its own timer."""
        self.response = response
        self.head_by = math.inf

    def begin_stream(self, now: float) -> None:
        """The first event goes to the client: every deadline was for that. What moves may take its time; what
        stands still is the watch's."""
        self.is_committed = True
        self.as_it_came = None
        self.first_token_at = now
        if self.placement is not None:
            self.placement.begun()
        self.blame(now)
        self.deadline_at = self.head_by = math.inf

    def exclude(self, site_id: str) -> None:
        """That site failed it, and is not asked again for this request."""
        self.failures += 1
        self.excluded[site_id] = FOREVER

    def suspect(self, placement: Placement) -> None:
        """That site answered it with an error; a probe's place is kept until its fault is known."""
        if self.suspicion is None:
            self.suspicion = Suspicion(placement.entry.breaker, placement.probe)
            placement.probe = 0

    def blame(self, now: float) -> None:
        """A site answers it: the one that said that it cannot, if one did, was at fault."""
        if self.suspicion is not None:
            self.suspicion.confirm(now)

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
