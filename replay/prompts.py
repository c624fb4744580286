"""Request bodies of exact token lengths, cut out of one long text made once: no per-word work while sending.

`WordPrompts`: a chat of N words, which is N tokens for the emulated engine (and about that for others).
`TokenIdPrompts`: a completion of N token ids with `ignore_eos`, exact on a real vLLM.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from random import Random
from typing import Protocol

import orjson

from replay.schedule import ScheduledRequest
from site_agent.emulation import tokens

CORPUS_TOKENS = 1 << 16
"""Words or ids to cut prompts from; longer prompts go round. Few share a prefix with another."""
_STRIDE = 2_654_435_761
"""2^32 ÷ golden ratio: spreads the starts of successive prompts over the corpus."""


class PromptSource(Protocol):
    """Makes the body of each request, and knows what the answer must be where that can be known."""

    target: str
    """Path below the API's root."""
    is_exact: bool
    """Whether prompt and output lengths asked for are the ones the server must count."""

    def body(self, request: ScheduledRequest, *, stream: bool) -> bytes:
        """The request's JSON."""

    def expected_text(self, request: ScheduledRequest) -> str:
        """The whole answer of an emulated engine to this request."""


class _Corpus:
    """A long text of many items with one separator, of which any run can be cut by slicing."""

    def __init__(self, items: Sequence[str], separator: str) -> None:
        self._separator = separator.encode("ascii")
        self._offsets = array("L", [0])
        at = 0
        for item in items:
            at += len(item) + len(separator)
            self._offsets.append(at)
        self._text = (separator.join(items) + separator).encode("ascii")
        self._count = len(items)

    def cut(self, request: ScheduledRequest) -> bytes:
        """The request's prompt: `prompt_tokens` items from a place that its index gives."""
        start, left = request.index * _STRIDE % self._count, request.prompt_tokens
        pieces = []
        while left > 0:
            taken = min(left, self._count - start)
            pieces.append(
                self._text[self._offsets[start] : self._offsets[start + taken] - len(self._separator)]
            )
            left -= taken
            start = 0
        return self._separator.join(pieces)


class WordPrompts:
    """Chats of N words of the emulated engine's vocabulary."""

    target = "/chat/completions"

    def __init__(self, model: str, *, seed: int = 0, is_exact: bool = True, ignore_eos: bool = False) -> None:
        """`is_exact`: the server counts a word as a token (the emulated engine does)."""
        self.is_exact = is_exact
        self._corpus = _Corpus(Random(seed).choices(tokens.WORDS, k=CORPUS_TOKENS), " ")
        self._head = b'{"model":' + orjson.dumps(model) + b',"messages":[{"role":"user","content":"'
        self._ignore_eos = ignore_eos

    def body(self, request: ScheduledRequest, *, stream: bool) -> bytes:
        """See PromptSource."""
        return (
            self._head
            + self._corpus.cut(request)
            + b'"}]'
            + _tail(request.output_tokens, stream=stream, ignore_eos=self._ignore_eos)
        )

    def expected_text(self, request: ScheduledRequest) -> str:
        """See PromptSource."""
        message = {"role": "user", "content": self._corpus.cut(request).decode("ascii")}
        return tokens.expected_text_for_messages([message], request.output_tokens)


class TokenIdPrompts:
    """Completions of N token ids, `ignore_eos` set, so that both lengths are exact."""

    target = "/completions"
    is_exact = True

    def __init__(self, model: str, *, vocabulary_size: int, first_id: int = 0, seed: int = 0) -> None:
        """Ids are drawn from `first_id` (above the special tokens) to `vocabulary_size` - 1.

        Raises:
            ValueError: there is no id in between.
        """
        if not 0 <= first_id < vocabulary_size:
            raise ValueError(
                f"first_id {first_id} and vocabulary_size {vocabulary_size}: no token id between"
            )
        ids = Random(seed).choices(range(first_id, vocabulary_size), k=CORPUS_TOKENS)
        self._corpus = _Corpus([str(token) for token in ids], ",")
        self._head = b'{"model":' + orjson.dumps(model) + b',"prompt":['

    def body(self, request: ScheduledRequest, *, stream: bool) -> bytes:
        """See PromptSource."""
        return (
            self._head
            + self._corpus.cut(request)
            + b"]"
            + _tail(request.output_tokens, stream=stream, ignore_eos=True)
        )

    def expected_text(self, request: ScheduledRequest) -> str:
        """See PromptSource."""
        ids = [int(token) for token in self._corpus.cut(request).split(b",")]
        return tokens.expected_text(ids, request.output_tokens)


def _tail(output_tokens: int, *, stream: bool, ignore_eos: bool) -> bytes:
    flags = b',"ignore_eos":true' if ignore_eos else b""
    mode = b',"stream":true,"stream_options":{"include_usage":true}}' if stream else b',"stream":false}'
    return b',"max_tokens":%d' % output_tokens + flags + mode


def corruption(expected: str, received: str, *, is_complete: bool) -> str | None:
    """How an answer differs from what it must be; None when it does not.

    A broken-off answer must be a beginning of the expected one. One word is one token, so the place is the
    number of the first token that was lost, repeated or foreign.
    """
    if received == expected or (not is_complete and expected.startswith(received)):
        return None
    wanted, got = expected.split(), received.split()
    for position, (want, have) in enumerate(zip(wanted, got, strict=False)):
        if want != have:
            return f"token {position} is {have!r} instead of {want!r}"
    if len(got) < len(wanted) and is_complete:
        return f"{len(got)} tokens instead of {len(wanted)}, the rest is missing"
    if len(got) > len(wanted):
        return f"{len(got)} tokens instead of {len(wanted)}"
    return "the words are right, the white space is not"
