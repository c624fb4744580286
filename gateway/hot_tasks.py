"""What is left of a hot request goes on in a task; however that ends, the client gets an end."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Coroutine
from typing import Any

from gateway.client_request import ClientRequest
from gateway.errors import JSON_HEADERS, error_body

logger = logging.getLogger(__name__)


def run(
    loop: asyncio.AbstractEventLoop,
    tasks: set[asyncio.Task[Any]],
    request: ClientRequest,
    rest: Coroutine[Any, Any, None],
) -> None:
    """Begin it, one of `tasks` until it is done."""
    task = loop.create_task(rest)
    request.task = task
    tasks.add(task)
    task.add_done_callback(functools.partial(_done, tasks, request))


def _done(tasks: set[asyncio.Task[Any]], request: ClientRequest, task: asyncio.Task[None]) -> None:
    tasks.discard(task)
    if request.task is task:
        request.task = None  # its exception leads back to the request
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("a hot handler failed", exc_info=error, extra=request.about)
    if request.response_complete or request.disconnected:
        return
    if error is None and not request.started:
        if not task.cancelled():
            logger.error("a hot handler ended without an answer", extra=request.about)
        else:
            request.keep_alive = False
            body = error_body("The server is shutting down.", type="server_error")
            request.respond(503, JSON_HEADERS, body)
            return
    end_failed(request)


def end_failed(request: ClientRequest) -> None:
    """Something in here is wrong: never leave a client without an end."""
    if request.response_complete or request.disconnected:
        return
    if request.started:
        request.abort()
    else:
        request.keep_alive = False
        request.respond(500, JSON_HEADERS, error_body("Internal error.", type="server_error"))
