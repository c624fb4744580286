"""Reading a request: what it asks for, of which model, which sites serve it, and whether it may come in.

Nothing here waits. What is wrong with a request is answered here, in the words of its API.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fleet.request import ANONYMOUS, ClassCutoffs
from gateway.api_paths import CHAT_PATH
from router.config import RouterConfig
from router.live.admission import Door
from router.live.answers import refuse_bad_request, refuse_path, refuse_unknown_model
from router.live.demand_meter import DemandMeter
from router.live.exchange import AsItCame, Exchange
from router.live.fleet_view import FleetView
from router.live.request_body import decode_body
from router.live.request_head import JSON, RequestHead, shared_head
from router.live.response_homes import SiteHomes
from router.live.tracing import without_trace
from router.policy.affinity_hint import MIN_PROMPT_BYTES, read_hint
from router.policy.as_chat import AsChat, inline_system_of, may_be_a_chat
from router.policy.body import (
    Api,
    BadRequestError,
    RequestBody,
    features_of,
    judge_body,
    read_body,
    read_form,
)
from router.policy.dispatch import FOREVER
from router.policy.messages_as_chat import messages_as_chat
from router.policy.output_length import OutputLengths
from router.policy.responses_as_chat import responses_as_chat
from router.policy.resumable import Fidelity, can_continue, resumability
from router.policy.snapshot import ModelView

CUTOFFS = ClassCutoffs()
_AS_CHAT: dict[Api, Callable[[dict[str, Any], Sequence[ModelView]], AsChat | None]] = {
    Api.MESSAGES: lambda fields, views: messages_as_chat(fields, inline_system_of(views)),
    Api.RESPONSES: lambda fields, _: responses_as_chat(fields),
}


class Reader:
    """One per process."""

    def __init__(
        self,
        config: RouterConfig,
        *,
        view: FleetView,
        door: Door,
        homes: SiteHomes,
        meter: DemandMeter,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._has_affinity = config.affinity
        self._as_chat = _AS_CHAT if config.streams_as_chats else {}
        self._view = view
        self._door = door
        self._homes = homes
        self._meter = meter
        self._rng = rng
        self.lengths = OutputLengths()
        """Of answers, learnt by this process."""

    def read(self, exchange: Exchange) -> bool:
        """Read the request; False if it was answered with the client's mistake."""
        request = exchange.request
        head = RequestHead.of(request, self._rng)
        request_id = exchange.request_id = head.request_id
        if head.is_retry:
            exchange.is_retry = True
        credential = exchange.credential
        try:
            body, model, content_type = self._read_body(exchange)
            assert body.fields is not None
            exchange.body = body
            tenant = ANONYMOUS if credential is None else credential.tenant
            if self._has_affinity and not (head.affinity is None and len(body.raw) < MIN_PROMPT_BYTES):
                exchange.hint = read_hint(body, model, header=head.affinity, tenant=tenant)
            exchange.features = features_of(
                body,
                model,
                CUTOFFS,
                affinity_key=exchange.hint.key if exchange.hint is not None else None,
                deadline_seconds=head.deadline_seconds,
                tenant=tenant,
                lengths=self.lengths,
            )
        except BadRequestError as error:
            refuse_bad_request(exchange, error)
            return False
        passed_on = head.passed_on if exchange.trace is None else without_trace(head.passed_on)
        exchange.shared_head = shared_head(passed_on, exchange.features, request_id, content_type)
        if head.deadline_seconds is not None:
            exchange.deadline_at = min(exchange.deadline_at, request.received_at + head.deadline_seconds)
        models = self._view.snapshot.models
        if model in models:
            exchange.model = model
            if not self._narrow(exchange, body.fields, models[model]):
                return False
        elif self._view.is_settled:
            refuse_unknown_model(exchange, model, sorted(models))
            return False
        if not self._door.admit(exchange):
            return False
        if exchange.model in models:
            self._meter.came(exchange.features)
        if body.stream:
            exchange.resumability = resumability(exchange.api, body.fields)
        body.fields, body.raw = None, b""
        if request.query and request.outlet is None:
            exchange.target = f"{request.path}?{request.query.decode('ascii')}"
        return True

    def _narrow(self, exchange: Exchange, fields: dict[str, Any], views: Sequence[ModelView]) -> bool:
        """Leave out the sites that cannot answer it; False if none can and it was answered."""
        if not exclude_lacking(exchange, views):
            refuse_path(exchange, exchange.model)
            return False
        if exchange.api is Api.RESPONSES:
            try:
                self._homes.prepare(exchange, fields, views)
            except BadRequestError as error:
                refuse_bad_request(exchange, error)
                return False
        return True

    def _read_body(self, exchange: Exchange) -> tuple[RequestBody, str, bytes]:
        """The body, its model, and what it is for the site."""
        request = exchange.request
        encoding = request.fields.get(b"content-encoding")
        if encoding is not None:
            request.body = decode_body(request.body, encoding, self._config.max_body_bytes)
        if exchange.api is Api.FORM:
            content_type = request.fields.get(b"content-type", b"")
            return *read_form(content_type, request.body), content_type
        body, model = read_body(exchange.api, request.body)
        if body.stream and exchange.api in self._as_chat:
            body = self._ask_as_chat(exchange, body, model)
        return body, model, JSON

    def _ask_as_chat(self, exchange: Exchange, body: RequestBody, model: str) -> RequestBody:
        """From here on it is a chat, in all but what its client gets; as it came where that is no gain."""
        request, fields, api = exchange.request, body.fields, exchange.api
        views = self._view.snapshot.models.get(model, ())
        assert fields is not None
        exchange.as_chat = api.value, "sites"
        if not may_be_a_chat(api, request.path, fields, model, views):
            return body
        exchange.as_chat = api.value, "request"
        made = self._as_chat[api](fields, views)
        if made is None or (verdict := resumability(Api.CHAT, made.fields)).fidelity is Fidelity.REFUSED:
            return body
        if not all(can_continue(verdict, view) for view in views):
            exchange.as_chat = api.value, "sites"
            return body
        exchange.as_chat = api.value, "chat"
        target = f"{request.path}?{request.query.decode('ascii')}" if request.query else request.path
        exchange.as_it_came = AsItCame(request.body, body, target)
        body.fields, body.raw = None, b""
        request.body, request.outlet = orjson.dumps(made.fields), made.outlet
        exchange.api, exchange.path, exchange.target = Api.CHAT, CHAT_PATH, CHAT_PATH
        return judge_body(Api.CHAT, request.body, made.fields)[0]


def exclude_lacking(exchange: Exchange, views: Sequence[ModelView]) -> bool:
    """Leave out the sites that do not answer this path; False: that is all of them."""
    path = exchange.path
    count = 0
    for view in views:
        if view.lacks and path in view.lacks:
            exchange.excluded[view.site_id] = FOREVER
            count += 1
    return count < len(views)
