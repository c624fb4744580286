"""Stop strings over a seam."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.policy.stop_text import StopText


def test_without_stop_strings_text_passes_at_once():
    """Nothing is held back."""
    stop = StopText([], keeps_stop=False, sent="abc")
    assert stop.feed("def") == "def"


def test_a_stop_string_in_two_halves_is_found():
    """And neither half is sent."""
    stop = StopText(["END"], keeps_stop=False, sent="text ")
    assert stop.feed("so E") == "so"
    assert stop.feed("ND more") == " "
    assert stop.stopped_by == "END"
    assert stop.feed("late") == ""


def test_a_stop_string_that_belongs_to_the_answer_is_sent():
    """`include_stop_str_in_output`."""
    stop = StopText(["END"], keeps_stop=True, sent="text E")
    assert stop.feed("ND more") == "ND"


def test_what_was_sent_already_is_not_sent_again():
    """A match that began in what the client has ends there."""
    stop = StopText(["END"], keeps_stop=False, sent="text EN")
    assert stop.feed("D more") == ""
    assert stop.stopped_by == "END"


def test_the_last_text_is_not_held_back():
    """At the end no stop string can follow."""
    stop = StopText(["END"], keeps_stop=False, sent="")
    assert stop.feed("text E") == "text"
    assert stop.feed("N", is_last=True) == " EN"


def test_a_stop_string_that_the_client_has_already_ends_nothing():
    """An engine passes over stop strings while it has made fewer than `min_tokens`."""
    stop = StopText(["\n", "\n\nHuman:"], keeps_stop=False, sent="Dear A,\nI am")
    assert stop.feed(" glad to") == " "
    assert stop.stopped_by is None
    assert stop.feed(" write\nlate") == "glad to write"
    assert stop.stopped_by == "\n"


@given(st.text(alphabet="ENDx", max_size=20), st.integers(0, 20), st.lists(st.integers(0, 20)))
def test_however_it_is_cut_the_text_ends_at_the_first_stop(text: str, seam: int, cuts: list[int]):
    """The engine before the seam held back what could begin a stop string."""
    first = text.find("END")
    expected = text if first < 0 else text[:first]
    seam = min(seam, len(text))
    if text[:seam].find("END") >= 0:
        return  # that engine would have stopped by itself
    sent = text[: max(0, seam - 2)]
    stop = StopText(["END"], keeps_stop=False, sent=sent)
    out, rest = sent, text[len(sent) :]
    ends = [*sorted({min(cut, len(rest)) for cut in cuts}), len(rest)]
    start = 0
    for index, end in enumerate(ends):
        out += stop.feed(rest[start:end], is_last=index == len(ends) - 1)
        start = end
    assert out == expected
