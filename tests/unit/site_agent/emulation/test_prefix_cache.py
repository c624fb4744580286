"""The prefix cache: blocks of 16, the longest beginning, least recently used first out."""

from __future__ import annotations

from site_agent.emulation.prefix_cache import PrefixCache, extend_chain


def chain(*ids: int) -> list[int]:
    made: list[int] = []
    extend_chain(made, ids)
    return made


def test_only_full_blocks_are_known() -> None:
    """40 ids are two and a half."""
    assert len(chain(*range(40))) == 2


def test_a_chain_can_be_extended_later() -> None:
    """As the answer is added to the prompt."""
    made = chain(*range(40))
    extend_chain(made, range(100))
    assert made == chain(*range(100))


def test_a_block_is_known_by_all_that_came_before_it() -> None:
    """The same ids after other ones are another block."""
    assert chain(*range(32))[1] != chain(*range(1, 17), *range(16, 32))[1]


def test_the_longest_beginning_is_found() -> None:
    """Up to the first difference."""
    cache = PrefixCache()
    cache.add(chain(*range(64)))
    assert cache.longest(chain(*range(64)), 63) == 48
    assert cache.longest(chain(*range(64)), 1000) == 64
    assert cache.longest(chain(*range(32), *range(100)), 131) == 32
    assert cache.longest(chain(*range(1, 65)), 63) == 0


def test_the_least_recently_used_goes_first_and_a_beginning_last() -> None:
    """A tail without its beginning would be of no use."""
    cache = PrefixCache()
    old, new = chain(*range(64)), chain(*range(100, 164))
    cache.add(old)
    cache.add(new)
    cache.longest(old, 1000)
    cache.trim(96)
    assert cache.tokens == 96
    assert cache.longest(new, 1000) == 32
    assert cache.longest(old, 1000) == 64
    cache.trim(16)
    assert cache.longest(old, 1000) == 16
