"""What the router itself says to clients: refusals and errors, in the shape of the API they speak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gateway.content_encoding import ACCEPTED
from gateway.errors import JSON_HEADERS, anthropic_body, error_body
from gateway.headers import NOT_RETURNED, HeaderList, connection_names, response_headers
from gateway.upstream import UpstreamErrorKind, UpstreamResponse
from router.live.exchange import Exchange
from router.live.ledger import Outcome
from router.policy.body import Api, BadRequestError
from router.policy.key_ring import KeyFault
from router.policy.quota import OverQuota, Quota
from router.policy.retry_after import DO_NOT_RETRY_SECONDS
from router.policy.snapshot import Shortage
from router.policy.stream_end import SHUTDOWN, LossCode, loss_events

MAX_LISTED_MODELS = 100
_DO_NOT_RETRY = (b"x-should-retry", b"false")
"""Clients know it: without it Claude Code tries a wrong key eleven times, for three minutes, in silence."""

RefusalCode = Literal[
    "no_power", "no_capacity", "no_site", "no_surplus", "queue_full", "deadline_unreachable"
]
_REFUSALS: dict[RefusalCode, str] = {
    "no_power": "No site that serves this model has enough wind power now.",
    "no_capacity": "Every site that serves this model is full now.",
    "no_site": "This router knows no site yet that serves this model.",
    "no_surplus": "`flex` runs on surplus power, and there was none in time.",
    "queue_full": "Too many requests wait already.",
    "deadline_unreachable": "This request cannot be answered within its deadline.",
}
_KEY_FAULTS: dict[KeyFault, str] = {
    "missing": "There is no API key. Send one as `Authorization: Bearer hk-…` (or as `x-api-key`).",
    "unknown": "This API key is not known here. Check it, or ask whoever runs this service for one.",
    "expired": "This API key has expired. Ask whoever runs this service for a new one.",
    "revoked": "This API key was revoked. Ask whoever runs this service for a new one.",
}


def outcome_of_status(status: int) -> Outcome:
    """As the load generator counts it, to whom a client's mistake (400 to 499) has failed like any other."""
    if status < 400:
        return "completed"
    if status in (429, 503):
        return "shed"
    return "client_error" if status < 500 else "failed"


def answer(
    exchange: Exchange, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]] = JSON_HEADERS
) -> None:
    """Answer whole, and set the outcome by the status."""
    exchange.outcome = outcome_of_status(status)
    exchange.status = status
    if status >= 400 and exchange.api is Api.MESSAGES:
        body = anthropic_body(status, body)
    exchange.request.respond(status, [*headers, *own_headers(exchange)], body)


def pass_on(exchange: Exchange, response: UpstreamResponse, body: bytes) -> None:
    """Answer with what a site answered in one piece, and set the outcome by its status."""
    status = response.status
    credential = exchange.credential
    if status >= 400 or (credential is not None and credential.quota.is_limited):
        answer(exchange, status, body, site_answer_headers(response.headers))
        return
    exchange.outcome = "completed"
    exchange.status = status
    kept_back = _KEPT_BACK
    if b"connection" in response.fields:
        kept_back |= connection_names(response.headers)
    lines = b"".join(
        [
            b"%b: %b\r\n" % header
            for header in response.headers
            if header[0] not in kept_back and header[0][:8] != b"x-heron-"
        ]
    )
    exchange.request.respond_lines(
        status,
        b"%bx-request-id: %b\r\nx-heron-site: %b\r\n"
        % (lines, exchange.request_id, exchange.site_id.encode()),
        body,
    )


def own_headers(exchange: Exchange) -> HeaderList:
    """What the router adds to every answer."""
    headers = [(b"x-request-id", exchange.request_id)] if exchange.request_id else []
    if exchange.site_id:
        headers.append((b"x-heron-site", exchange.site_id.encode()))
    if exchange.credential is not None and exchange.credential.quota.is_limited:
        headers += quota_headers(exchange.credential.quota)
    return headers


def site_answer_headers(headers: HeaderList) -> HeaderList:
    """A site's headers that go to the client."""
    return response_headers(headers, _OWN_HEADERS)


_OWN_HEADERS = frozenset({b"x-request-id"})
_KEPT_BACK = NOT_RETURNED | _OWN_HEADERS | {b"x-heron-headroom", b"x-heron-instance"}
"""Of a site's headers, with those of `x-heron-` that always come."""


def refuse_bad_request(exchange: Exchange, error: BadRequestError) -> None:
    """400, naming the field; 413 or 415 where the body cannot be taken at all."""
    body = error_body(str(error), type="invalid_request_error", code=error.code, param=error.param)
    headers = [*JSON_HEADERS, (b"accept-encoding", ACCEPTED)] if error.status == 415 else JSON_HEADERS
    answer(exchange, error.status, body, headers)


def refuse_unknown_model(exchange: Exchange, model: str, known: Sequence[str]) -> None:
    """404 with the models that there are."""
    listed = ", ".join(known[:MAX_LISTED_MODELS]) or "none"
    message = f"The model {model!r} does not exist here. Models: {listed}."
    answer(
        exchange,
        404,
        error_body(message, type="invalid_request_error", code="model_not_found", param="model"),
    )


def refuse_path(exchange: Exchange, model: str) -> None:
    """404: the model is known, and none of its sites answers this path."""
    message = f"No site answers {exchange.request.path} for the model {model!r}."
    answer(exchange, 404, error_body(message, type="invalid_request_error", code="path_not_served"))


def refuse_for_now(
    exchange: Exchange, code: RefusalCode, retry_after_seconds: int, *, shortage: Shortage | None = None
) -> None:
    """503 that says when to come back. `shortage`: what is behind a code that does not say it itself."""
    why = "" if shortage is None else f" {_REFUSALS[shortage]}"
    message = f"{_REFUSALS[code]}{why} Try again in {retry_after_seconds} s."
    headers = _retry_headers(retry_after_seconds)
    answer(exchange, 503, error_body(message, type="server_error", code=code), headers)


def refuse_late(exchange: Exchange, retry_after_seconds: int) -> None:
    """503: a late answer is of no use to whoever set a deadline."""
    refuse_for_now(exchange, "deadline_unreachable", retry_after_seconds)


def key_refusal(fault: KeyFault) -> tuple[int, HeaderList, bytes]:
    """Status, headers and body for a key that opens nothing. Never repeats what the client showed."""
    if fault == "not_read":
        message = "This router has not been able to read its API keys yet. Try again in 2 s."
        return 503, _retry_headers(2), error_body(message, type="server_error", code="keys_not_read")
    body = error_body(_KEY_FAULTS[fault], type="invalid_request_error", code="invalid_api_key")
    return 401, [*JSON_HEADERS, (b"www-authenticate", b"Bearer"), _DO_NOT_RETRY], body


def refuse_key(exchange: Exchange, fault: KeyFault) -> None:
    """401, or 503 while no key can be judged."""
    status, headers, body = key_refusal(fault)
    answer(exchange, status, body, headers)


def refuse_tier(exchange: Exchange, allowed: Sequence[str]) -> None:
    """403 with what the key may ask for."""
    tier = exchange.features.tier
    message = (
        f"This API key may not ask for the service tier {tier!r}. Allowed: {', '.join(allowed) or 'none'}."
        " Set `service_tier` to one of these, or ask for another key."
    )
    body = error_body(message, type="invalid_request_error", code="tier_not_allowed", param="service_tier")
    answer(exchange, 403, body, [*JSON_HEADERS, _DO_NOT_RETRY])


def refuse_over_quota(exchange: Exchange, over: OverQuota, retry_after_seconds: int) -> None:
    """429 as OpenAI says it."""
    if over.kind == "concurrent":
        limit, wanted = f"{over.limit} requests at once", ""
    else:
        limit, wanted = f"{over.limit} {over.kind} a minute", f" this request counts for {over.needed};"
    is_never = over.retry_seconds == float("inf")
    advice = "it never fits: make it smaller" if is_never else f"try again in {retry_after_seconds} s"
    body = error_body(
        f"Rate limit reached: this API key may use {limit};{wanted} {advice}.",
        type="tokens" if over.kind == "tokens" else "requests",
        code="rate_limit_exceeded",
    )
    answer(exchange, 429, body, _retry_headers(retry_after_seconds))


def _retry_headers(retry_after_seconds: int) -> HeaderList:
    headers = [*JSON_HEADERS, (b"retry-after", b"%d" % retry_after_seconds)]
    if retry_after_seconds > DO_NOT_RETRY_SECONDS:
        headers.append(_DO_NOT_RETRY)
    return headers


def quota_headers(quota: Quota) -> HeaderList:
    """What is left of a key's quotas, as OpenAI's clients read it."""
    headers: HeaderList = []
    for kind, bucket in ((b"requests", quota.requests), (b"tokens", quota.tokens)):
        if bucket is not None:
            full_in = (
                (bucket.per_minute - bucket.level) * 60.0 / bucket.per_minute if bucket.per_minute else 0.0
            )
            headers += (
                (b"x-ratelimit-limit-" + kind, b"%d" % bucket.per_minute),
                (b"x-ratelimit-remaining-" + kind, b"%d" % max(0.0, bucket.level)),
                (b"x-ratelimit-reset-" + kind, b"%.3gs" % full_in),
            )
    return headers


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


def end_internal_error(exchange: Exchange) -> None:
    """Something in here is wrong: say so to the client, whatever was sent already."""
    if exchange.request.response_complete:
        return
    if exchange.is_committed:
        end_broken(exchange, "stream_lost", "an internal error of the router")
    elif not exchange.request.started:
        answer(exchange, 500, error_body("Internal error of the router.", type="server_error"))
    exchange.outcome = "broken" if exchange.is_committed else "failed"


def end_for_shutdown(exchange: Exchange) -> None:
    """This router stops and the request did not end within the grace."""
    if exchange.request.response_complete:
        return
    if exchange.is_told:
        exchange.complete()
        return
    if exchange.is_committed:
        end_broken(exchange, "stream_lost", SHUTDOWN)
        return
    headers = [*JSON_HEADERS, (b"retry-after", b"1")]
    message = "This router is shutting down; another one will take the request."
    answer(exchange, 503, error_body(message, type="server_error", code="no_capacity"), headers)
