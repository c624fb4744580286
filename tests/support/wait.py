"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], object], *, seconds: float = 10.0, what: str = "the condition"
) -> None:
    """Return once `condition()` is true.

    Raises:
        AssertionError: it was not, within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        await asyncio.sleep(0.005)


async def until_it_says(
    question: Callable[[], Awaitable[bool]], *, seconds: float = 20.0, what: str = "the condition"
) -> None:
    """Return once somebody who must be asked says yes.

    Raises:
        AssertionError: it did not, within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not await question():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        await asyncio.sleep(0.01)
