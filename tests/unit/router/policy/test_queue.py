"""Who is next among those that wait: order of lanes and tiers, fairness, bounds, time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.request import ServiceTier
from router.policy.fair_line import Lane, Ticket
from router.policy.model_queue import PRIORITY_RUN, TIERS
from router.policy.queue import MAX_GIVING_WAY, MAX_SKIPPED, HoldQueue, Offer

LANES = tuple(Lane)


def ticket(
    tenant: str = "t",
    tier: ServiceTier = "default",
    *,
    lane: Lane = Lane.NEW,
    is_late: bool = False,
    tokens: int = 100,
    waits_since: float = 0.0,
    expires_at: float = 1000.0,
    model: str = "m",
    is_patient: bool = False,
    body_bytes: int = 0,
    payload: Any = None,
) -> Ticket:
    return Ticket(
        model=model,
        tier=tier,
        tenant=tenant,
        tokens=tokens,
        waits_since=waits_since,
        expires_at=expires_at,
        lane=lane,
        is_late=is_late,
        is_patient=is_patient,
        body_bytes=body_bytes,
        payload=payload,
    )


def filled(*tickets: Ticket, max_waiting: int = 10_000) -> HoldQueue:
    queue = HoldQueue(max_waiting=max_waiting)
    for one in tickets:
        assert queue.add(one) is None
    return queue


def served(queue: HoldQueue, places: int = 10_000, *, model: str = "m", now: float = 0.0) -> list[Ticket]:
    """Who gets the next so many places, in order."""
    got: list[Ticket] = []

    def offer(one: Ticket) -> Offer:
        if len(got) >= places:
            return Offer.NO_ROOM
        got.append(one)
        return Offer.PLACED

    queue.serve(model, offer, now)
    return got


def test_resumes_come_first_then_who_had_a_turn_then_new_work_then_flex():
    """Whatever the order in which they came."""
    new, flex = ticket(), ticket(tier="flex")
    returning, resume = ticket(lane=Lane.RETURNING), ticket(lane=Lane.RESUME)
    urgent = ticket(tier="priority")
    queue = filled(flex, new, urgent, returning, resume)
    assert served(queue) == [resume, returning, urgent, new, flex]
    assert (len(queue), queue.models()) == (0, [])


def test_default_gets_one_place_in_five_while_priority_waits():
    """It never starves."""
    queue = filled(*(ticket(tier=tier) for tier in ("priority", "default") for _ in range(50)))
    tiers = [one.tier for one in served(queue)]
    assert Counter(tiers[:50]) == {"priority": 40, "default": 10}
    assert tiers[4::5][:10] == ["default"] * 10


def test_flex_gets_nothing_while_anything_else_waits():
    """Not even one that was before it."""
    queue = filled(ticket(tier="flex"), ticket())
    assert [one.tier for one in served(queue, 1)] == ["default"]
    queue.add(ticket(lane=Lane.RESUME))
    seen: list[str] = []
    queue.serve("m", lambda one: seen.append(one.tier) or Offer.NOT_THIS, 0.0)  # type: ignore[func-returns-value]
    assert seen == ["default"]  # the resume alone was asked


def test_one_tenant_s_thousand_do_not_delay_another_s_one():
    """The newcomer is second at the latest."""
    queue = filled(*(ticket("greedy") for _ in range(1000)))
    served(queue, 10)
    queue.add(ticket("modest"))
    assert "modest" in [one.tenant for one in served(queue, 2)]


def test_tenants_share_by_tokens_not_by_requests():
    """Ten small requests are as much as one large one."""
    queue = filled(
        *(ticket("large", tokens=1000) for _ in range(20)), *(ticket("small", tokens=100) for _ in range(200))
    )
    tokens: Counter[str] = Counter()
    for one in served(queue, 110):
        tokens[one.tenant] += one.tokens
    assert abs(tokens["large"] - tokens["small"]) <= 1000


def test_a_tenant_that_was_away_saves_nothing_up():
    """It begins level with the others, and what it had just had counts."""
    queue = filled(*(ticket("a") for _ in range(100)))
    served(queue, 50)
    for _ in range(20):
        queue.add(ticket("b"))
    assert Counter(one.tenant for one in served(queue, 20)) == {"a": 10, "b": 10}
    queue = filled(ticket("b", tokens=500), *(ticket("a") for _ in range(20)))
    assert {one.tenant for one in served(queue, 2)} == {"a", "b"}
    queue.add(ticket("b"))
    assert [one.tenant for one in served(queue, 4)] == ["a"] * 4, "b had 500 tokens, a 100"


def test_within_a_tenant_it_is_first_come_first_served():
    """And with one tenant, as where everybody is anonymous, over all."""
    made = [ticket() for _ in range(5)]
    assert served(filled(*made)) == made


def test_a_full_tier_makes_the_largest_tenant_give_way():
    """Its newest request; a newcomer of the largest itself is turned away."""
    greedy = [ticket("greedy") for _ in range(3)]
    queue = filled(*greedy, max_waiting=3)
    again = ticket("greedy")
    assert queue.add(again) is again
    modest = ticket("modest")
    assert queue.add(modest) is greedy[2]
    assert greedy[2] not in queue
    assert modest in queue
    late = ticket("modest")
    assert queue.add(late) is late, "two and one are as even as it gets"
    assert queue.add(ticket(tier="flex")) is None, "each tier has its own bound"
    assert queue.add(ticket(lane=Lane.RESUME)) is None, "resumes are always taken in"
    assert len(queue) == 5


def test_a_queue_of_no_length_takes_nothing_new():
    """`hold_requests = 0`."""
    queue = HoldQueue(max_waiting=0)
    new = ticket()
    assert queue.add(new) is new
    assert queue.add(ticket(lane=Lane.RETURNING)) is None


def add_within(queue: HoldQueue, one: Ticket) -> list[Ticket] | None:
    """As the router's shell does; None: it was turned away."""
    out = queue.make_room(one)
    if out is not None:
        assert queue.add(one) is None
    return out


def test_bodies_that_wait_are_bounded_over_all_tiers_and_models():
    """One tenant alone is turned away; what has left makes room."""
    queue = HoldQueue(max_waiting=100, max_bytes=100)
    first = ticket(tier="flex", model="n", body_bytes=60)
    assert add_within(queue, first) == []
    assert add_within(queue, ticket(body_bytes=41)) is None
    assert add_within(queue, ticket(body_bytes=40)) == []
    assert add_within(queue, ticket()) == []
    assert (queue.waiting_bytes, len(queue)) == (100, 3)
    queue.remove(first)
    assert add_within(queue, ticket(body_bytes=60)) == []
    served(queue)
    assert (queue.waiting_bytes, len(queue)) == (0, 0)
    assert add_within(queue, ticket(body_bytes=101)) is None, "nobody else can give way"


def test_the_tenant_with_the_most_bytes_gives_up_its_newest():
    """As many as it takes, up to a limit, and not for one that has as much itself."""
    queue = HoldQueue(max_waiting=100, max_bytes=100)
    greedy = [ticket("greedy", "flex", body_bytes=20) for _ in range(5)]
    assert [add_within(queue, one) for one in greedy] == [[]] * 5
    assert add_within(queue, ticket("greedy", body_bytes=1)) is None
    assert add_within(queue, ticket("modest", body_bytes=25)) == [greedy[4], greedy[3]]
    assert add_within(queue, ticket("modest", body_bytes=35)) is None, "it would have as much"
    assert add_within(queue, ticket("third", body_bytes=16)) == [greedy[2]]
    assert queue.waiting_bytes == 81


def test_a_large_request_does_not_turn_out_many_small_ones():
    """It is turned away itself, and nobody for it."""
    queue = HoldQueue(max_waiting=100, max_bytes=100)
    for _ in range(50):
        assert add_within(queue, ticket("many", body_bytes=2)) == []
    assert add_within(queue, ticket("large", body_bytes=2 * MAX_GIVING_WAY + 1)) is None
    assert len(queue) == 50
    gone = add_within(queue, ticket("large", body_bytes=2 * MAX_GIVING_WAY))
    assert gone is not None
    assert len(gone) == MAX_GIVING_WAY


def test_what_had_a_turn_is_taken_in_whatever_its_bytes():
    """They count, and give way to nobody."""
    queue = HoldQueue(max_waiting=100, max_bytes=100)
    for lane in (Lane.RESUME, Lane.RETURNING):
        assert add_within(queue, ticket("t", lane=lane, body_bytes=90)) == []
    assert queue.waiting_bytes == 180
    assert add_within(queue, ticket("other", body_bytes=1)) is None


def test_who_excludes_the_sites_with_room_is_passed_over_but_keeps_its_place():
    """It stays the first of those that may have them."""
    stuck, other = (ticket(lane=Lane.RESUME, payload=name) for name in ("stuck", "other"))
    new = ticket()
    queue = filled(stuck, other, new)
    got: list[Ticket] = []

    def offer(one: Ticket) -> Offer:
        if one is stuck:
            return Offer.NOT_THIS
        got.append(one)
        return Offer.PLACED

    queue.serve("m", offer, 0.0)
    assert got == [other, new]
    assert stuck in queue


def test_one_that_may_go_to_a_full_site_only_holds_nobody_up():
    """At its turn it steps aside; it is asked first once its site has room, and pays as all do."""
    for tier in TIERS:
        stuck = ticket("x", tier, payload="stuck")
        queue = filled(stuck, *(ticket(f"t{number}", tier) for number in range(200)))
        queue.serve("m", lambda one: Offer.NOT_THIS if one.payload else Offer.PLACED, 0.0)
        assert (len(queue), stuck in queue) == (1, True)
        assert not queue.is_before("m", "priority", 0.0, is_resume=False)
        newcomer = ticket("y", tier)
        assert queue.add(newcomer) is None
        assert served(queue) == [stuck, newcomer]
        assert (len(queue), queue.models()) == (0, [])


def test_of_many_that_stand_aside_all_get_their_turn():
    """The sites that they wait for are not the same."""
    queue = filled(*(ticket(f"t{number}", payload=number) for number in range(40)))
    places: list[int] = []

    def offer(one: Ticket) -> Offer:
        if one.payload != 39:
            return Offer.NOT_THIS
        places.append(one.payload)
        return Offer.PLACED if len(places) > 1 else Offer.NOT_THIS

    for _ in range(4):
        queue.serve("m", offer, 0.0)
    assert places == [39, 39]
    assert len(queue) == 39


def test_more_than_a_batch_of_resumes_is_served_at_once():
    """As after a drop that broke hundreds of streams."""
    queue = filled(*(ticket(lane=Lane.RESUME) for _ in range(500)))
    assert len(served(queue)) == 500


def test_whoever_arrives_knows_whether_it_must_wait():
    """Behind whom it would stand: a resume behind resumes, new work behind all but flex, flex behind all."""

    def blocks(waiting: Ticket) -> list[bool]:
        queue = filled(waiting)
        return [
            queue.is_before("m", "default", 0.0, is_resume=True),
            queue.is_before("m", "priority", 0.0, is_resume=False),
            queue.is_before("m", "flex", 0.0, is_resume=False),
            queue.is_before("other", "default", 0.0, is_resume=False),
        ]

    assert blocks(ticket(lane=Lane.RESUME)) == [True, True, True, False]
    assert blocks(ticket(lane=Lane.RETURNING)) == [False, True, True, False]
    assert blocks(ticket()) == [False, True, True, False]
    assert blocks(ticket(tier="flex")) == [False, False, True, False]


def test_how_many_are_ahead_counts_no_lower_tier():
    """What an estimate of the wait begins with."""
    queue = filled(ticket(), ticket(tier="priority"), ticket(tier="flex"), ticket(lane=Lane.RESUME))
    assert [queue.ahead("m", tier, "t", 0.0) for tier in TIERS] == [2, 3, 4]
    assert queue.ahead("other", "flex", "t", 0.0) == 0


def test_who_is_late_stands_behind_all_who_are_not():
    """A tenant with late ones has its others served newest first; late ones are served in order."""
    first, second, third = (ticket(waits_since=at) for at in (0.0, 0.5, 1.0))
    queue = filled(first, second, third)
    assert served(queue, 1, now=0.9) == [first]
    newer = ticket(waits_since=1.2)
    queue.add(newer)
    assert served(queue, 3, now=1.6) == [newer, third, second]
    late, later = ticket(waits_since=5.0), ticket(waits_since=6.0)
    assert served(filled(late, later), now=9.0) == [late, later]


def test_a_place_that_is_no_place_for_the_late_is_offered_to_all_others_first():
    """And those behind the first late one that finds none are not asked."""
    late, later, fresh = ticket("a"), ticket("b"), ticket("c", waits_since=9.0)
    queue = filled(late, later, fresh, ticket(tier="flex"))
    asked: list[Ticket] = []

    def offer(one: Ticket) -> Offer:
        asked.append(one)
        return Offer.NO_ROOM if one.is_late else Offer.PLACED

    queue.serve("m", offer, 9.5)
    assert asked == [fresh, late]
    assert len(queue) == 3


def test_a_late_one_gets_every_fifth_place_though_it_leaves_no_room():
    """Where there is always somebody new, it would wait for ever."""
    queue = filled(ticket(is_late=True), *(ticket() for _ in range(9)), ticket(is_late=True))
    asked: list[tuple[bool, bool]] = []

    def offer(one: Ticket) -> Offer:
        asked.append((one.is_late, one.must_leave_room))
        return Offer.NO_ROOM if one.must_leave_room else Offer.PLACED

    queue.serve("m", offer, 0.5)
    fresh, unbound, bound = (False, False), (True, False), (True, True)
    assert asked == [*[fresh] * 4, unbound, *[fresh] * 4, unbound, fresh]
    queue = filled(ticket(is_late=True))
    asked.clear()
    queue.serve("m", offer, 0.5)
    assert asked == [bound]


def test_late_ones_change_nothing_for_other_tenants_and_for_flex():
    """Tenants stay equals, and flex keeps its order however long it waits."""
    late, later = ticket("late"), ticket("late", waits_since=5.0)
    first, second = ticket("fresh", waits_since=9.2), ticket("fresh", waits_since=9.5)
    queue = filled(late, later, first, second)
    assert served(queue, now=10.0) == [first, second, late, later]
    old, new = ticket(tier="flex"), ticket(tier="flex", waits_since=99.0)
    assert served(filled(old, new), now=100.0) == [old, new]


def test_a_newcomer_goes_at_once_where_only_late_ones_wait():
    """They take what it leaves."""
    queue = filled(ticket("a"), ticket("a", tier="priority"))
    assert queue.is_before("m", "default", 0.5, is_resume=False)
    assert not queue.is_before("m", "default", 5.0, is_resume=False)
    assert queue.is_before("m", "flex", 5.0, is_resume=False)


def test_a_newcomer_has_no_late_one_ahead():
    """And none of its own tenant's, if that has late ones; of higher tiers all count."""
    queue = filled(ticket("a"), ticket("a", waits_since=8.8), ticket("b", waits_since=8.5))
    assert queue.ahead("m", "default", "a", 0.5) == 3
    assert queue.ahead("m", "default", "a", 9.0) == 1
    assert queue.ahead("m", "default", "c", 9.0) == 2


def test_each_ticket_leaves_when_its_time_is_over_and_not_before():
    """The queue says when to look next."""
    early, late = ticket(expires_at=10.0), ticket(expires_at=20.0, lane=Lane.RESUME)
    queue = filled(late, early)
    assert queue.next_expiry_at == 10.0
    assert queue.expire(9.9) == []
    assert queue.expire(10.0) == [early]
    assert queue.next_expiry_at == 20.0
    assert queue.expire(25.0) == [late]
    assert queue.next_expiry_at == float("inf")
    assert len(queue) == 0


def test_the_patient_stand_in_nobody_s_way_and_are_asked_about_each_by_itself():
    """One that is not worth a place now waits aside; whoever is next gets it."""
    dear, cheap, dear_too, late = (ticket(payload=name) for name in ("dear", "cheap", "dear too", "late"))
    queue = filled(dear, cheap, dear_too)
    open_to = {"cheap"}
    seen: list[str] = []

    def offer(one: Ticket) -> Offer:
        seen.append(one.payload)
        return Offer.PLACED if one.payload in open_to else Offer.NOT_YET

    queue.serve("m", offer, 10.0)
    assert seen == ["dear", "cheap", "dear too", "dear", "dear too"]
    assert not queue.is_before("m", "default", 10.0, is_resume=False)
    assert queue.add(late) is None
    open_to = {"late", "dear too"}
    seen.clear()
    queue.serve("m", offer, 10.01)
    assert seen == ["late"], "the patient are asked about so often and no more"
    queue.serve("m", offer, 10.02)
    assert seen == ["late", "dear", "dear too"]
    assert (len(queue), queue.expire(1000.0), len(queue), queue.models()) == (1, [dear], 0, [])


def test_the_patient_wait_no_longer_than_they_can_spare():
    """From the beginning, or from when they became patient."""
    early, late = (ticket(is_patient=patient, expires_at=500.0) for patient in (True, False))
    early.start_by = late.start_by = 100.0
    queue = filled(early, late)
    assert queue.expire(59.9) == []
    assert queue.expire(60.0) == [early]
    queue.serve("m", lambda _: Offer.NOT_YET, 60.0)
    assert queue.expire(83.9) == []
    assert queue.expire(84.0) == [late], "three fifths of what it had left then"


def test_all_the_patient_are_asked_about_in_turn():
    """However many wait before them; the urgent first."""
    dear = [ticket("dear", is_patient=True) for _ in range(200)]
    cheap, urgent = ticket("cheap", is_patient=True), ticket("u", "priority", is_patient=True)
    queue = filled(*dear, cheap, urgent)
    got: list[Ticket] = []

    def offer(one: Ticket) -> Offer:
        if one is not cheap and one is not urgent:
            return Offer.NOT_YET
        got.append(one)
        return Offer.PLACED

    for turn in range(4):
        queue.serve("m", offer, turn * 0.02)
    assert got == [urgent, cheap]


def test_who_certainly_still_waits_is_passed_over_unasked():
    """At less cost, and in the same order as if it had been asked."""
    names = ("a", "b", "c", "d")
    queue = filled(*(ticket(payload=name, is_patient=True) for name in names))
    asked: list[str] = []

    def offer(one: Ticket) -> Offer:
        asked.append(one.payload)
        return Offer.NOT_YET

    queue.serve("m", offer, 0.0, lambda one: one.payload in "ac")
    assert asked == ["b", "d"]
    asked.clear()
    queue.serve("m", offer, 0.02)
    assert asked == ["a", "b", "c", "d"]
    queue.add(ticket(payload="new"))
    asked.clear()
    queue.serve("m", offer, 0.03, lambda _: True)
    assert asked == ["new"], "only the patient are passed over"


def test_a_patient_one_s_place_is_paid_for_by_its_tenant():
    """Among those that wait in line the other tenant is next."""
    one = ticket("a", is_patient=True, tokens=1000)
    queue = filled(ticket("a", payload="a"), ticket("b", payload="b"), one)
    queue.serve("m", lambda each: Offer.PLACED if each is one else Offer.NO_ROOM, 0.0)
    assert one in queue, "nobody gets a place before those that wait in line"
    taken = served(queue, 1)
    assert [each.payload for each in taken] == ["a"]


def test_one_pass_makes_so_many_patient_and_no_more():
    """Each is a decision, and the loop has other work."""
    queue = filled(*(ticket() for _ in range(500)))
    asked = 0

    def offer(_: Ticket) -> Offer:
        nonlocal asked
        asked += 1
        return Offer.NOT_YET

    queue.serve("m", offer, 0.0)
    assert asked <= 2 * MAX_SKIPPED
    queue.serve("m", offer, 0.1)
    assert asked <= 4 * MAX_SKIPPED
    assert len(queue) == 500


def test_a_resume_is_never_patient_and_one_that_returns_may_be():
    """Whoever had a turn waits aside like the others; a resume keeps its line."""
    resume = ticket(lane=Lane.RESUME)
    lost = filled(resume)
    lost.serve("m", lambda _: Offer.NOT_YET, 0.0)
    assert lost.is_before("m", "default", 0.0, is_resume=False)
    returning = ticket(lane=Lane.RETURNING)
    queue = filled(returning)
    queue.serve("m", lambda _: Offer.NOT_YET, 0.0)
    assert returning.is_patient
    assert not queue.is_before("m", "default", 0.0, is_resume=False)
    assert served(queue, now=1.0) == [returning]


def test_the_patient_count_in_the_bound_and_give_way_too():
    """The largest tenant's newest goes, wherever it stands."""
    first, second = ticket("large", is_patient=True), ticket("large", is_patient=True)
    queue = filled(first, second, max_waiting=2)
    small = ticket("small")
    assert queue.add(small) is second
    assert queue.add(ticket("large")) is not None
    assert (first in queue, small in queue, len(queue)) == (True, True, 2)


def test_leaving_twice_changes_nothing():
    """A client may leave in the moment in which its time is over."""
    one = ticket()
    queue = filled(one, ticket())
    queue.remove(one)
    queue.remove(one)
    assert (len(queue), queue.by_tier["default"]) == (1, 1)


tickets = st.builds(
    ticket,
    st.sampled_from("abc"),
    st.sampled_from(TIERS),
    lane=st.sampled_from(LANES),
    tokens=st.integers(0, 5000),
    waits_since=st.floats(0, 100),
    expires_at=st.floats(0, 100),
    model=st.sampled_from(["m", "n"]),
    is_patient=st.booleans(),
    body_bytes=st.integers(0, 8),
)


class World:
    """A queue, and who must be in it."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.queue = HoldQueue(max_waiting=4, max_bytes=20)
        self.inside: list[Ticket] = []
        self.now = 0.0

    def add(self) -> None:
        one = self.data.draw(tickets)
        give_way = self.queue.make_room(one)
        if give_way is None:
            return
        for other in give_way:
            assert other.lane is Lane.NEW
            self.inside.remove(other)
        self.inside.append(one)
        out = self.queue.add(one)
        if out is not None:
            assert out.tier == one.tier
            self.inside.remove(out)

    def serve(self) -> None:
        left = [self.data.draw(st.integers(0, 5))]

        def offer(one: Ticket) -> Offer:
            result = self.data.draw(
                st.sampled_from([Offer.PLACED, Offer.PLACED, Offer.GONE, Offer.NOT_THIS, Offer.NOT_YET])
            )
            if left[0] == 0 and result is Offer.PLACED:
                return Offer.NO_ROOM
            if result is not Offer.NOT_THIS and result is not Offer.NOT_YET:
                left[0] -= result is Offer.PLACED
                self.inside.remove(one)
            return result

        self.queue.serve(self.data.draw(st.sampled_from(["m", "n"])), offer, self.now)

    def leave(self) -> None:
        if self.inside:
            one = self.data.draw(st.sampled_from(self.inside))
            self.queue.remove(one)
            self.inside.remove(one)

    def expire(self) -> None:
        self.now += self.data.draw(st.floats(0, 40))
        for one in self.queue.expire(self.now):
            assert one.expires_at <= self.now
            self.inside.remove(one)

    def check(self) -> None:
        queue, inside = self.queue, self.inside
        assert len(queue) == len(inside)
        assert all(one in queue for one in inside)
        assert queue.by_tier == {tier: sum(one.tier == tier for one in inside) for tier in TIERS}
        new = Counter(one.tier for one in inside if one.lane is Lane.NEW)
        assert all(count <= 4 for count in new.values())
        assert queue.waiting_bytes == sum(one.body_bytes for one in inside)
        waiting = Counter[str]()
        for one in inside:
            waiting[one.tenant] += one.body_bytes if one.lane is Lane.NEW else 0
        assert queue._new_bytes == +waiting
        assert set(queue.models()) == {one.model for one in inside}
        assert all(queue.next_expiry_at <= one.expires_at for one in inside)


@settings(max_examples=200)
@given(st.data())
def test_no_ticket_is_lost_or_served_twice_whatever_happens(data: st.DataObject):
    """Any order of arrivals, places, departures and time: every ticket ends once, and the counts agree."""
    world = World(data)
    steps = [world.add, world.add, world.add, world.serve, world.leave, world.expire]
    for _ in range(data.draw(st.integers(0, 30))):
        data.draw(st.sampled_from(steps))()
        world.check()


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4000)), min_size=1, max_size=120),
    st.integers(1, 120),
)
def test_two_tenants_that_both_wait_never_differ_by_more_than_two_requests(
    work: list[tuple[str, int]], places: int
):
    """The bound of start-time fair queueing: one largest request each."""
    queue = filled(*(ticket(tenant, tokens=tokens) for tenant, tokens in work))
    got: Counter[str] = Counter()
    for one in served(queue, places):
        got[one.tenant] += one.tokens
    largest = max(tokens for _, tokens in work)
    waiting = {one.tenant for one in served(queue)}
    for one in waiting:
        for other in waiting:
            assert got[one] - got[other] <= 2 * largest


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["priority", "default"]), max_size=60))
def test_in_any_five_places_in_a_row_default_has_one_while_both_wait(tiers: list[ServiceTier]):
    """Whatever the mix."""
    queue = filled(*(ticket(tier=tier) for tier in tiers))
    order = [one.tier for one in served(queue)]
    last = max((index for index, tier in enumerate(order) if tier == "default"), default=-1)
    for start in range(last - PRIORITY_RUN):
        assert "default" in order[start : start + PRIORITY_RUN + 1]
