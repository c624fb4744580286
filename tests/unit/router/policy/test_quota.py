"""Buckets of one key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.quota_book import Standing
from router.policy.quota import Bucket, OverQuota, Quota


def quota(requests: int | None = None, tokens: int | None = None, concurrent: int | None = None) -> Quota:
    made = Quota()
    made.configure(
        requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=concurrent, now=100.0
    )
    return made


def test_without_limits_everything_may_run():
    """None is "not set", never zero."""
    free = quota()
    assert not free.is_limited
    assert [free.enter(100.0) or free.take(10**9, 100.0) for _ in range(3)] == [None] * 3


def test_a_minute_s_requests_may_be_used_at_once_and_come_back_evenly():
    """Sixty a minute: one a second."""
    limited = quota(requests=60)
    assert [limited.enter(100.0) for _ in range(60)] == [None] * 60
    assert limited.enter(100.0) == OverQuota("requests", 60, 1, 1.0)
    assert limited.enter(100.5) == OverQuota("requests", 60, 1, 0.5)
    assert limited.enter(101.0) is None
    assert limited.enter(101.0) is not None


def test_a_call_that_is_no_request_of_the_minute_counts_among_those_at_once():
    """It is refused for those alone."""
    limited = quota(requests=0, concurrent=1)
    assert limited.enter(100.0, takes_request=False) is None
    assert limited.enter(100.0, takes_request=False) == OverQuota("concurrent", 1, 1, 1.0)
    limited.leave()
    assert limited.enter(100.0, takes_request=False) is None


def test_a_request_that_is_refused_is_not_counted():
    """Neither at once nor of the minute."""
    limited = quota(requests=2, concurrent=1)
    assert limited.enter(100.0) is None
    assert [limited.enter(100.0) for _ in range(5)] == [OverQuota("concurrent", 1, 1, 1.0)] * 5
    limited.leave()
    assert limited.enter(100.0) is None
    limited.leave()
    assert limited.enter(100.0) == OverQuota("requests", 2, 1, 30.0)
    assert limited.in_flight == 0


def test_what_was_expected_is_settled_by_what_was_used():
    """Less comes back, more is owed."""
    limited = quota(tokens=600)
    assert limited.take(400, 100.0) is None
    limited.settle(400, 100)
    assert limited.take(500, 100.0) is None
    limited.settle(500, 700)
    assert limited.take(1, 100.0) == OverQuota("tokens", 600, 1, 20.1)


def test_a_request_larger_than_the_whole_allowance_never_fits():
    """It is told so, and takes none."""
    limited = quota(tokens=600)
    refusal = limited.take(601, 100.0)
    assert refusal == OverQuota("tokens", 600, 601, float("inf"))
    assert [limited.take(60, 100.0) for _ in range(10)] == [None] * 10


def test_so_many_at_once_and_no_more():
    """Until one is over."""
    limited = quota(concurrent=2)
    assert limited.enter(100.0) is None
    assert limited.enter(100.0) is None
    assert limited.enter(100.0) == OverQuota("concurrent", 2, 1, 1.0)
    limited.leave()
    assert limited.enter(100.0) is None


def test_a_limit_of_zero_admits_nothing_ever():
    """That is how a key is put to sleep without revoking it."""
    for limited in (quota(requests=0), quota(tokens=0), quota(concurrent=0)):
        refusal = limited.enter(100.0) or limited.take(1, 100.0)
        assert refusal is not None
        assert refusal.retry_seconds == float("inf")


def test_a_changed_limit_keeps_what_was_used():
    """Neither a fresh allowance nor a debt comes from editing a record."""
    limited = quota(requests=60)
    for _ in range(50):
        assert limited.enter(100.0) is None
    limited.configure(requests_per_minute=100, tokens_per_minute=None, concurrent_requests=None, now=100.0)
    assert limited.requests is not None
    assert limited.requests.level == 50
    limited.configure(requests_per_minute=None, tokens_per_minute=None, concurrent_requests=None, now=100.0)
    assert not limited.is_limited


@given(
    per_minute=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(-5000, 5000)), max_size=40),
)
def test_a_bucket_stays_within_a_minute_s_allowance_either_way(
    per_minute: int, steps: list[tuple[float, int]]
):
    """Whatever is taken and given back, and the wait it names is long enough."""
    bucket, now = Bucket(per_minute, 0.0), 0.0
    for passed, amount in steps:
        now += passed
        bucket.refill(now)
        bucket.take(amount)
        assert -per_minute <= bucket.level <= per_minute
        wait = bucket.seconds_until(1)
        now += wait
        assert bucket.refill(now) >= 1 - 1e-6


@given(
    per_minute=st.integers(1, 600),
    times=st.lists(st.floats(0, 1), max_size=200),
)
def test_over_any_time_no_more_runs_than_the_bucket_and_its_refill(per_minute: int, times: list[float]):
    """The guarantee behind the name of the limit."""
    limited, now, ran = quota(requests=per_minute), 100.0, 0
    for passed in times:
        now += passed
        ran += limited.enter(now) is None
    assert ran <= per_minute + (now - 100.0) * per_minute / 60 + 1e-6


def standing(level: float, counted: float | None, elsewhere: int = 0) -> Standing:
    told = None if counted is None else (counted, 0.0)
    return Standing("k", level, None, told, elsewhere)


def test_what_others_spent_is_taken_off_and_what_was_spent_since_too():
    """A word from the fleet is a moment old; what is told twice changes nothing."""
    limited = quota(requests=60, concurrent=3)
    for _ in range(5):
        assert limited.enter(100.0) is None
        limited.leave()
    told = limited.report("k")
    assert told is not None
    assert (told.requests, told.requests_counted, told.in_flight) == (5.0, 0.0, 0)
    assert limited.enter(100.0) is None
    assert limited.requests is not None
    for _ in range(2):
        limited.stand(standing(35.0, 5.0, elsewhere=1), 100.0)
        assert limited.requests.level == 34.0
    assert limited.enter(100.0) is None
    assert limited.enter(100.0) == OverQuota("concurrent", 3, 1, 1.0), "two here, one elsewhere"
    limited.stand(standing(-60.0, 6.0), 100.0)
    assert limited.requests.level == -60.0
    limited.stand(standing(20.0, None), 100.0)
    assert limited.requests.level == 19.0, "of what was counted before nothing is new"


def test_no_word_from_elsewhere_leaves_more_than_was_left_here():
    """Whoever writes to Redis fills nobody's bucket."""
    limited = quota(requests=60)
    for _ in range(50):
        assert limited.enter(100.0) is None
    for at in (100.0, 100.5):
        limited.stand(standing(60.0, 50.0), at)
    assert limited.requests is not None
    assert limited.requests.level == 10.5
    limited.stand(standing(1e9, 0.0, elsewhere=-5), 100.5)
    assert limited.requests.level == 10.5
    assert limited.in_flight_elsewhere == 0


def test_what_is_counted_and_over_is_no_news():
    """A key that nobody uses is told once more, then not again."""
    limited = quota(requests=60, tokens=600)
    assert limited.report("k") is None
    assert limited.enter(100.0) is None
    assert limited.take(100, 100.0) is None
    first = limited.report("k")
    assert first is not None
    limited.leave()
    limited.settle(100, 40)
    limited.stand(Standing("k", 59.0, 500.0, (first.requests, first.tokens), 0), 100.0)
    second = limited.report("k")
    assert second is not None
    assert (second.tokens, second.tokens_counted, second.in_flight) == (40.0, 100.0, 0)
    limited.stand_full(second)
    assert limited.report("k") is None
