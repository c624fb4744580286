"""One request inside a simulated engine. Pure."""

from __future__ import annotations

from typing import Any


class Sequence:
    """One request inside an engine."""

    __slots__ = (
        "arrived_at",
        "end_step",
        "first_token_at",
        "join_step",
        "left_tokens",
        "max_tokens",
        "order",
        "output_tokens",
        "owner",
        "prompt_tokens",
    )

    def __init__(self, *, prompt_tokens: int, max_tokens: int, owner: Any = None) -> None:
        """`max_tokens`, at least 1, are what it will produce; `owner` is whoever waits for them."""
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.owner = owner
        self.output_tokens = 0
        """When it last began to decode; `SimulatedEngine.tokens_of` has the present figure."""
        self.left_tokens = prompt_tokens
        """Still to prefill."""
        self.join_step = -1
        """Token clock when it began to decode; -1: it does not."""
        self.end_step = -1
        self.order = 0
        self.arrived_at = 0.0
        self.first_token_at: float | None = None
