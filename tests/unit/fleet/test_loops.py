"""Loops that go on, whatever a library throws."""

from __future__ import annotations

import asyncio
import logging

import pytest
from support.wait import until

from fleet import loops
from fleet.failure import ServiceError
from fleet.loops import Loops, end, errors_as

pytestmark = pytest.mark.loops_may_fail


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FIRST_PAUSE_SECONDS", 0.0)


async def test_a_loop_that_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Counted each time, said once a minute with its trace; one that ends has ended."""
    heard: list[str] = []
    kept, turns = Loops(heard.append), 0

    async def loop() -> None:
        nonlocal turns
        turns += 1
        if turns < 4:
            raise AttributeError(f"odd {turns}")

    with caplog.at_level(logging.ERROR):
        await kept.keep("the stream", loop)
    assert turns == 4
    assert kept.failures == {"the stream": 3}
    assert heard == ["the stream"] * 3
    [said] = caplog.records
    assert "the stream" in said.getMessage()
    assert said.exc_info is not None


async def test_a_service_that_cannot_go_on_says_so() -> None:
    """That is foreseen, and the loop's own word."""

    async def loop() -> None:
        raise ServiceError("no more")

    with pytest.raises(ServiceError):
        await Loops().keep("x", loop)


async def test_one_part_that_fails_spoils_no_other() -> None:
    """Farms of one feed."""
    kept, done = Loops(), []
    for farm in ("a", "b", "c"):
        with kept.going_on(f"farm {farm}"):
            if farm == "b":
                raise RecursionError
            done.append(farm)
    assert done == ["a", "c"]
    assert kept.failures == {"farm b": 1}


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        (AttributeError("'NoneType' object has no attribute 'getpeername'"), "getpeername"),
        (RuntimeError("the handler is closed"), "handler is closed"),
        (TimeoutError(), "no answer in time"),
        (RecursionError(), "RecursionError"),
    ],
)
def test_odd_errors_become_the_one_that_is_known(odd: Exception, text: str) -> None:
    """And its own stay as they are."""
    with (
        pytest.raises(LookupError, match=f"http://x: .*{text}") as caught,
        errors_as(LookupError, "http://x"),
    ):
        raise odd
    assert caught.value.__cause__ is odd
    own = LookupError("mine")
    with pytest.raises(LookupError) as caught, errors_as(LookupError, "http://x"):
        raise own
    assert caught.value is own


async def test_a_task_that_swallows_a_cancellation_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As client libraries do."""
    monkeypatch.setattr(loops, "END_TRY_SECONDS", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.Event().wait())]
    await asyncio.sleep(0)
    await end(tasks)
    await until(lambda: all(task.cancelled() for task in tasks))
    assert swallowed == 2
