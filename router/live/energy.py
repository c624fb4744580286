"""What a request cost in energy, by its tokens and its site's joules per token; counted per tenant.

The site's price is that of its last report (the mean of ten seconds). An answer's tokens are counted; a
prompt's too where the site states them, else they are the router's estimate. Whoever got tokens pays: broken
and cancelled streams too. A stream that goes on at another site pays each site for its part, the second one
also for reading prompt and answer anew. Of requests at sites that say no price nothing is counted.
"""

from __future__ import annotations

from router.live.exchange import Exchange
from router.live.lengths import output_tokens
from router.policy.snapshot import Snapshot
from router.policy.stream_record import StreamRecord

MAX_SERIES = 10_000
"""Tenants are those of the keys; more of them times models than this is a mistake somewhere."""

Energy = dict[tuple[str, ...], float]
"""(tenant, model, phase) → joules."""


def note_energy(energy: Energy, snapshot: Snapshot, exchange: Exchange) -> None:
    """A request is over. Of a stream that broke the parts have been noted before."""
    if exchange.has_paid:
        return
    tokens = output_tokens(exchange)
    if tokens:
        _note(energy, snapshot, exchange, exchange.site_id, None, tokens)


def note_first_part(energy: Energy, snapshot: Snapshot, exchange: Exchange) -> None:
    """The site where its stream began has cut it."""
    note_energy(energy, snapshot, exchange)
    exchange.has_paid = True


def note_continuation(
    energy: Energy, snapshot: Snapshot, exchange: Exchange, site_id: str, record: StreamRecord, before: int
) -> None:
    """Another site's part is over: what `record` has beyond the first `before` tokens of the answer."""
    tokens = record.output_tokens - before
    if tokens > 0:
        prompt = exchange.features.prompt_tokens if record.prompt_tokens is None else record.prompt_tokens
        _note(energy, snapshot, exchange, site_id, prompt + before, tokens)


def _prompt_tokens(exchange: Exchange) -> int:
    """As the site counted them, where it said so."""
    stated = getattr(getattr(exchange.scanner, "record", None), "prompt_tokens", None)
    if stated is None and exchange.used_tokens is not None and exchange.output_tokens is not None:
        stated = exchange.used_tokens - exchange.output_tokens
    return exchange.features.prompt_tokens if stated is None else int(stated)


def _note(
    energy: Energy,
    snapshot: Snapshot,
    exchange: Exchange,
    site_id: str,
    prompt_tokens: int | None,
    tokens: int,
) -> None:
    """`prompt_tokens`: None to count those of the exchange, which is work where the prompt is long."""
    features = exchange.features
    for view in snapshot.models.get(features.model, ()):
        if view.site_id == site_id:
            if view.joules_per_prompt_token is None and view.joules_per_output_token is None:
                return
            if prompt_tokens is None:
                prompt_tokens = _prompt_tokens(exchange)
            whose = features.tenant, features.model
            _add(energy, (*whose, "prefill"), prompt_tokens, view.joules_per_prompt_token)
            _add(energy, (*whose, "decode"), tokens, view.joules_per_output_token)
            return


def _add(energy: Energy, key: tuple[str, ...], tokens: float, joules_per_token: float | None) -> None:
    if joules_per_token is not None and (key in energy or len(energy) < MAX_SERIES):
        energy[key] = energy.get(key, 0.0) + tokens * joules_per_token
