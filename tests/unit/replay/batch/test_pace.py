"""What an answer means, and who may be sent when."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.batch.pace import (
    FIRST_WINDOW,
    HOPELESS_TRIES,
    MAX_TRIES,
    UNREACHABLE,
    Answer,
    Pace,
    delay_seconds,
    judge,
)


def error(code: str, message: str = "") -> bytes:
    return b'{"error": {"code": "%b", "message": "%b"}}' % (code.encode(), message.encode())


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(status=200, body=b"{}"), "final"),
        (Answer(status=400, body=b"{}"), "final"),
        (Answer(status=401, body=b""), "stop"),
        (Answer(status=403, body=error("tier_not_allowed")), "stop"),
        (Answer(status=403, body=error("other")), "final"),
        (Answer(status=429, body=b""), "pause"),
        (Answer(status=429, body=b"", should_retry=b"false", retry_after=b"90"), "pause"),
        (Answer(status=429, body=error("r", "it never fits: make it"), should_retry=b"false"), "final"),
        (Answer(status=503, body=error("no_surplus"), retry_after=b"2"), "pause"),
        (Answer(status=503, body=error("no_power"), retry_after=b"900", should_retry=b"false"), "pause"),
        (Answer(status=503, body=b""), "again"),
        (Answer(status=500, body=b""), "again"),
        (Answer(status=408, body=b""), "again"),
    ],
)
def test_what_an_answer_means(answer: Answer, verdict: str) -> None:
    """To the request, and to all others."""
    assert judge(answer, failures=0, names_tier=False) == verdict


def test_a_server_that_fails_is_asked_so_often() -> None:
    """Then its last answer stands."""
    answer = Answer(status=500, body=b"")
    verdicts = [judge(answer, failures=failures, names_tier=False) for failures in range(MAX_TRIES)]
    assert verdicts == ["again"] * (MAX_TRIES - 1) + ["final"]


def test_a_tier_that_a_line_names_is_that_line_s_affair() -> None:
    """The others may have a better one."""
    answer = Answer(status=403, body=error("tier_not_allowed"))
    assert judge(answer, failures=0, names_tier=True) == "final"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"3", 3.0),
        (b"0", 0.0),
        (b"1e9", 3600.0),
        (b"inf", 3600.0),
        (b"nan", None),
        (b"-1", None),
        (b"", None),
        (None, None),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", None),
        (b"\xff", None),
    ],
)
def test_retry_after(value: bytes | None, seconds: float | None) -> None:
    """Seconds, an hour at most; what is none says nothing."""
    assert Answer(status=503, body=b"", retry_after=value).retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (error("no_power"), "no_power"),
        (b"", "HTTP 503"),
        (b"[]", "HTTP 503"),
        (b'{"error": "x"}', "HTTP 503"),
        (b'{"error": {"code": null, "type": "overloaded"}}', "overloaded"),
        (b'{"error": null}', "HTTP 503"),
    ],
)
def test_the_reason_is_the_error_s_code(body: bytes, code: str) -> None:
    """Else its type, else the status."""
    assert Answer(status=503, body=body).code == code


def test_all_wait_for_one_refusal() -> None:
    """Not a moment less than it said, and a fifth more at the most; who comes later waits for the rest."""
    pace = Pace(64, Random(1))
    pace.refused(100.0, sent_at=99.0, reason="no_surplus", retry_after_seconds=10.0)
    assert 10.0 <= pace.paused_seconds(100.0) <= 12.0
    assert pace.paused_seconds(101.0) == pytest.approx(pace.paused_seconds(100.0) - 1.0)
    assert pace.paused_seconds(112.0) == 0.0
    assert pace.pause_reason == "no_surplus"


def test_what_was_waited_for_is_counted_once() -> None:
    """Pauses that overlap are one; what was left of one at the end was not waited for."""
    pace = Pace(64, Random(1))
    pace.refused(0.0, sent_at=-1.0, reason="no_surplus", retry_after_seconds=10.0)
    first = pace.paused_seconds(0.0)
    pace.refused(1.0, sent_at=-1.0, reason="no_surplus", retry_after_seconds=2.0)
    assert pace.waited_seconds == {"no_surplus": pytest.approx(first)}
    pace.refused(5.0, sent_at=-1.0, reason="no_power", retry_after_seconds=100.0)
    until = 5.0 + pace.paused_seconds(5.0)
    assert sum(pace.waited_seconds.values()) == pytest.approx(until)
    pace.close(50.0)
    assert sum(pace.waited_seconds.values()) == pytest.approx(50.0)
    assert pace.paused_seconds(50.0) == 0.0


def test_the_window_grows_with_answers_and_is_halved_once_a_round() -> None:
    """Up to the limit; a round's other refusals were sent before."""
    pace = Pace(64, Random(1))
    assert pace.window == FIRST_WINDOW
    for _ in range(200):
        pace.succeeded()
    assert pace.window == 64
    for number in range(5):
        pace.refused(10.0 + number, sent_at=5.0, reason="no_surplus", retry_after_seconds=1.0)
    assert pace.window == 32
    assert pace.has_room(31)
    assert not pace.has_room(32)
    pace.refused(20.0, sent_at=16.0, reason="no_surplus", retry_after_seconds=1.0)
    assert pace.window == 16
    for _ in range(16):
        pace.succeeded()
    assert pace.window == 16  # one more after a round: 16 × (1/16), a little less as it grows
    pace.succeeded()
    assert pace.window == 17


def test_who_does_not_say_when_is_waited_for_longer_each_round() -> None:
    """From a second to a minute."""
    pace, now, pauses = Pace(64, Random(1)), 0.0, []
    for _ in range(9):
        pace.refused(now, sent_at=now, reason="c429", retry_after_seconds=None)
        pauses.append(pace.paused_seconds(now))
        now += pauses[-1]
    assert 1.0 <= pauses[0] <= 1.2
    assert all(60.0 <= pause <= 72.0 for pause in pauses[6:])


def test_an_address_at_which_nobody_is_ends_it() -> None:
    """A router that was there once is waited for, however long; it costs no window."""
    pace = Pace(64, Random(1))
    for round_ in range(HOPELESS_TRIES):
        assert not pace.is_hopeless
        pace.refused(float(round_), sent_at=float(round_), reason=UNREACHABLE, retry_after_seconds=None)
    assert pace.is_hopeless
    pace.reached()
    assert not pace.is_hopeless
    assert pace.window == FIRST_WINDOW


@given(st.integers(0, 10_000), st.integers())
def test_delays_have_a_limit(failures: int, seed: int) -> None:
    """However often it failed."""
    assert 1.0 <= delay_seconds(failures, Random(seed)) <= 72.0


@given(st.integers(1, 64), st.lists(st.sampled_from(["good", "refused", "away"])))
def test_one_may_always_be_sent_in_the_end(limit: int, events: list[str]) -> None:
    """The window is never below one nor above the limit, and no pause is for ever."""
    pace, now = Pace(limit, Random(1)), 0.0
    for event in events:
        now += 1.0
        if event == "good":
            pace.succeeded()
        else:
            reason = UNREACHABLE if event == "away" else "no_surplus"
            pace.refused(now, sent_at=now, reason=reason, retry_after_seconds=None)
        assert 1 <= pace.window <= limit
        assert pace.has_room(0)
        assert pace.paused_seconds(now) <= 72.0
