"""A service's loops. One that fails by what nobody foresaw is counted, said with its trace, and begun anew:
no library's odd error and no odd input ends a service, and none ends a loop for good.

Not for loops on whose state a promise rests: the site agent's power loop ends its process, and with it every
engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

from fleet.failure import ServiceError

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
SETTLED_SECONDS = 60.0
"""A loop that has run for so long begins with the first pause again."""
SAY_SECONDS = 60.0
"""Between two traces of the same loop in the log; all are counted."""
END_TRIES = 5
END_TRY_SECONDS = 0.5
"""A client library that is just losing its connection may swallow a cancellation: it is told again."""


class Loops:
    """Keeps the loops of one service, and counts how often each has failed."""

    def __init__(self, on_failure: Callable[[str], None] = lambda _name: None) -> None:
        """`on_failure` is told the loop's name."""
        self.failures: Counter[str] = Counter()
        """By the loop's name."""
        self._on_failure = on_failure
        self._said_at: dict[str, float] = {}

    async def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run it until it returns; after an error again, with a pause that grows.

        Raises:
            ServiceError: the loop's own word that the service cannot go on.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            began_at = time.monotonic()
            try:
                await loop()
            except ServiceError:
                raise
            except Exception as error:  # noqa: BLE001 - that is what this is for
                self._note(name, error)
            else:
                return
            if time.monotonic() - began_at > SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    @contextlib.contextmanager
    def going_on(self, name: str) -> Iterator[None]:
        """Around one part of a loop's work: its failure is noted, and the loop goes on with the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the same
            self._note(name, error)

    def _note(self, name: str, error: Exception) -> None:
        self.failures[name] += 1
        self._on_failure(name)
        now = time.monotonic()
        if now - self._said_at.get(name, float("-inf")) >= SAY_SECONDS:
            self._said_at[name] = now
            logger.error(
                "%s failed, and goes on: please report this",
                name,
                exc_info=error,
                extra={"failures": self.failures[name]},
            )


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended, at most END_TRIES times; what they raise is left in them."""
    pending = set(tasks)
    for _ in range(END_TRIES):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=END_TRY_SECONDS)
    for task in pending:
        logger.error("%s does not end", task.get_name())


@contextlib.contextmanager
def errors_as(kind: type[Exception], what: str) -> Iterator[None]:
    """Around a call of somebody else's library: whatever it raises becomes the error that the caller knows.

    Clients leak more than they say. httpx under uvloop: AttributeError for a connection that is reset as it
    is made, UnicodeError for the name in a redirect that is not even followed; redis-py: RuntimeError.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        text = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
        raise kind(f"{what}: {str(error) or text}") from error
