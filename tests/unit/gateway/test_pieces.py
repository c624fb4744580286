"""Pieces are put together in order, and tiny ones take little more than their bytes."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from gateway.pieces import SMALL_BYTES, Pieces, collect, joined


@given(st.lists(st.sampled_from([0, 1, 2, SMALL_BYTES - 1, SMALL_BYTES, 5000])))
def test_nothing_is_lost_or_moved(sizes: list[int]) -> None:
    """Whatever their sizes are."""
    came = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    pieces: Pieces = []
    for piece in came:
        collect(pieces, piece)
    whole = joined(pieces)
    assert type(whole) is bytes
    assert whole == b"".join(came)


def test_a_single_piece_is_not_copied() -> None:
    """The commonest: all of it at once."""
    piece = b"x" * 100
    pieces: Pieces = []
    collect(pieces, piece)
    assert joined(pieces) is piece


def test_large_pieces_are_not_copied_before_the_end() -> None:
    """They stay what they are."""
    piece = b"x" * SMALL_BYTES
    pieces: Pieces = []
    for _ in range(3):
        collect(pieces, piece)
    assert all(one is piece for one in pieces)


def test_tiny_pieces_take_little_more_than_their_bytes() -> None:
    """Alone, and between large ones."""
    for sizes in ([2] * 100_000, [2, SMALL_BYTES] * 1000):
        pieces: Pieces = []
        for size in sizes:
            collect(pieces, b"x" * size)
        assert sum(sys.getsizeof(piece) + 8 for piece in pieces) < 1.3 * sum(sizes)
