"""Which ids were seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.batch import ids
from replay.batch.ids import IdSet


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5)))
def test_it_is_a_set(texts: list[str]) -> None:
    """Each id is new once, and what was never added is not there."""
    seen, real = IdSet(), set[str]()
    for text in texts:
        assert (text in seen) is (text in real)
        assert seen.add(text) is (text not in real)
        real.add(text)
    assert len(seen) == len(real)
    assert "never added" not in seen


def test_what_is_found_across_two_digests_is_no_id() -> None:
    """Two neighbours' bytes that look like a third one's."""
    first, second = bytes(range(10)), bytes(range(10, 20))
    assert ids._has(first + second, first)
    assert ids._has(first + second, second)
    assert not ids._has(first + second, bytes(range(5, 15)))
    assert ids._has(first + second + bytes(range(5, 15)), bytes(range(5, 15)))


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is said; one that is known is none."""
    monkeypatch.setattr(ids, "MAX_IDS", 2)
    seen = IdSet()
    assert seen.add("a")
    assert seen.add("b")
    assert not seen.add("a")
    with pytest.raises(OverflowError, match="more than 2 requests"):
        seen.add("c")
