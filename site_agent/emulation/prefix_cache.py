"""Which prompt blocks an emulated engine has computed before, as vLLM's automatic prefix caching. Pure.

A block is `BLOCK_TOKENS` token ids, known by the hash of itself and all before it. Blocks of a sequence are
cached when its prompt is through and when it leaves; the least recently used go when the KV cache needs room.
Simpler than vLLM in one thing, to the emulation's disadvantage: sequences that run do not share blocks, each
counts its own, and what is cached has only the room that they leave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16
"""vLLM's default."""


def extend_chain(chain: list[int], ids: Sequence[int]) -> None:
    """Add the hashes of the full blocks of `ids` that `chain` does not have yet."""
    value = chain[-1] if chain else 0
    for start in range(len(chain) * BLOCK_TOKENS, len(ids) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        value = hash((value, tuple(ids[start : start + BLOCK_TOKENS])))
        chain.append(value)


class PrefixCache:
    """The blocks, in order of their last use."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    @property
    def tokens(self) -> int:
        """What all blocks hold."""
        return len(self._blocks) * BLOCK_TOKENS

    def longest(self, chain: Sequence[int], most_tokens: int) -> int:
        """Tokens of the longest cached beginning that leaves the engine something to compute."""
        blocks = self._blocks
        found = 0
        for value in chain[: most_tokens // BLOCK_TOKENS]:
            if value not in blocks:
                break
            found += 1
        self.add(chain[:found])
        return found * BLOCK_TOKENS

    def add(self, chain: Sequence[int]) -> None:
        """These are cached and were used now; a beginning outlives what follows it."""
        blocks = self._blocks
        for value in reversed(chain):
            blocks[value] = None
            blocks.move_to_end(value)

    def trim(self, most_tokens: int) -> None:
        """Forget the least recently used until the rest fits."""
        blocks = self._blocks
        while len(blocks) * BLOCK_TOKENS > most_tokens:
            blocks.popitem(last=False)
