"""What the router itself says to clients: refusals and errors, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import JSON_HEADERS, error_body
from gateway.headers import HeaderList, response_headers
from gateway.upstream import UpstreamErrorKind
from router.live.exchange import Exchange
from router.live.ledger import Outcome
from router.policy.body import BadRequestError
from router.policy.retry_after import DO_NOT_RETRY_SECONDS
from router.policy.snapshot import Shortage
from router.policy.stream_end import LossCode, loss_events

MAX_LISTED_MODELS = 100

_SHORTAGE = {
    "no_power": "No site that serves this model has enough wind power now.",
    "no_capacity": "Every site that serves this model is full now.",
}


def outcome_of_status(status: int) -> Outcome:
    """As the load generator counts it."""
    if status < 400:
        return "completed"
    return "shed" if status in (429, 503) else "failed"


def answer(
    exchange: Exchange, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = JSON_HEADERS
) -> None:
    """Answer whole, and set the outcome by the status."""
    exchange.outcome = outcome_of_status(status)
    exchange.request.respond(status, [*headers, *own_headers(exchange)], body)


def own_headers(exchange: Exchange) -> HeaderList:
    """What the router adds to every answer."""
    headers = [(b"x-request-id", exchange.request_id)] if exchange.request_id else []
    if exchange.site_id:
        headers.append((b"x-heron-site", exchange.site_id.encode()))
    return headers


def site_answer_headers(headers: Sequence[tuple[bytes, bytes]]) -> HeaderList:
    """A site's headers that go to the client."""
    return response_headers(headers, _OWN_HEADERS)


_OWN_HEADERS = frozenset({b"x-request-id"})


def refuse_bad_request(exchange: Exchange, error: BadRequestError) -> None:
    """400, naming the field."""
    body = error_body(str(error), type="invalid_request_error", code=error.code, param=error.param)
    answer(exchange, 400, body)


def refuse_unknown_model(exchange: Exchange, model: str, known: Sequence[str]) -> None:
    """404 with the models that there are."""
    listed = ", ".join(known[:MAX_LISTED_MODELS]) or "none"
    message = f"The model {model!r} does not exist here. Models: {listed}."
    answer(
        exchange,
        404,
        error_body(message, type="invalid_request_error", code="model_not_found", param="model"),
    )


def refuse_for_now(exchange: Exchange, shortage: Shortage, retry_after_seconds: int) -> None:
    """503 that says when to come back."""
    message = f"{_SHORTAGE[shortage]} Try again in {retry_after_seconds} s."
    headers = [*JSON_HEADERS, (b"retry-after", b"%d" % retry_after_seconds)]
    if retry_after_seconds > DO_NOT_RETRY_SECONDS:
        headers.append((b"x-should-retry", b"false"))
    answer(exchange, 503, error_body(message, type="server_error", code=shortage), headers)


def site_error(kind: UpstreamErrorKind | str, site_id: str) -> tuple[int, bytes]:
    """Status and body for a site that did not answer as it should."""
    if kind in ("connect_timeout", "first_byte_timeout", "deadline", "stalled"):
        message = f"Site {site_id} did not answer in time."
        return 504, error_body(message, type="server_error", code="site_timeout")
    if kind == "too_large":
        message = f"The answer of site {site_id} is larger than this router takes in one piece; stream it."
        return 502, error_body(message, type="server_error", code="answer_too_large")
    message = f"Site {site_id} could not answer this request ({kind})."
    return 502, error_body(message, type="server_error", code="site_error")


def end_broken(exchange: Exchange, code: LossCode, detail: str) -> None:
    """End an answer that had begun with a stated error: never a silent truncation."""
    exchange.outcome = "broken"
    exchange.request.write(loss_events(exchange.api, code, detail))
    exchange.request.finish()


def end_for_shutdown(exchange: Exchange) -> None:
    """This router stops and the request did not end within the grace."""
    if exchange.request.response_complete:
        return
    if exchange.is_committed:
        end_broken(exchange, "stream_lost", "the router is shutting down")
        return
    headers = [*JSON_HEADERS, (b"retry-after", b"1")]
    message = "This router is shutting down; another one will take the request."
    answer(exchange, 503, error_body(message, type="server_error", code="no_capacity"), headers)
