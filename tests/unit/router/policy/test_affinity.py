"""Which site holds the cache, and whether it gets the request."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from support.views import FEATURES, loads, view

from router.policy.affinity import MAX_HOLDERS, WINDOW_SECONDS, Affinity, Generations
from router.policy.affinity_hint import Hint
from router.policy.candidate import Candidate
from router.policy.dispatch import choose
from router.policy.policies import make_policy
from router.policy.snapshot import Freshness

SYSTEM = tuple(range(1, 5))
"""The blocks of a prefix that everybody has."""


def hint(
    session: int | None = None, *own: int, group: int | None = None, shared: tuple[int, ...] = ()
) -> Hint:
    return Hint(session=session, group=session if group is None else group, prefix=(*shared, *own))


class Router:
    """One router's view of equal sites."""

    def __init__(self, *names: str, capacity: float | None = 20.0) -> None:
        self.names = names
        self.affinity = Affinity()
        self.loads = loads(*names)
        self.capacity = capacity
        self.now = 100.0

    def pick(self, wanted: Hint, weights: Sequence[float] | None = None) -> str | None:
        """Where it would go, by affinity alone."""
        candidates = [
            Candidate(view(name, capacity_requests=self.capacity), 10.0, Freshness.FRESH, self.loads[name])
            for name in self.names
        ]
        picked = self.affinity.pick(
            wanted, candidates, weights or [10.0] * len(candidates), self.loads, self.now
        )
        return None if picked is None else picked.site_id

    def send(self, wanted: Hint, name: str) -> None:
        """It went there and is under way."""
        self.affinity.note(wanted, self.loads[name].kv_cache)
        self.loads[name].in_flight += 1
        self.loads[name].sent += 1

    def busy(self, **in_flight: int) -> None:
        for name, count in in_flight.items():
            self.loads[name].in_flight = count


def test_a_session_stays_where_its_last_turn_went():
    """Wherever its hash would have sent it."""
    for home in "ab":
        router = Router("a", "b")
        router.send(hint(7), home)
        router.busy(a=0, b=0)
        assert router.pick(hint(7)) == home
        assert router.affinity.results["hit"] == 1


def test_a_busy_holder_is_left_and_the_next_turn_stays_there():
    """Over 1.25 of its due; then the history is elsewhere."""
    router = Router("a", "b")
    router.send(hint(7), "a")
    router.busy(a=9, b=4)
    assert router.pick(hint(7)) == "b"
    assert router.affinity.results["overridden"] == 1
    router.send(hint(7), "b")
    router.busy(a=9, b=9)
    assert router.pick(hint(7)) == "b"


def test_a_holder_within_its_due_is_kept():
    """7 of 12 is 1.17 times the mean."""
    router = Router("a", "b")
    router.send(hint(7), "a")
    router.busy(a=7, b=5)
    assert router.pick(hint(7)) == "a"


def test_an_idle_holder_is_kept_whatever_it_had_lately():
    """One client alone never moves: load says nothing where there is none."""
    router = Router("a", "b")
    for _ in range(100):
        assert router.pick(hint(7)) in (None, "a", "b")
        router.send(hint(7), "a")
        router.busy(a=0)
        assert router.pick(hint(7)) == "a"


def test_what_a_site_had_lately_counts_where_it_is_not_idle():
    """Short answers: hardly anything in flight, yet all of it at one site."""
    router = Router("a", "b")
    router.pick(hint(1))  # a window begins
    for _ in range(20):
        router.send(hint(7), "a")
    router.busy(a=1, b=1)
    assert router.pick(hint(7)) == "b"


def test_what_a_site_had_long_ago_does_not_count():
    """Two windows later it is forgotten."""
    router = Router("a", "b")
    router.pick(hint(1))
    for _ in range(20):
        router.send(hint(7), "a")
    router.busy(a=1, b=1)
    router.now += 2 * WINDOW_SECONDS
    assert router.pick(hint(7)) == "a"


def test_a_new_session_goes_where_its_prefix_is():
    """One site of two holds the tenant's prompt."""
    for home in "ab":
        router = Router("a", "b")
        router.send(hint(1, 50, 51), home)
        router.busy(a=0, b=0)
        router.loads[home].sent = 0
        assert [router.pick(hint(session, 50, 51, 60 + session)) for session in range(2, 8)] == [home] * 6


def test_the_longest_match_wins():
    """Both have the beginning, one has more of it."""
    router = Router("a", "b")
    router.send(hint(1, 50, 51, 52), "b")
    router.send(hint(2, 50), "a")
    router.busy(a=0, b=0)
    for session in range(3, 9):
        assert router.pick(hint(session, 50, 51, 52, 53)) == "b"


def test_a_prefix_that_most_sites_hold_is_no_reason():
    """Then the session's hash decides, and spreads."""
    router = Router("a", "b", "c")
    router.send(hint(1, shared=SYSTEM), "a")
    router.send(hint(2, shared=SYSTEM), "b")
    router.busy(a=0, b=0)
    picks = Counter(router.pick(hint(session, shared=SYSTEM)) for session in range(100, 400))
    assert all(70 < picks[name] < 130 for name in "abc")


def test_a_shared_prefix_does_not_draw_everything_to_one_site():
    """New sessions have no history to lose: the holder takes 1.1 of its due and no more."""
    router = Router("a", "b")
    router.pick(hint(1))
    sent = Counter()
    for session in range(2, 102):
        wanted = hint(session, shared=SYSTEM)
        name = router.pick(wanted) or "b"
        router.send(wanted, name)
        router.busy(a=0, b=0)
        sent[name] += 1
    assert max(sent.values()) <= 1.1 * 50 + 2


def test_replicas_agree_on_new_sessions_without_talking():
    """The same weights give the same site; nearly the same nearly always do."""
    one, other = Router("a", "b", "c"), Router("a", "b", "c")
    sessions = [hint(random.Random(number).getrandbits(64)) for number in range(300)]
    assert [one.pick(each) for each in sessions] == [other.pick(each) for each in sessions]
    moved = [one.pick(each, [10, 9, 9]) != other.pick(each, [9, 10, 9]) for each in sessions]
    assert sum(moved) < 0.1 * len(moved)


def test_new_sessions_are_spread_as_the_policy_weighs():
    """Hashed instead of sampled, in the same proportions; unequal sites of equal weight per capacity too."""
    router = Router("a", "b", capacity=None)
    sessions = [hint(random.Random(number).getrandbits(64)) for number in range(2000)]
    picks = Counter(router.pick(each, [30.0, 10.0]) for each in sessions)
    assert 0.22 < picks["b"] / 2000 < 0.28


def test_a_bare_prompt_is_known_by_the_first_block_that_is_its_own():
    """So that every replica sends its continuations to one site, whatever it knows itself."""
    one, other = Router("a", "b"), Router("a", "b")
    for router in (one, other):
        for name in router.names:
            router.send(hint(None, shared=SYSTEM), name)
        router.busy(a=0, b=0)
    for own in range(1000, 1020):
        turns = [hint(None, own, shared=SYSTEM), hint(None, own, own + 500, shared=SYSTEM)]
        assert one.pick(turns[0]) == other.pick(turns[1]) is not None


def test_a_bare_prompt_without_a_block_of_its_own_goes_as_the_policy_chooses():
    """Everybody has all of it."""
    router = Router("a", "b")
    for name in router.names:
        router.send(hint(None, shared=SYSTEM), name)
    assert router.pick(hint(None, shared=SYSTEM)) is None


def test_a_site_that_the_policy_hardly_wants_is_not_followed():
    """Nor one that it does not want at all: round robin stays round robin."""
    router = Router("a", "b")
    router.send(hint(7), "a")
    router.busy(a=0, b=0)
    assert router.pick(hint(7), [1.0, 10.0]) == "b"
    assert router.pick(hint(7), [0.0, 1.0]) == "b"
    assert router.pick(hint(7), [3.0, 10.0]) == "a"


def test_a_site_that_was_dark_has_forgotten():
    """Its report said that no engine was left: what it held is gone."""
    router = Router("a", "b")
    router.send(hint(7, 50, 51), "a")
    router.busy(a=0, b=0)
    router.loads["a"].reported(view("a", ready_instances=0, state="dark", headroom_requests=0.0))
    router.pick(hint(7, 50, 51))
    assert router.affinity.results == {"hit": 0, "miss": 0, "overridden": 0, "unavailable": 1}


def test_a_holder_that_is_no_candidate_is_unavailable():
    """Full, dark or excluded: another site takes it."""
    router = Router("a", "b", "c")
    router.send(hint(7), "a")
    router.names = ("b", "c")
    assert router.pick(hint(7)) in ("b", "c")
    assert router.affinity.results["unavailable"] == 1


def test_tables_are_bounded_and_forget_the_oldest():
    """Two generations of each."""
    kept: Generations[int, int] = Generations(4)
    for number in range(100):
        kept.put(number, number)
        assert len(kept) <= 8
        assert kept.get(number) == number
    assert kept.get(90) is None
    assert kept.get(97) == 97


def test_what_is_used_is_kept():
    """A block in every prompt outlives the ones that come once."""
    kept: Generations[int, int] = Generations(4)
    for number in range(100):
        kept.put(-1, 1)
        kept.put(number, number)
    assert kept.get(-1) == 1


def test_holders_of_a_block_are_bounded():
    """The latest ones; a prefix that more hold than this is everywhere."""
    names = [f"s{number:02d}" for number in range(2 * MAX_HOLDERS)]
    router = Router(*names)
    for name in names:
        router.send(hint(None, 50), name)
    router.busy(**dict.fromkeys(names, 0))
    for load in router.loads.values():
        load.sent = 0
    assert {router.pick(hint(number, 50)) for number in range(200)} <= set(names[MAX_HOLDERS:])


@dataclass
class Replay:
    """Clients that talk in turns over a shared prefix, each waiting for its answer, on a clock of steps."""

    policy: str
    rng: random.Random
    router: Router
    affinity: bool
    queries: int = 0
    hits: int = 0
    cached: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)
    slow: str = ""
    """A site that takes three times as long."""
    in_flight: Counter[str] = field(default_factory=Counter)
    """Summed over the steps."""

    def run(self, clients: int, turns: int, conversations: int) -> None:
        self.cached = {name: set() for name in self.router.names}
        talking: list[list[int]] = [[] for _ in range(clients)]
        at: list[str | None] = [None] * clients
        for _ in range(conversations * turns * 3):
            self.router.now += 0.1
            self.in_flight.update({name: load.in_flight for name, load in self.router.loads.items()})
            for client in range(clients):
                site = at[client]
                if site is not None:
                    if self.rng.random() < (0.1 if site == self.slow else 0.3):
                        self.router.loads[site].in_flight -= 1
                        at[client] = None
                    continue
                blocks = talking[client]
                if len(blocks) == len(SYSTEM) + turns or not blocks:
                    if not conversations:
                        continue
                    conversations -= 1
                    blocks = [*SYSTEM, 1000 * (conversations + 1)]
                talking[client] = [*blocks, blocks[-1] + 1]
                at[client] = self._send(talking[client])

    def _send(self, blocks: list[int]) -> str:
        wanted = Hint(session=blocks[4], group=blocks[4], prefix=tuple(blocks))
        router = self.router
        views = [
            view(name, arrived_at=router.now, headroom_requests=100.0 - router.loads[name].in_flight)
            for name in router.names
        ]
        for load in router.loads.values():
            load._baseline = load.in_flight
        chosen = choose(
            views,
            router.loads,
            policy=make_policy(self.policy),
            features=FEATURES,
            excluded={},
            is_resume=False,
            reserve_ratio=0.1,
            turn=self.queries,
            now=router.now,
            rng=self.rng,
            affinity=router.affinity if self.affinity else None,
            hint=wanted,
        )
        assert chosen is not None
        name = chosen.site_id
        router.send(wanted, name)
        prefixes = [tuple(blocks[: end + 1]) for end in range(len(blocks))]
        self.queries += len(prefixes)
        self.hits += sum(prefix in self.cached[name] for prefix in prefixes)
        self.cached[name].update(prefixes)
        return name


@pytest.mark.parametrize("sites", [2, 5])
def test_a_replay_keeps_its_hit_rate_and_its_balance(sites: int):
    """Nearly one site's hits, no site over 1.25 of the mean; without affinity history is lost."""

    def replay(names: Sequence[str], affinity: bool) -> tuple[float, float]:
        router = Router(*names, capacity=100.0)
        made = Replay("least_loaded", random.Random(3), router, affinity)
        made.run(clients=4 * sites, turns=8, conversations=30 * sites)
        sent = [load.sent for load in router.loads.values()]
        return made.hits / made.queries, max(sent) * len(sent) / sum(sent)

    names = [f"site-{number}" for number in range(sites)]
    alone, _ = replay(names[:1], affinity=True)
    hit_rate, balance = replay(names, affinity=True)
    assert hit_rate >= 0.97 * alone
    assert balance <= 1.15
    without, _ = replay(names, affinity=False)
    assert without < hit_rate - 0.04


def test_a_slow_site_is_not_overrun():
    """What is in flight bounds it, however long answers take there."""
    router = Router("a", "b", capacity=100.0)
    made = Replay("least_loaded", random.Random(4), router, True, slow="a")
    made.run(clients=12, turns=8, conversations=60)
    assert made.in_flight["a"] <= 1.25 * made.in_flight.total() / 2


def test_a_candidate_alone_needs_no_affinity():
    """And is noted all the same: see the dispatcher."""
    chosen: Any = choose(
        [view("a")],
        loads("a"),
        policy=make_policy("least_loaded"),
        features=FEATURES,
        excluded={},
        is_resume=False,
        reserve_ratio=0.1,
        turn=1,
        now=101.0,
        rng=random.Random(1),
        affinity=Affinity(),
        hint=hint(7),
    )
    assert chosen.site_id == "a"
