"""The straight path's own memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from support.memory import traced_bytes

from router.live.straight import Straight


def test_an_answer_in_tiny_pieces_takes_little_more_than_its_bytes() -> None:
    """Each by itself would take 27 times as much."""
    nothing: Any = None
    owner: Any = SimpleNamespace(max_answer_bytes=1_000_000)
    straight = Straight(owner, nothing, nothing)
    with traced_bytes() as held_bytes:
        for number in range(20_000):
            straight._collect(b"%02d" % (number % 100))
        assert held_bytes() < 100_000
