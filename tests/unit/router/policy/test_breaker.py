"""One breaker per site."""

from __future__ import annotations

from router.policy.breaker import FIRST_OPEN_SECONDS, MAX_OPEN_SECONDS, PROBE_SECONDS, Breaker


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        breaker.fail(now)
    return breaker


def test_three_failures_in_a_row_open_it():
    """A dead site is out after three requests."""
    breaker = Breaker()
    breaker.fail(1.0)
    breaker.fail(1.0)
    assert breaker.admits(1.0)
    breaker.fail(1.0)
    assert breaker.state == "open"
    assert not breaker.admits(1.5)


def test_an_answer_between_failures_keeps_it_closed():
    """Failures count in a row."""
    breaker = Breaker()
    for _ in range(5):
        breaker.fail(1.0)
        breaker.fail(1.0)
        breaker.succeed()
    assert breaker.state == "closed"


def test_a_site_that_fails_most_of_its_requests_is_opened():
    """Twelve of the last twenty are enough, in a row or not."""
    breaker = Breaker()
    for _ in range(6):
        breaker.fail(1.0)
        breaker.fail(1.0)
        if breaker.state == "closed":
            breaker.succeed()
    assert breaker.state == "open"


def test_a_few_cut_streams_do_not_open_it():
    """A site that stops one instance cuts many streams at once and still serves."""
    breaker = Breaker()
    for _ in range(11):
        breaker.break_stream(1.0)
    assert breaker.state == "closed"
    breaker.break_stream(1.0)
    assert breaker.state == "open"


def test_a_single_probe_is_let_through_after_the_open_time():
    """Half open: one at a time."""
    breaker = opened(100.0)
    assert not breaker.admits(100.0 + FIRST_OPEN_SECONDS / 2)
    later = 100.0 + FIRST_OPEN_SECONDS
    assert breaker.admits(later)
    breaker.begin(later)
    assert breaker.state == "half_open"
    assert not breaker.admits(later)


def test_a_probe_that_succeeds_closes_it():
    """And the open time falls back."""
    breaker = opened(100.0)
    probe = breaker.begin(101.0)
    breaker.succeed(probe)
    assert breaker.state == "closed"
    assert breaker.admits(101.0)
    assert breaker.begin(101.0) == 0


def test_a_probe_that_fails_doubles_the_open_time():
    """Up to the most."""
    breaker = opened(100.0)
    now = 101.0
    for _ in range(10):
        breaker.fail(now, breaker.begin(now))
        now += MAX_OPEN_SECONDS
    assert breaker.state == "open"
    breaker.fail(now, breaker.begin(now))
    assert not breaker.admits(now + MAX_OPEN_SECONDS - 0.1)
    assert breaker.admits(now + MAX_OPEN_SECONDS)


def test_a_probe_without_a_verdict_frees_its_place():
    """The client left: another request may probe."""
    breaker = opened(100.0)
    probe = breaker.begin(101.0)
    breaker.give_up(probe)
    assert breaker.admits(101.0)
    assert breaker.state == "half_open"


def test_a_probe_that_took_long_and_went_well_closes_it():
    """Longer than a probe's time: another one probes meanwhile, and the first one's end counts."""
    breaker = opened(100.0)
    first = breaker.begin(101.0)
    second = breaker.begin(101.0 + PROBE_SECONDS)
    assert second != first
    breaker.succeed(first)
    assert breaker.state == "closed"


def test_a_probe_of_before_it_opened_again_says_nothing():
    """The newer one failed: however well the older one ends, that site was another."""
    breaker = opened(100.0)
    first = breaker.begin(101.0)
    second = breaker.begin(101.0 + PROBE_SECONDS)
    breaker.fail(107.0, first)
    assert breaker.state == "half_open"
    breaker.fail(108.0, second)
    breaker.succeed(first)
    assert breaker.state == "open"
    breaker.allow_probe()
    breaker.succeed(second)
    assert breaker.state == "open"


def test_a_late_success_of_an_earlier_request_does_not_close_it():
    """Only a probe says that the site is back."""
    breaker = opened(100.0)
    breaker.succeed()
    assert breaker.state == "open"


def test_what_was_sent_before_it_opened_does_not_judge_a_half_open_breaker():
    """Its client leaves, it succeeds, it fails, it is cut: the probe stays the only one, and decides."""
    breaker = opened(100.0)
    probe = breaker.begin(101.0)
    breaker.give_up()
    assert not breaker.admits(101.1)
    breaker.succeed()
    assert breaker.state == "half_open"
    for _ in range(5):
        breaker.fail(101.1)
        breaker.break_stream(101.1)
    assert (breaker.state, breaker.admits(101.1)) == ("half_open", False)
    breaker.succeed(probe)
    assert breaker.state == "closed"
    breaker.fail(101.2)
    assert breaker.state == "closed"


def test_an_earlier_probe_does_not_judge_a_later_one():
    """It gave its place up, and answers after all."""
    breaker = opened(100.0)
    earlier = breaker.begin(101.0)
    breaker.give_up(earlier)
    later = breaker.begin(101.0)
    breaker.fail(101.0, earlier)
    assert (breaker.state, breaker.admits(101.0)) == ("half_open", False)
    breaker.fail(101.0, later)
    assert breaker.state == "open"


def test_a_restarted_site_may_be_probed_at_once():
    """What was learnt of the earlier agent is no longer true."""
    breaker = opened(100.0)
    breaker.allow_probe()
    assert breaker.admits(100.0)
    breaker.begin(100.0)
    breaker.allow_probe()
    assert breaker.admits(100.0), "the probe of the earlier agent says nothing of this one"


def test_a_long_probe_does_not_keep_the_others_out():
    """An answer in one piece may take minutes: after seconds of silence the next request asks."""
    breaker = opened(100.0)
    slow = breaker.begin(101.0)
    assert not breaker.admits(101.0 + PROBE_SECONDS - 0.1)
    assert breaker.admits(101.0 + PROBE_SECONDS)
    quick = breaker.begin(101.0 + PROBE_SECONDS)
    breaker.fail(110.0, slow)
    assert breaker.state == "half_open"
    breaker.succeed(quick)
    assert breaker.state == "closed"
