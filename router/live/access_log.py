"""One JSON line per request, where it is wanted: `[router] access_log`. Off, it costs a request nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from router.live.exchange import Exchange
from router.live.lengths import output_tokens

logger = logging.getLogger("heron.access")


class AccessLog:
    """Writes to the logger `heron.access`; the line's shape is `fleet.log`'s."""

    def __init__(self) -> None:
        logger.setLevel(logging.INFO)  # it was asked for, whatever the level of the rest

    def write(self, exchange: Exchange, now: float) -> None:
        """A request is over."""
        request = exchange.request
        clients = request.fields.get(b"traceparent", b"").decode("latin-1")
        traceparent = clients if exchange.trace is None else exchange.trace.traceparent
        self._write(
            request.method,
            request.path,
            exchange.request_id,
            exchange.status,
            tenant=None if exchange.credential is None else exchange.credential.tenant,
            model=exchange.model,
            outcome=exchange.outcome,
            site_id=exchange.site_id or None,
            seconds=round(now - exchange.received_at, 6),
            ttft_seconds=None
            if exchange.first_token_at is None
            else round(exchange.first_token_at - exchange.received_at, 6),
            body_bytes=request.body_bytes,
            output_tokens=output_tokens(exchange),
            retries=exchange.retries,
            resumes=exchange.resumes,
            traceparent=traceparent or None,
        )

    def write_other(self, scope: Mapping[str, Any], request_id: bytes, status: int) -> None:
        """An answer of the application: models, health, what there is not."""
        self._write(scope["method"], scope["path"], request_id, status)

    @staticmethod
    def _write(method: str, path: str, request_id: bytes, status: int, **more: Any) -> None:
        logger.info(
            "request",
            extra={
                "method": method,
                "path": path[:200],
                "request_id": request_id.decode("latin-1"),
                "status": status or None,
                **more,
            },
        )
