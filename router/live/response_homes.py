"""Which site holds which response (Responses API): learnt from answers, used by what refers to one.

A hint is followed and never trusted: the site that was seen with it is asked first, and where it says 404 the
others are asked too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gateway.response_homes import ResponseHomes
from router.live.exchange import Exchange
from router.policy.body import BadRequestError
from router.policy.dispatch import FOREVER
from router.policy.snapshot import ModelView


class SiteHomes:
    """One per process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.homes = ResponseHomes()
        self._clock = clock

    def prepare(self, exchange: Exchange, fields: dict[str, Any], views: Sequence[ModelView]) -> None:
        """Learn from this request's answer, and send it to where the response is that it continues.

        Raises:
            BadRequestError: 404, it continues a response of another tenant.
        """
        exchange.on_opening = functools.partial(self._learn, exchange)
        previous = fields.get("previous_response_id")
        if not isinstance(previous, str) or not previous:
            return
        if self.homes.is_of_another(previous, exchange.features.tenant):
            message = f"Previous response with id '{previous}' not found."
            raise BadRequestError(
                message, param="previous_response_id", code="previous_response_not_found", status=404
            )
        exchange.asks_elsewhere = True
        home = self.homes.find(previous, self._clock())
        # a dark site has no engine left, and with it went its responses
        if home is not None and any(view.site_id == home and view.state != "dark" for view in views):
            exchange.pinned_to = home
            exchange.excluded |= {view.site_id: FOREVER for view in views if view.site_id != home}

    def _learn(self, exchange: Exchange, opening: bytes) -> None:
        self.homes.learn_from(opening, exchange.site_id, self._clock(), owner=exchange.features.tenant)
