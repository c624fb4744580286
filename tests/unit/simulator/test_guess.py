"""What the simulated router knows of a request on its arrival."""

from __future__ import annotations

import random

from fleet.request import ClassSlo
from router.policy.body import DEFAULT_OUTPUT_TOKENS
from simulator.guess import Guess
from simulator.settings import RouterSettings

SLO = ClassSlo(ttft_seconds=1.0)


def test_of_the_answer_it_knows_what_was_learnt_and_nothing_else() -> None:
    """The default first, then what answers to such prompts were like; and the promise of that class."""
    guess = Guess(RouterSettings(class_slos={"MS": SLO}), "m", random.Random(1))
    first = guess.features(1000)
    assert (first.expected_output_tokens, first.slo) == (DEFAULT_OUTPUT_TOKENS, None)
    guess.learn([(1000, 10)] * 100)
    then = guess.features(1000)
    assert 8 <= then.expected_output_tokens <= 12
    assert (then.request_class, then.slo) == ("MS", SLO)


def test_an_error_is_drawn_for_each_request_and_never_ends_below_one_token() -> None:
    """From the router's own dice."""
    guess = Guess(RouterSettings(length_error_ratio=5.0), "m", random.Random(1))
    guess.learn([(1000, 2)] * 100)
    found = {guess.features(1000).expected_output_tokens for _ in range(100)}
    assert len(found) > 3
    assert min(found) == 1
