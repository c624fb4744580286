"""What a request cost in energy, by its tokens and its site's joules per token; counted per tenant.

The site's price is that of its last report (half a minute's mean). A prompt's tokens are the router's
estimate, an answer's are counted. Whoever got tokens pays: broken and cancelled streams too. Of a stream that
went on at another site nothing is counted, as of requests at sites that say no price.
"""

from __future__ import annotations

from router.live.exchange import Exchange
from router.live.lengths import output_tokens
from router.policy.snapshot import Snapshot

MAX_SERIES = 10_000
"""Tenants are those of the keys; more of them times models than this is a mistake somewhere."""

Energy = dict[tuple[str, ...], float]
"""(tenant, model, phase) → joules."""


def note_energy(energy: Energy, snapshot: Snapshot, exchange: Exchange) -> None:
    """A request is over."""
    site_id = exchange.site_id
    if not site_id:
        return
    tokens = output_tokens(exchange)
    if not tokens:
        return
    features = exchange.features
    for view in snapshot.models.get(features.model, ()):
        if view.site_id == site_id:
            if view.joules_per_prompt_token is None and view.joules_per_output_token is None:
                return
            whose = features.tenant, features.model
            _add(energy, (*whose, "prefill"), features.prompt_tokens, view.joules_per_prompt_token)
            _add(energy, (*whose, "decode"), tokens, view.joules_per_output_token)
            return


def _add(energy: Energy, key: tuple[str, ...], tokens: float, joules_per_token: float | None) -> None:
    if joules_per_token is not None and (key in energy or len(energy) < MAX_SERIES):
        energy[key] = energy.get(key, 0.0) + tokens * joules_per_token
