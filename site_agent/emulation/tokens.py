"""The emulated language: a token is a hash of all token ids before it, and one token is one word. Pure.

So a continuation, from ids or from text, is the same sequence as the unbroken run, and a lost, repeated or
foreign token shows in every token after it. Whoever verifies answers (load generator, tests) uses this.

An id is `index × 4 + flags`. `index` is a word of the vocabulary (0…4095), the special token for an empty
prompt (4096), or the hash of a word that the vocabulary lacks (above). As in a real byte-pair vocabulary a
word with a space before it and one without are different tokens, so text pieces join without knowing their
place: that is the flag `START` (1), on the first word of a message or answer. The flag `TURN_END` (2) stands
where a real chat template puts its special tokens: on the last token before an assistant's answer, so that N
words are N tokens and yet ids alone say where an answer begins.

There is no end-of-sequence token: an answer ends at its token limit (`length`) or a stop string or id
(`stop`). Sampling parameters change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

VOCABULARY_WORDS = 4096
SPECIAL_INDEX = VOCABULARY_WORDS
UNKNOWN_WORDS = 1 << 20
"""Room for words outside the vocabulary: a prompt of real text rarely has two with one id."""

START = 1
TURN_END = 2
FLAG_BITS = 2
ID_LIMIT = (SPECIAL_INDEX + 1 + UNKNOWN_WORDS) << FLAG_BITS
"""Ids are below this."""
EMPTY_PROMPT_ID = SPECIAL_INDEX << FLAG_BITS
"""Stands for a chat without a single word; renders as nothing."""

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeio"
_SYLLABLES = tuple(consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS)
WORDS: tuple[str, ...] = tuple(first + second for first in _SYLLABLES for second in _SYLLABLES)
"""The vocabulary; every word has four letters, the n-th has index n."""
_INDEX_OF = {word: index for index, word in enumerate(WORDS)}

_MASK = (1 << 64) - 1
_MULTIPLIER = 0x9E3779B97F4A7C15
"""2^64 ÷ golden ratio, odd: the multiplication is a bijection."""
EMPTY_STATE = 0x243F6A8885A308D3
"""Hash of no token (digits of π)."""
_FOLD_BITS = 29
_WORD_SHIFT = 64 - 12
"""The word is the hash's highest 12 bits: those depend on all others."""


def advance(state: int, ids: Iterable[int]) -> int:
    """The hash after these further ids; equal histories, and practically only those, give equal hashes."""
    for token in ids:
        state = ((state ^ (state >> _FOLD_BITS) ^ token) * _MULTIPLIER) & _MASK
    return state


def next_token(state: int, previous_id: int) -> int:
    """The token that follows a history; `previous_id` is its last id."""
    return (state >> _WORD_SHIFT) << FLAG_BITS | (START if previous_id & TURN_END else 0)


def follow(state: int, token: int) -> tuple[int, int]:
    """The hash after one more token of an answer, and the token that comes then."""
    state = ((state ^ (state >> _FOLD_BITS) ^ token) * _MULTIPLIER) & _MASK
    return state, (state >> _WORD_SHIFT) << FLAG_BITS


def generate(prompt_ids: Sequence[int], count: int) -> list[int]:
    """The `count` ids that follow a prompt of at least one id."""
    state = advance(EMPTY_STATE, prompt_ids)
    token = next_token(state, prompt_ids[-1])
    ids = []
    for _ in range(count):
        ids.append(token)
        state, token = follow(state, token)
    return ids


def tokenize(text: str) -> list[int]:
    """The ids of a text, one per word; the first has `START` unless white space comes before it."""
    index_of = _INDEX_OF
    ids = [
        (index_of[word] if word in index_of else _foreign_index(word)) << FLAG_BITS for word in text.split()
    ]
    if ids and not text[0].isspace():
        ids[0] |= START
    return ids


def _foreign_index(word: str) -> int:
    if word.startswith("<") and word.endswith(">") and word[1:-1].isascii() and word[1:-1].isdecimal():
        index = int(word[1:-1]) if len(word) < 12 else 0
        if SPECIAL_INDEX < index <= SPECIAL_INDEX + UNKNOWN_WORDS:
            return index  # how an unknown word is written when only its id is known
    digest = blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()
    return SPECIAL_INDEX + 1 + int.from_bytes(digest, "little") % UNKNOWN_WORDS


def tokenize_chat(
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[int]:
    """The ids of a conversation as the chat template renders it; never empty.

    Each message is `{"role", "content"}` with a text, a list of `{"type": "text", "text"}` or None as
    content. With `continue_final_message` the last message is the beginning of the answer.
    """
    ids: list[int] = []
    last = len(messages) - 1
    for position, message in enumerate(messages):
        if _begins_answer(message, is_continued=continue_final_message and position == last):
            _end_turn(ids)
        ids += tokenize(content_text(message.get("content")).lstrip())
    if add_generation_prompt and not continue_final_message:
        _end_turn(ids)
    return ids or [EMPTY_PROMPT_ID]


def _begins_answer(message: Mapping[str, Any], *, is_continued: bool) -> bool:
    return is_continued or message.get("role") == "assistant"


def _end_turn(ids: list[int]) -> None:
    if ids:
        ids[-1] |= TURN_END
    else:
        ids.append(EMPTY_PROMPT_ID | TURN_END)


def content_text(content: Any) -> str:
    """The text of a message's content.

    Raises:
        ValueError: a part is not text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("content must be a text or a list of text parts")  # noqa: TRY004
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            raise ValueError("content may hold text parts only: the emulated model sees nothing else")  # noqa: TRY004
    return "\n".join(texts)


def word(token: int) -> str:
    """The word of an id, without its space.

    Raises:
        ValueError: not an id of this vocabulary.
    """
    if not 0 <= token < ID_LIMIT:
        raise ValueError(f"token id {token} is not in the vocabulary; ids are 0 to {ID_LIMIT - 1}")
    index = token >> FLAG_BITS
    if index < VOCABULARY_WORDS:
        return WORDS[index]
    return "" if index == SPECIAL_INDEX else f"<{index}>"


def piece(token: int) -> str:
    """What an id adds to the text of an answer: the word, with a space before it unless `START`."""
    text = word(token)
    return text if token & START or not text else f" {text}"


def detokenize(ids: Iterable[int]) -> str:
    """The text of ids. A message that begins after another begins on a line of its own.

    Raises:
        ValueError: an id is not of this vocabulary.
    """
    pieces: list[str] = []
    for token in ids:
        text = piece(token)
        pieces.append(f"\n{text}" if pieces and token & START else text)
    return "".join(pieces)


def expected_text(prompt_ids: Sequence[int], count: int) -> str:
    """The text that an unbroken answer of `count` tokens to these prompt ids has."""
    return "".join(map(piece, generate(prompt_ids, count)))


def expected_text_for_messages(messages: Sequence[Mapping[str, Any]], count: int) -> str:
    """The same for a chat request's messages."""
    return expected_text(tokenize_chat(messages), count)


def expected_text_for_prompt(prompt: str, count: int) -> str:
    """The same for a completion's prompt; the text begins with a space, as it continues the prompt."""
    return expected_text(tokenize(prompt), count)


def prompt_of(words: int, seed: int) -> str:
    """A prompt of so many words, so many tokens; different seeds give different ones."""
    state = advance(EMPTY_STATE, (seed & _MASK,))
    first = (state >> _WORD_SHIFT) << FLAG_BITS
    return " ".join(WORDS[token >> FLAG_BITS] for token in islice(generate([first], words), words))
