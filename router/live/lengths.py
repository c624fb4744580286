"""How many tokens an answer had, once it is over; and telling what learns from that.

A stream's tokens are counted: by their ids where those were asked for, else by events, of which some carry no
text (the role, the finish, the usage), so a short answer looks a little longer than it was. An answer in one
piece says it itself. Of a stream that went on at another site, of a request that was cut off, and of APIs
whose answer is no text, nothing is learnt.
"""

from __future__ import annotations

from router.live.exchange import Exchange
from router.policy.body import LEARNT_APIS
from router.policy.output_length import OutputLengths


def output_tokens(exchange: Exchange) -> int | None:
    """Tokens of each of its answers; None where they are not known."""
    if not exchange.is_committed:
        return exchange.output_tokens
    scanner = exchange.scanner
    if scanner is None or exchange.resumes:
        return None
    record = getattr(scanner, "record", None)
    return int((record.output_tokens if record is not None else 0) or scanner.events)


def note_length(lengths: OutputLengths, exchange: Exchange) -> None:
    """A request is over."""
    if exchange.outcome != "completed" or exchange.api not in LEARNT_APIS:
        return
    tokens = output_tokens(exchange)
    if tokens:
        features = exchange.features
        each = tokens // exchange.body.choices or 1
        lengths.observe(
            features.model, features.tenant, exchange.body.max_tokens, features.prompt_tokens, each
        )
