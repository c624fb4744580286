"""Where one request goes: filter → score → pick, on the snapshot (DESIGN §5, Choose). Pure.

The cases, in order. A site is left out when it
  1. does not serve (draining, dark, faulted, nothing ready),
  2. is excluded for this request (it failed it, or pushed it back since its last report),
  3. has its breaker open,
  4. has an expired report while a fresher site serves the model,
  5. has no room (less the reserve that is kept for resumes, unless this is one),
  6. is still reading the prompts of work released before (resumes and work that waited only),
  7. would have too little left over (flex only).
Of the rest the policy weighs. A request with affinity goes where its cache is, as far as load and weights
allow (`router.policy.affinity`); otherwise the pick is sampled in proportion to the weights.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from fleet.request import RequestFeatures
from router.policy.affinity import Affinity
from router.policy.affinity_hint import Hint
from router.policy.flex import surplus_room
from router.policy.load import Load
from router.policy.policies import Candidate, Policy
from router.policy.snapshot import FRESH_SECONDS, STALE_SECONDS, Freshness, ModelView

FRESH, STALE = Freshness.FRESH, Freshness.STALE
FOREVER = -1
"""In `excluded`: this site failed the request and is never asked again for it."""

Excluded = Mapping[str, int]
"""Site → FOREVER, or the report sequence up to which it is left out."""


def is_excluded(view: ModelView, excluded: Excluded) -> bool:
    """Whether this request must not go there (yet)."""
    until = excluded.get(view.site_id)
    return until is not None and (until == FOREVER or view.sequence <= until)


def choose(
    views: Sequence[ModelView],
    loads: Mapping[str, Load],
    *,
    policy: Policy,
    features: RequestFeatures,
    excluded: Excluded,
    is_resume: bool,
    reserve_ratio: float,
    turn: int,
    now: float,
    rng: random.Random,
    is_paced: bool = False,
    surplus_ratio: float | None = None,
    affinity: Affinity | None = None,
    hint: Hint | None = None,
) -> ModelView | None:
    """The site for this request, or None when nothing fits now.

    `views` are the sites that know the model, `loads` (by site) what this router has sent there. `is_paced`:
    it has waited, and does not go before the prompts of others that have are read. `surplus_ratio`: it is
    flex, and so much must stay free. `hint`: None where it is all the same which site it is.
    """
    is_paced = is_paced or is_resume
    if is_resume:
        reserve_ratio = 0.0
    candidates: list[Candidate] = []
    expired: list[ModelView] = []
    is_any_fresher = False
    for view in views:
        if not view.is_serving or (excluded and is_excluded(view, excluded)):
            continue
        load = loads[view.site_id]
        breaker = load.breaker
        if breaker.state != "closed" and not breaker.admits(now):
            continue
        age = now - view.arrived_at
        if age > STALE_SECONDS:
            expired.append(view)
            continue
        is_any_fresher = True
        room = _room(view, load, now, is_paced, reserve_ratio, surplus_ratio, False)
        if room >= 1.0:
            is_fresh = age <= FRESH_SECONDS and view.is_confirmed
            candidates.append(Candidate(view, room, FRESH if is_fresh else STALE))
    if not is_any_fresher:
        for view in expired:
            room = _room(view, loads[view.site_id], now, is_paced, reserve_ratio, surplus_ratio, True)
            if room >= 1.0:
                candidates.append(Candidate(view, room, Freshness.EXPIRED))
    if not candidates:
        return None
    if len(candidates) == 1:
        return candidates[0].view
    weights = policy(candidates, features, turn=turn, now=now)
    holder = affinity.pick(hint, candidates, weights, loads, now) if hint and affinity else None
    return holder or _sample(candidates, weights, rng)


def _room(
    view: ModelView,
    load: Load,
    now: float,
    is_paced: bool,
    reserve_ratio: float,
    surplus_ratio: float | None,
    is_expired: bool,
) -> float:
    if is_paced and not load.can_prefill(now):
        return 0.0
    room = load.room(view, now, is_expired)
    if surplus_ratio is not None:
        return surplus_room(view, load, room, surplus_ratio, now)
    if reserve_ratio and view.capacity_requests is not None:
        room -= int(reserve_ratio * view.capacity_requests)
    return room


def _sample(candidates: Sequence[Candidate], weights: Sequence[float], rng: random.Random) -> ModelView:
    point = rng.random() * sum(weights)
    for candidate, weight in zip(candidates, weights, strict=True):
        point -= weight
        if point < 0:
            return candidate.view
    return candidates[-1].view  # rounding at the upper end


def has_other_site(views: Sequence[ModelView], excluded: Excluded) -> bool:
    """Whether any site that knows the model, even one that is dark now, may still be asked."""
    return any(excluded.get(view.site_id) != FOREVER for view in views)
