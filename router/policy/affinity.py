"""Which site holds the KV cache of a request's prefix, and whether it gets the request. Pure.

What this router sent where is what it knows; an engine is never asked. The order (DESIGN §5, Affinity):
  1. a known session: where its last turn went, until load says otherwise (`HELD_LOAD_RATIO`; a site where
     this router has nothing in flight is never too busy),
  2. else the sites that were sent the longest beginning of the prompt, unless that is more than half of those
     that could take it: a prefix that is nearly everywhere is no reason to go anywhere,
  3. else by the hash of its session, key or first block that is not nearly everywhere, in proportion to the
     policy's weights: the policy's own choice, but for the dice. So replicas that never talk send one
     conversation to one site.
2 and 3 have no history to lose and so keep to the tighter `NEW_LOAD_RATIO`. Whom the policy gives (nearly) no
weight is not followed, in any case. When nobody is left, the policy's choice stands.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from typing import Generic, Literal, TypeVar

from router.policy.affinity_hint import Hint
from router.policy.baselines import POLICY_FLOOR_RATIO
from router.policy.candidate import Candidate
from router.policy.load import KvCache, Load
from router.policy.snapshot import ModelView

HELD_LOAD_RATIO = 1.25
"""A site takes so much of the load that is its due, at most, from sessions that it holds."""
NEW_LOAD_RATIO = 1.1
"""The same for what has no history anywhere. Lower, so that there is room for conversations to grow; not 1,
or every second choice would depend on what only one replica knows."""
SLACK_REQUESTS = 1.0
"""So many more, as long as the load is even on average: few requests are uneven by themselves."""
SMOOTHING_RATIO = 1 / 16
"""Weight of the latest look at what is in flight in its average over decisions."""
WINDOW_SECONDS = 20.0
"""Requests sent in the last one to two of these are a site's recent load: what is in flight now says little
where answers are short."""
MAX_BLOCKS = 32_768
"""Of each of two generations; blocks and sessions together take 9 MiB when full."""
MAX_SESSIONS = 32_768
MAX_HOLDERS = 8
"""Sites remembered per block, the latest first."""

Result = Literal["hit", "miss", "overridden", "unavailable"]
RESULTS: tuple[Result, ...] = ("hit", "miss", "overridden", "unavailable")

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Generations(Generic[Key, Value]):
    """A bounded map that forgets what was not used lately: two dicts, the older of which is dropped whole."""

    __slots__ = ("_new", "_old", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._new: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}

    def __len__(self) -> int:
        return len(self._new) + sum(key not in self._new for key in self._old)

    def get(self, key: Key) -> Value | None:
        """What was put last."""
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: Key, value: Value) -> None:
        """Remember it, at the cost of the oldest."""
        if len(self._new) >= self._size:
            self._old, self._new = self._new, {}
        self._new[key] = value


class Affinity:
    """What one router process knows; one per process."""

    def __init__(self, *, max_blocks: int = MAX_BLOCKS, max_sessions: int = MAX_SESSIONS) -> None:
        self.results: dict[str, int] = dict.fromkeys(RESULTS, 0)
        self._sessions: Generations[int, KvCache] = Generations(max_sessions)
        self._blocks: Generations[int, tuple[KvCache, ...]] = Generations(max_blocks)
        self._window_ends: dict[str, float] = {}

    def note(self, hint: Hint, cache: KvCache) -> None:
        """The request went there: soon its prompt is in that cache."""
        if hint.session is not None:
            self._sessions.put(hint.session, cache)
        blocks = self._blocks
        for block in hint.prefix:
            holders = blocks.get(block)
            if holders is None:
                holders = cache.alone
            elif holders[0] is not cache:
                others = [one for one in holders if one is not cache]
                holders = (cache, *others[: MAX_HOLDERS - 1])
            blocks.put(block, holders)

    def holders(self, hint: Hint) -> list[str]:
        """Ids of the sites that hold this session, or else the longest beginning of this prompt that anybody
        holds; in a fleet too large to look at all, so that they are among the candidates."""
        if hint.session is not None and (cache := self._sessions.get(hint.session)) is not None:
            return [cache.site_id]
        for block in reversed(hint.prefix):
            caches = self._blocks.get(block)
            if caches is not None:
                return [cache.site_id for cache in caches]
        return []

    def pick(
        self,
        hint: Hint,
        candidates: Sequence[Candidate],
        weights: Sequence[float],
        loads: Mapping[str, Load],
        now: float,
        *,
        floor_ratio: float = POLICY_FLOOR_RATIO,
    ) -> ModelView | None:
        """The site for a request that has several candidates; None: as the policy chooses. `loads`: of every
        site that knows the model.

        `weights` are the policy's, one per candidate, not all 0. `floor_ratio`: a site that the policy gives
        less than this of the best one's weight, by capacity, is not followed.
        """
        stand = [candidate.load for candidate in candidates]
        for load in stand:
            load.mean_in_flight += SMOOTHING_RATIO * (load.total_in_flight() - load.mean_in_flight)
        self._turn_window(candidates[0].view.model, loads, now)
        scale = _Scale(candidates, weights, stand, floor_ratio)
        result: Result = "miss"
        if hint.session is not None and (cache := self._sessions.get(hint.session)) is not None:
            result = "unavailable"
            for index, load in enumerate(stand):
                if load.kv_cache is cache:
                    if scale.may_keep(index):
                        self.results["hit"] += 1
                        return candidates[index].view
                    result = "overridden"
        choice = [index for index in range(len(stand)) if scale.may_add(index)]
        holders = self._longest(hint.prefix, stand)
        if holders and not _is_everywhere(holders, stand):
            open_holders = [index for index in choice if index in holders]
            choice = open_holders or choice
            if result == "miss":
                result = "hit" if open_holders else "overridden"
        self.results[result] += 1
        group = self._group(hint, stand)
        if not choice or group is None:
            return None
        return candidates[_by_hash(group, choice, candidates, weights)].view

    def _group(self, hint: Hint, stand: Sequence[Load]) -> int | None:
        """What to hash; None: there is nothing of its own about this request."""
        if hint.group is not None:
            return hint.group
        for block in hint.prefix:
            holders = self._holders(block, stand)
            if not _is_everywhere(holders, stand):
                return block
        return None

    def _longest(self, prefix: tuple[int, ...], stand: Sequence[Load]) -> list[int]:
        """The candidates that were sent the longest beginning of this prompt; empty: none was sent any."""
        for block in reversed(prefix):
            holders = self._holders(block, stand)
            if holders:
                return holders
        return []

    def _holders(self, block: int, stand: Sequence[Load]) -> list[int]:
        caches = self._blocks.get(block)
        if caches is None:
            return []
        return [index for index, load in enumerate(stand) if load.kv_cache in caches]

    def _turn_window(self, model: str, loads: Mapping[str, Load], now: float) -> None:
        ends_at = self._window_ends.get(model)
        if ends_at is not None and now < ends_at:
            return
        turns = 2 if ends_at is None or now >= ends_at + WINDOW_SECONDS else 1
        for load in loads.values():
            for _ in range(turns):
                load.turn_window()
        self._window_ends[model] = now + WINDOW_SECONDS


def _is_everywhere(holders: Sequence[int], stand: Sequence[Load]) -> bool:
    return len(holders) * 2 > len(stand)


class _Scale:
    """How much of the load each candidate has, against what is its due."""

    __slots__ = (
        "_best",
        "_capacities",
        "_floor_ratio",
        "_in_flight",
        "_mean",
        "_recent",
        "_stand",
        "_total_capacity",
        "_weight",
        "_weights",
    )

    def __init__(
        self,
        candidates: Sequence[Candidate],
        weights: Sequence[float],
        stand: Sequence[Load],
        floor_ratio: float,
    ) -> None:
        capacities = [candidate.view.capacity_requests or 0.0 for candidate in candidates]
        if min(capacities) <= 0.0:  # unknown somewhere: all count as equal
            capacities = [1.0] * len(capacities)
        self._floor_ratio = floor_ratio
        self._stand = stand
        self._weights = weights
        self._capacities = capacities
        self._best = max(weight / capacity for weight, capacity in zip(weights, capacities, strict=True))
        self._weight = sum(weights)
        self._total_capacity = sum(capacities)
        self._in_flight = sum(load.total_in_flight() for load in stand) + 1
        self._mean = sum(load.mean_in_flight for load in stand)
        self._recent = sum(load.recent for load in stand) + 1

    def may_keep(self, index: int) -> bool:
        """Whether a session that the site holds stays there."""
        if not self._is_wanted(index):
            return False
        return not self._stand[index].total_in_flight() or self._is_within(index, HELD_LOAD_RATIO)

    def may_add(self, index: int) -> bool:
        """Whether something that has no history may go there."""
        return self._is_wanted(index) and self._is_within(index, NEW_LOAD_RATIO)

    def _is_wanted(self, index: int) -> bool:
        return self._weights[index] / self._capacities[index] >= self._floor_ratio * self._best

    def _is_within(self, index: int, ratio: float) -> bool:
        """One request more keeps the site within `ratio` of its due: what the policy gives it, or its part of
        the capacity where that is more, as the room that policies weigh swings when sites are full.

        What is in flight now may exceed it by the slack while its average does not: to move a conversation
        for every moment that is uneven would cost more than it mends.
        """
        due = max(self._weights[index] / self._weight, self._capacities[index] / self._total_capacity)
        load = self._stand[index]
        if load.recent + 1 > ratio * due * self._recent + SLACK_REQUESTS:
            return False
        most = ratio * due * self._in_flight
        then = load.total_in_flight() + 1
        if then <= max(most, math.ceil(due * self._in_flight)):
            return True
        return then <= most + SLACK_REQUESTS and load.mean_in_flight <= ratio * due * self._mean


def _by_hash(
    group: int, choice: Sequence[int], candidates: Sequence[Candidate], weights: Sequence[float]
) -> int:
    """Rendezvous hashing with weights (Schindelhauer and Schomaker, Weighted Distributed Hash Tables, 2005).

    Each is taken in proportion to its weight; a change of one site's weight moves keys to or from it alone.
    """
    key = group.to_bytes(8, "big")
    best, best_score = choice[0], math.inf
    for index in choice:
        digest = blake2b(candidates[index].view.site_id.encode(), digest_size=8, key=key).digest()
        point = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
        score = -math.log(point) / weights[index]
        if score < best_score:
            best, best_score = index, score
    return best
