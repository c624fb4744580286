"""The emulated language: words and ids, and continuations that are the same sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.emulation import tokens

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "baba nifi and words nobody knows"},
]
ids = st.lists(st.integers(0, tokens.ID_LIMIT - 1), min_size=1, max_size=50)
chats = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool"]),
            "content": st.one_of(st.none(), st.text(max_size=40), st.just([{"type": "text", "text": "x y"}])),
        }
    ),
    min_size=1,
    max_size=6,
)


def test_vocabulary_is_4096_different_words_of_one_length_without_white_space() -> None:
    """So that no word is the beginning of another, and text splits into tokens at spaces."""
    assert len(tokens.WORDS) == len(set(tokens.WORDS)) == tokens.VOCABULARY_WORDS == 4096
    assert {len(word) for word in tokens.WORDS} == {4}
    assert all(word.isascii() and word.isalpha() for word in tokens.WORDS)


def test_the_sequence_never_changes() -> None:
    """Recorded answers stay verifiable: these values are part of the emulation's contract."""
    assert tokens.tokenize_chat([{"role": "user", "content": "baba nifi"}]) == [1, 9770]
    assert tokens.expected_text_for_prompt("baba nifi", 3) == " gaza kana sofo"
    assert (
        tokens.expected_text_for_messages([{"role": "user", "content": "baba nifi"}], 3) == "labo fevi neto"
    )


def test_chat_answer_begins_without_a_space_and_a_completion_with_one() -> None:
    """As with real models: a completion continues its prompt, a chat answer stands alone."""
    assert not tokens.expected_text_for_messages(MESSAGES, 4)[0].isspace()
    assert tokens.expected_text_for_prompt("baba", 4).startswith(" ")
    assert len(tokens.expected_text_for_messages(MESSAGES, 40).split()) == 40


def test_chat_of_n_words_is_n_tokens() -> None:
    """The chat template adds none; without a single word there is one that renders as nothing."""
    assert len(tokens.tokenize_chat(MESSAGES)) == 8
    empty = tokens.tokenize_chat([{"role": "user", "content": None}])
    assert len(empty) == 1
    assert tokens.detokenize(empty) == ""
    assert not tokens.expected_text(empty, 2)[0].isspace()


@given(st.text(alphabet=st.sampled_from("ab \n\té<5>"), max_size=60))
def test_tokens_are_the_words_of_a_text(text: str) -> None:
    """One token one word, whatever white space lies between, and rendering ids keeps the ids."""
    encoded = tokens.tokenize(text)
    assert len(encoded) == len(text.split())
    rendered = tokens.detokenize(encoded)
    assert tokens.tokenize(rendered) == encoded


@given(st.integers(0, tokens.VOCABULARY_WORDS - 1))
def test_known_words_and_ids_are_the_same_thing(index: int) -> None:
    """Both directions, with and without the space."""
    word = tokens.WORDS[index]
    assert tokens.tokenize(word) == [index * 4 + tokens.START]
    assert tokens.tokenize(f" {word}") == [index * 4]
    assert tokens.piece(index * 4) == f" {word}"
    assert tokens.piece(index * 4 + tokens.START) == word


@given(ids, st.integers(0, 20), st.integers(0, 20))
def test_continuation_from_ids_is_the_same_sequence_at_every_cut(
    prompt: list[int], cut: int, more: int
) -> None:
    """Prompt ids plus the ids so far, as after a cut stream; also when there are none so far."""
    whole = tokens.generate(prompt, cut + more)
    assert tokens.generate(prompt + whole[:cut], more) == whole[cut:]
    text = tokens.expected_text(prompt, cut + more)
    head, tail = tokens.detokenize(whole[:cut]), tokens.expected_text(prompt + whole[:cut], more)
    assert head + tail == text


@given(chats, st.integers(0, 12), st.integers(1, 12))
def test_chat_continued_by_text_is_the_same_sequence_at_every_cut(
    messages: list[dict[str, object]], cut: int, more: int
) -> None:
    """`continue_final_message` with the text so far gives the very ids of the unbroken run."""
    prompt = tokens.tokenize_chat(messages)
    whole = tokens.generate(prompt, cut + more)
    text_so_far = tokens.detokenize(whole[:cut])
    continued = tokens.tokenize_chat(
        [*messages, {"role": "assistant", "content": text_so_far}], continue_final_message=True
    )
    assert continued == prompt + whole[:cut]
    assert text_so_far + tokens.expected_text(continued, more) == tokens.expected_text(prompt, cut + more)


@given(st.integers(1, 30), st.integers(0, 12), st.integers(0, 1 << 70))
def test_completion_continued_by_text_is_the_same_sequence(words: int, cut: int, seed: int) -> None:
    """The prompt's text and the answer's so far are one text."""
    prompt = tokens.prompt_of(words, seed)
    assert len(prompt.split()) == words
    text = tokens.expected_text_for_prompt(prompt, cut + 8)
    so_far = " ".join(text.split()[:cut])
    joined = f"{prompt} {so_far}" if cut else prompt
    assert tokens.expected_text_for_prompt(joined, 8).split() == text.split()[cut:]


@given(ids, st.data())
def test_lost_repeated_or_foreign_token_changes_all_that_follows(
    prompt: list[int], data: st.DataObject
) -> None:
    """Eight following tokens are never the same by chance."""
    at = data.draw(st.integers(0, len(prompt) - 1))
    foreign = data.draw(st.integers(0, tokens.ID_LIMIT - 1).filter(lambda token: token != prompt[at]))
    expected = tokens.generate(prompt, 8)
    lost = prompt[:at] + prompt[at + 1 :]
    assert not lost or tokens.generate(lost, 8) != expected
    assert tokens.generate([*prompt[: at + 1], *prompt[at:]], 8) != expected
    assert tokens.generate([*prompt[:at], foreign, *prompt[at + 1 :]], 8) != expected


def test_later_turn_begins_with_the_earlier_one() -> None:
    """A conversation's next prompt has the last prompt and answer as its beginning, as a KV cache needs."""
    first = tokens.tokenize_chat(MESSAGES)
    answer = tokens.generate(first, 5)
    later = tokens.tokenize_chat(
        [*MESSAGES, {"role": "assistant", "content": tokens.detokenize(answer)}, MESSAGES[1]]
    )
    assert later[:13] == first + answer


def test_words_spread_evenly() -> None:
    """A long answer uses the whole vocabulary, so that no wrong token passes for the right one."""
    assert len(set(tokens.generate([5], 60_000))) == tokens.VOCABULARY_WORDS


@pytest.mark.parametrize("token", [-1, tokens.ID_LIMIT])
def test_foreign_id_is_refused(token: int) -> None:
    """The error says which ids there are."""
    with pytest.raises(ValueError, match=f"token id {token} is not in the vocabulary"):
        tokens.word(token)


@pytest.mark.parametrize("content", [7, [{"type": "image_url", "image_url": {"url": "x"}}]])
def test_content_that_is_no_text_is_refused(content: object) -> None:
    """The emulated model reads text only."""
    with pytest.raises(ValueError, match="text parts"):
        tokens.tokenize_chat([{"role": "user", "content": content}])
