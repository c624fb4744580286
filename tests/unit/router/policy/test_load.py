"""What a router knows of a site beyond its last report."""

from __future__ import annotations

from support.views import view

from router.policy.breaker import Breaker
from router.policy.load import UNKNOWN_HEADROOM_REQUESTS, Load
from router.policy.shared_load import Shared


def make() -> Load:
    return Load(Breaker())


def room(load: Load, now: float = 100.0, *, is_expired: bool = False, **changes: object) -> float:
    return load.room(view(**changes), now, is_expired)


def test_what_was_sent_since_the_report_is_subtracted():
    """Ten free, three sent."""
    load = make()
    load.reported(view())
    load.in_flight += 3
    assert room(load) == 7


def test_what_ended_since_the_report_is_room_again():
    """Two were in the report's count and have finished since."""
    load = make()
    load.in_flight = 5
    load.reported(view())
    load.in_flight -= 2
    assert room(load) == 12


def test_an_answer_carries_a_newer_figure():
    """`x-heron-headroom` counts from the moment it arrives."""
    load = make()
    load.reported(view())
    load.in_flight += 4
    load.answered(2.0)
    assert room(load) == 2
    load.in_flight += 1
    assert room(load) == 1


def test_a_newer_report_replaces_an_answer():
    """The report is the newest word."""
    load = make()
    load.answered(0.0)
    load.reported(view())
    assert room(load) == 10


def test_a_pushback_leaves_no_room_until_its_time_is_over():
    """Power: a second without word from the site."""
    load = make()
    load.pushed_back("power", None, 100.0)
    assert room(load, 100.9) == 0
    load.reported(view())
    assert room(load, 100.9) == 10


def test_after_a_pushback_an_old_figure_is_not_believed():
    """Its report said ten, then it pushed back: nothing fits until one ends or it reports anew."""
    load = make()
    load.in_flight = 2
    load.pushed_back("capacity", 0.5, 100.0)
    assert room(load, 101.0) == 0
    load.in_flight -= 1
    assert room(load, 101.0) == 1


def test_a_foreign_retry_after_is_bounded():
    """An hour is not obeyed: a report says sooner and better."""
    load = make()
    load.pushed_back("capacity", 3600.0, 100.0)
    assert room(load, 106.0, headroom_requests=None) > 0


def test_an_unknown_headroom_is_a_small_number_that_grows_with_answers():
    """Additive increase: about one more per round of answers."""
    load = make()
    assert room(load, headroom_requests=None) == UNKNOWN_HEADROOM_REQUESTS
    load.in_flight = 8
    for _ in range(8):
        load.finished()
    load.in_flight = 0
    assert 8.9 < room(load, headroom_requests=None) < 9.1


def test_an_unknown_headroom_does_not_grow_while_nobody_needs_it():
    """A million answers, one at a time, say nothing of more at once."""
    load = make()
    load.in_flight = 3
    for _ in range(1000):
        load.finished()
    load.in_flight = 0
    assert room(load, headroom_requests=None) == UNKNOWN_HEADROOM_REQUESTS


def test_an_unknown_headroom_shrinks_with_pushback():
    """To half of what was in flight then."""
    load = make()
    load.in_flight = 6
    load.pushed_back("capacity", 0.0, 100.0)
    load.in_flight = 0
    assert room(load, 100.1, headroom_requests=None) == 3


def test_an_expired_figure_counts_as_unknown():
    """A report of long ago that said full does not close the site for ever."""
    load = make()
    load.reported(view(headroom_requests=0.0))
    assert room(load, 200.0, is_expired=True, headroom_requests=0.0) == UNKNOWN_HEADROOM_REQUESTS


def test_resumes_are_paced_by_the_prefill_rate():
    """1,000 tokens at 1,000 a second: the next one waits until half a second before they are read."""
    load = make()
    fast = view(prefill_tokens_per_second=1000.0)
    assert load.can_prefill(100.0)
    load.send_resume(1000, fast, 100.0)
    assert not load.can_prefill(100.4)
    assert load.can_prefill(100.5)


def test_a_rate_that_was_low_once_shuts_nobody_out_for_long():
    """A tenth of a token a second: the next one is let through after seconds, not hours."""
    load = make()
    load.send_resume(1000, view(prefill_tokens_per_second=0.1), 100.0)
    assert not load.can_prefill(105.0)
    assert load.can_prefill(110.0)


def test_without_a_known_rate_resumes_are_not_paced():
    """Unknown is not zero."""
    load = make()
    load.send_resume(1_000_000, view(), 100.0)
    assert load.can_prefill(100.0)


def test_a_report_from_before_a_burst_is_not_spent_twice():
    """The site had three of ours when it counted; seven were on their way."""
    load = make()
    load.reported(view(running_requests=0))
    load.in_flight += 10
    assert room(load) == 0
    load.reported(view(headroom_requests=7.0, running_requests=2, waiting_requests=1))
    assert room(load) == 0


def test_an_answer_from_before_a_burst_frees_no_room():
    """It says that nine are left, and nine are on their way."""
    load = make()
    load.reported(view())
    load.in_flight += 10
    load.answered(9.0)
    assert room(load) == 0


def shared_by(count: int) -> tuple[Load, list[Load]]:
    """The loads of a parent and its workers for the same site."""
    cells, figure = memoryview(bytearray(8 * count)).cast("q"), memoryview(bytearray(8)).cast("q")
    clear_at, worked_off_at = (memoryview(bytearray(8)).cast("d") for _ in range(2))
    parent, workers = Load(Breaker()), [Load(Breaker()) for _ in range(count)]
    for own, load in [(0, parent), *enumerate(workers)]:
        load.share(
            Shared(
                in_flight=cells,
                own=own,
                figure=figure,
                prefill_clear_at=clear_at,
                worked_off_at=worked_off_at,
                takes_reports=load is parent,
            )
        )
    return parent, workers


def test_workers_see_what_the_others_have_sent() -> None:
    """Room is what the report gave, less what any of them has added since."""
    parent, (here, there) = shared_by(2)
    parent.reported(view())
    for _ in range(4):
        there.begin()
    here.begin()
    assert here.room(view(), 100.0, False) == there.room(view(), 100.0, False) == 5.0
    there.end()
    assert here.room(view(), 100.0, False) == 6.0
    assert (here.in_flight, there.in_flight) == (1, 3)


def test_workers_that_hear_of_a_report_late_do_not_spend_it_again() -> None:
    """Eight workers take the report's ten in turn, each with all it can send: ten are sent, not eighty."""
    parent, workers = shared_by(8)
    for _ in range(3):
        workers[0].begin()
    parent.reported(view())
    sent = 0
    for load in workers:
        load.reported(view())
        while load.room(view(), 100.0, False) >= 1:
            load.begin()
            sent += 1
    assert sent == 10


def test_an_answer_to_one_worker_informs_all() -> None:
    """And so does a pushback: nobody sends there until somebody has a newer figure."""
    parent, (here, there) = shared_by(2)
    parent.reported(view())
    here.begin()
    here.answered(3.0)
    assert there.room(view(), 100.0, False) == 3.0
    here.pushed_back("capacity", None, now=100.0)
    assert there.room(view(), 100.0, False) == 0.0
    parent.reported(view())
    assert there.room(view(), 100.0, False) == 10.0


def test_a_load_that_is_shared_later_brings_what_it_has() -> None:
    """Once, however often it is told."""
    cells, figure = memoryview(bytearray(16)).cast("q"), memoryview(bytearray(8)).cast("q")
    clear_at, worked_off_at = (memoryview(bytearray(8)).cast("d") for _ in range(2))
    shared = Shared(
        in_flight=cells, own=0, figure=figure, prefill_clear_at=clear_at, worked_off_at=worked_off_at
    )
    cells[1] = 7
    load = Load(Breaker())
    load.begin()
    load.share(shared)
    load.share(shared)
    load.begin()
    assert list(cells) == [2, 7]
    assert load.total_in_flight() == 9


def test_a_load_that_gets_another_slot_moves_there() -> None:
    """Its model was known no more for a while, and another has its slot now."""
    _, (load, _) = shared_by(2)
    _, (other, _) = shared_by(2)
    load.begin()
    other.begin()
    assert load._shared is not None
    assert other._shared is not None
    old, new = load._shared.in_flight, other._shared.in_flight
    load.share(other._shared)
    assert (list(old), list(new)) == ([0, 0], [2, 0])
    load.end()
    assert (list(old), list(new)) == ([0, 0], [1, 0])


def test_workers_pace_resumes_together() -> None:
    """A prompt that one sends is waited for by the other: a site has one prefill rate for all."""
    _, (here, there) = shared_by(2)
    there.send_resume(2000, view(prefill_tokens_per_second=1000.0), now=100.0)
    assert not here.can_prefill(101.0)
    assert here.can_prefill(101.5)


def test_work_that_was_given_is_worked_off_as_time_goes_by() -> None:
    """One after the other; a site that was idle begins at once."""
    load = Load(Breaker())
    assert load.work_left_seconds(100.0) <= 0
    load.give_work(2.0, 100.0, 10.0)
    load.give_work(1.0, 100.5, 10.0)
    assert load.work_left_seconds(101.0) == 2.0
    assert load.work_left_seconds(104.0) <= 0
    load.give_work(1.0, 110.0, 10.0)
    assert load.work_left_seconds(110.0) == 1.0
    load.give_work(100.0, 110.0, 10.0)
    assert load.work_left_seconds(110.0) == 10.0, "no more is kept in mind"


def test_workers_see_what_the_others_gave() -> None:
    """A site has one time for all."""
    _, (first, second) = shared_by(2)
    first.give_work(2.0, 100.0, 10.0)
    second.give_work(2.0, 100.0, 10.0)
    assert first.work_left_seconds(100.0) == second.work_left_seconds(100.0) == 4.0
