"""Where one request goes: filter → score → pick, on the snapshot (DESIGN §5, Choose). Pure.

The cases, in order. A site is left out when it
  1. does not serve (draining, dark, faulted, nothing ready),
  2. is excluded for this request (it failed it, or pushed it back since its last report),
  3. has its breaker open, or half open where this request met an error elsewhere and is no probe,
  4. has an expired report while a fresher site serves the model,
  5. has no room (less the reserve that is kept for resumes, unless this is one),
  6. is still reading the prompts of work released before (resumes and work that waited only),
  7. would have too little left over (flex only).
A resume that no site has room for may go where a slot is free all the same: sites keep some for resumes, and
leave them out of the room that they report.

Of the rest the policy weighs; where it weighs all with 0 the request waits. A request with affinity goes
where its cache is, as far as load and weights allow (`router.policy.affinity`). Otherwise picks follow the
weights in proportion, evenly: the n-th decision takes the site at n × the golden ratio of their sum. Dice
would do the same on average, in clusters that make requests wait for each other; replicas are at different n.

In a fleet of more than `SCAN_ALL_SITES` a request looks at `MAX_CANDIDATES` that pass: those that hold its
cache and those that the policy names first, then others, spread evenly over the fleet (`router.policy.
spread`). It finds a site with room where there is one, as it goes on until it has looked at all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from fleet.request import RequestFeatures
from router.policy.affinity import Affinity
from router.policy.affinity_hint import Hint
from router.policy.candidate import Candidate
from router.policy.flex import surplus_room
from router.policy.interface import Policy
from router.policy.load import Load
from router.policy.snapshot import (
    FRESH_SECONDS,
    NOTHING_KNOWN,
    STALE_SECONDS,
    Freshness,
    ModelView,
    Snapshot,
)
from router.policy.spread import MAX_CANDIDATES, SCAN_ALL_SITES, spread

FRESH, STALE, EXPIRED = Freshness.FRESH, Freshness.STALE, Freshness.EXPIRED
_candidate: Callable[[tuple[ModelView, float, Freshness, Load]], Candidate]
_candidate = partial(tuple.__new__, Candidate)
"""`Candidate(*fields)` without the call in Python that a NamedTuple makes of it: five per request."""
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
"""Its multiples lie evenly between 0 and 1, whatever their number."""


class NotYet(Enum):
    """There is room, but the policy would not give it to this request now."""

    NOT_YET = "not_yet"


NOT_YET: Final = NotYet.NOT_YET
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
    context: Snapshot = NOTHING_KNOWN,
    is_paced: bool = False,
    is_patient: bool = False,
    surplus_ratio: float | None = None,
    affinity: Affinity | None = None,
    hint: Hint | None = None,
    may_probe: bool = True,
) -> ModelView | NotYet | None:
    """The site for this request. None: nothing fits now, or the policy has all wait; NOT_YET: it has this
    one wait.

    `views` are the sites that know the model, in order of name and of the snapshot `context`; `loads` (by
    site) what this router has sent there. `is_paced`: it has waited, and does not go before the prompts of
    others that have are read. `is_patient`: it waits because the policy would have it wait. `surplus_ratio`:
    it is flex, and so much must stay free. `hint`: None where it is all the same which site it is.
    `may_probe`: it may be the one that asks whether a site is well again.
    """
    asked = features
    if is_resume and features.slo is not None:
        features = features._replace(slo=None)  # it goes on at any cost
    is_choosy = policy.is_choosy and features.slo is not None and not is_resume and surplus_ratio is None
    if is_patient and is_choosy and stays_shut(views, policy, features, now):
        return NOT_YET
    point = turn * GOLDEN_RATIO % 1.0
    looked_at: Iterable[ModelView] = views
    most = len(views)
    if most > SCAN_ALL_SITES:
        most = MAX_CANDIDATES
        holders = affinity.holders(hint) if hint and affinity else ()
        first = (*holders, *policy.shortlist(features, context, most // 2, now=now, rng=rng))
        looked_at = spread(views, first, start=turn if policy.is_in_turn else rng.getrandbits(32))
        turn = 0
    own = (True, 0.0) if is_resume else (is_paced, reserve_ratio)
    terms = _terms((*own, surplus_ratio, may_probe))
    candidates = _filter(looked_at, loads, terms, excluded, most, now)
    if is_resume and not candidates:
        candidates = _of_reserves(views, loads, terms, excluded, most, now)
    if len(candidates) <= 1 and not (candidates and (policy.may_hold or is_choosy)):
        chosen = candidates[0].view if candidates else None
    else:
        if is_choosy:
            policy.is_again = is_paced
        weights = policy.weigh(candidates, features, context, turn=turn, now=now)
        total = sum(weights)
        if total <= 0.0:
            return NOT_YET if is_choosy and not policy.may_hold else None
        holder = None
        if hint and affinity:
            floor = policy.affinity_floor_ratio
            holder = affinity.pick(hint, candidates, weights, loads, now, floor_ratio=floor)
        chosen = holder or _at(candidates, weights, point * total)
    if policy.is_told and chosen is not None:
        policy.sent(chosen, asked, now)
    return chosen


def stays_shut(views: Sequence[ModelView], policy: Policy, features: RequestFeatures, now: float) -> bool:
    """Of one that waits because the policy would have it wait: whether `choose` would say NOT_YET again, with
    nothing looked at that has not changed. It is for new work that is not flex; False: ask `choose`.
    """
    return (
        policy.is_choosy
        and features.slo is not None
        and len(views) <= SCAN_ALL_SITES
        and policy.is_shut(views, features, now)
    )


class Terms(NamedTuple):
    """What this request's kind of work may use of a site."""

    is_paced: bool
    reserve_ratio: float
    surplus_ratio: float | None
    may_probe: bool


_terms: Callable[[tuple[bool, float, float | None, bool]], Terms] = partial(tuple.__new__, Terms)
"""As `_candidate`."""


def _filter(
    views: Iterable[ModelView],
    loads: Mapping[str, Load],
    terms: Terms,
    excluded: Excluded,
    most: int,
    now: float,
) -> list[Candidate]:
    """The cases above, in their order; at most `most`."""
    is_paced, reserve_ratio, surplus_ratio, may_probe = terms
    is_plain = not is_paced and surplus_ratio is None
    candidates: list[Candidate] = []
    expired: list[ModelView] = []
    is_any_fresher = False
    for view in views:
        if not view.is_serving or (excluded and is_excluded(view, excluded)):
            continue
        load = loads[view.site_id]
        breaker = load.breaker
        if breaker.state != "closed" and not (may_probe and breaker.admits(now)):
            continue
        age = now - view.arrived_at
        if age > STALE_SECONDS:
            expired.append(view)
            continue
        is_any_fresher = True
        if is_plain:
            room = load.room(view, now, False)
            capacity = view.capacity_requests  # the rest as `_reserve`; this is the hot path
            if reserve_ratio and capacity is not None:
                running = view.running_requests
                if running is not None and running + room < capacity:
                    capacity = running + room
                room -= int(reserve_ratio * capacity)
        else:
            room = _room(view, load, now, terms, False)
        if room >= 1.0:
            is_fresh = age <= FRESH_SECONDS and view.is_confirmed
            candidates.append(_candidate((view, room, FRESH if is_fresh else STALE, load)))
            if len(candidates) >= most:
                break
    return candidates if is_any_fresher or not expired else _of_expired(expired, loads, terms, most, now)


def _of_expired(
    views: Iterable[ModelView], loads: Mapping[str, Load], terms: Terms, most: int, now: float
) -> list[Candidate]:
    """Nobody says anything newer; at most `most` with room."""
    candidates = []
    for view in views:
        load = loads[view.site_id]
        room = _room(view, load, now, terms, True)
        if room >= 1.0:
            candidates.append(_candidate((view, room, EXPIRED, load)))
            if len(candidates) >= most:
                break
    return candidates


def _of_reserves(
    views: Iterable[ModelView],
    loads: Mapping[str, Load],
    terms: Terms,
    excluded: Excluded,
    most: int,
    now: float,
) -> list[Candidate]:
    """Sites that report no room and have a slot, for a resume; one at a time, so none of them weighs more."""
    candidates = []
    for view in views:
        if not view.is_serving or (excluded and is_excluded(view, excluded)):
            continue
        load, freshness = loads[view.site_id], view.freshness(now)
        if freshness is EXPIRED or not load.breaker.admits(now) or load.is_blocked(now):
            continue
        if load.breaker.state != "closed" and not terms.may_probe:
            continue
        if view.capacity_requests is None or view.running_requests is None or not load.can_prefill(now):
            continue
        if view.capacity_requests - view.running_requests - max(0.0, load.added_since(view)) >= 1.0:
            candidates.append(_candidate((view, 1.0, freshness, load)))
            if len(candidates) >= most:
                break
    return candidates


def _room(view: ModelView, load: Load, now: float, terms: Terms, is_expired: bool) -> float:
    if terms.is_paced and not load.can_prefill(now):
        return 0.0
    room = load.room(view, now, is_expired)
    if terms.surplus_ratio is not None:
        return surplus_room(view, load, room, terms.surplus_ratio, now)
    if terms.reserve_ratio and view.capacity_requests is not None:
        room -= _reserve(view, room, terms.reserve_ratio)
    return room


def _reserve(view: ModelView, room: float, ratio: float) -> int:
    """Of what the site can hold now: its SLO, cache or cap may allow far less than it has slots."""
    capacity, running = view.capacity_requests or 0.0, view.running_requests
    return int(ratio * (capacity if running is None else min(capacity, running + room)))


def _at(candidates: Sequence[Candidate], weights: Sequence[float], point: float) -> ModelView:
    """The candidate at `point` of the sum of weights; nobody without weight."""
    chosen = candidates[-1].view
    for candidate, weight in zip(candidates, weights, strict=True):
        if weight > 0.0:
            chosen = candidate.view
            point -= weight
            if point < 0.0:
                break
    return chosen  # rounding at the upper end: the last that has weight


def has_other_site(views: Sequence[ModelView], excluded: Excluded) -> bool:
    """Whether any site that knows the model, even one that is dark now, may still be asked."""
    return any(excluded.get(view.site_id) != FOREVER for view in views)
