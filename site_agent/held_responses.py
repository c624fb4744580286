"""Which engine of the site holds which response: learnt from answers, and used by what refers to one.

A hint is followed and never trusted: where the engine that was seen with an id says 404, the others are
asked. Reading or cancelling takes no slot; engines that are being emptied answer too: they still hold theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson

from fleet.instance import InstanceState
from gateway.api_paths import RESPONSES_PATH, response_call
from gateway.client_request import ClientRequest
from gateway.errors import JSON_HEADERS, error_body
from gateway.response_homes import ResponseHomes
from site_agent.forwarding import Failed, Forwarder, Outcome
from site_agent.instance import Instance
from site_agent.slots import Ask

NOT_ASKED = Failed(kind="overloaded", message="another instance holds what the request names")
NO_SLOT = Ask(takes_slot=False)
_HOLDING = frozenset({InstanceState.READY, InstanceState.DRAINING})


class HeldResponses:
    """One per site."""

    def __init__(self, *, instances: Sequence[Instance], clock: Callable[[], float]) -> None:
        self._instances = instances
        self._clock = clock
        self._homes = ResponseHomes()

    def learn(self, instance_id: str, opening: bytes) -> None:
        """An answer of the Responses API has begun there."""
        self._homes.learn_from(opening, instance_id, self._clock())

    def holder_of_previous(self, request: ClientRequest) -> str | None:
        """The instance that holds the response which the request continues; "": one does, who knows which;
        None: it continues none.
        """
        if request.path != RESPONSES_PATH or b'"previous_response_id"' not in request.body:
            return None
        try:
            fields = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return None
        previous = fields.get("previous_response_id") if isinstance(fields, dict) else None
        if not isinstance(previous, str) or not previous:
            return None
        holder = self._homes.find(previous, self._clock())
        is_there = any(one.instance_id == holder and one.state in _HOLDING for one in self._instances)
        return holder if holder is not None and is_there else ""

    async def answer(self, request: ClientRequest, forwarder: Forwarder) -> Outcome:
        """Ask the holder, then the others; a 404 from all is a 404."""
        call = response_call(request.path)
        assert call is not None
        holder = self._homes.find(call.response_id, self._clock())
        held = [one for one in self._instances if one.is_serving]
        held.sort(key=lambda one: one.instance_id != holder)
        failed: Failed | None = None
        for instance in held:
            if not instance.is_serving:
                continue  # stopped while another was asked
            result = await forwarder.attempt(request, instance, NO_SLOT, asks_elsewhere=True)
            if not isinstance(result, Failed):
                self._homes.learn(call.response_id, instance.instance_id, self._clock())
                return result
            if failed is None or result.kind != "not_here":
                failed = result
        if failed is not None and failed.kind != "not_here":
            body = error_body(failed.message, type="server_error", code="engine_failed")
            request.respond(502, JSON_HEADERS, body)
            return "engine_error"
        message = f"Response with id '{call.response_id}' not found."
        body = error_body(message, type="invalid_request_error", param="response_id", code="not_found")
        request.respond(404, JSON_HEADERS, body)
        return "client_error"
