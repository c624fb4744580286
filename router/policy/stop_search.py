"""Which of the ids of one event completes a stop string over a seam. Pure: it asks, somebody answers.

An engine whose server runs behind puts many ids into one event, and does not know of a stop string of which
another engine wrote the beginning: the ids after it are none of the answer. A search by halves, with
`/detokenize` as the judge, tells how many belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson


def detokenize_body(model: object, ids: bytes) -> bytes:
    """What `/detokenize` is asked; `ids` is `1,2,3`."""
    return b'{"model":%b,"tokens":[%b]}' % (orjson.dumps(model), ids)


class StopSearch:
    """Ask `question` until there is none, and give each answer to `note`; then `count` is exact."""

    __slots__ = ("_before", "_ids", "_least", "_model", "_start", "_stop", "count")

    def __init__(
        self, *, model: object, before: Sequence[bytes], ids: Sequence[bytes], stop: str, sent_characters: int
    ) -> None:
        """`before` are the answer's ids up to this event, `ids` those in it, in which the stop string ends.

        The client has `sent_characters` of text: an equal text before them does not count.
        """
        self._model = model
        self._before = before
        self._ids = ids
        self._stop = stop
        self._start = max(
            0, sent_characters - len(stop)
        )  # one to spare: a tokenizer may drop the first space
        self._least = 1
        self.count = len(ids)
        """So many of `ids` are the answer's, or fewer."""

    @property
    def question(self) -> bytes | None:
        """The body for `/detokenize`; None: all is known."""
        if self._least >= self.count:
            return None
        return detokenize_body(self._model, b",".join((*self._before, *self._ids[: self._middle])))

    def note(self, text: str) -> None:
        """The answer to `question`."""
        if text.find(self._stop, self._start) >= 0:
            self.count = self._middle
        else:
            self._least = self._middle + 1

    @property
    def _middle(self) -> int:
        return (self._least + self.count) // 2
