"""When a client sends a refused request again, as the official `openai` client does by default (its
`_should_retry` and `_calculate_retry_timeout`). Pure: chance is an argument.

Only what has no answer yet is sent again; a stream that has begun never is.
"""

from __future__ import annotations

from random import Random

RETRY_COUNT = b"x-stainless-retry-count"
"""The header in which that client says how often it has tried before."""
OPENAI_MAX_RETRIES = 2
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 8.0
MAX_RETRY_AFTER_SECONDS = 60.0
"""A longer Retry-After is not obeyed."""
RETRIED_STATUS = frozenset({408, 409, 429})
"""And 500 or more."""


def retry_delay_seconds(
    status: int | None,
    *,
    retry_after: bytes | None,
    should_retry: bytes | None,
    taken: int,
    max_retries: int,
    rng: Random,
) -> float | None:
    """How long until the next try; None: there is none.

    `status` is None where the connection failed; `retry_after` and `should_retry` are the answer's headers
    (`retry-after`, `x-should-retry`); `taken` retries were made before.
    """
    if taken >= max_retries or should_retry == b"false":
        return None
    is_retried = status is None or status in RETRIED_STATUS or status >= 500
    if not is_retried and should_retry != b"true":
        return None
    if retry_after is not None:
        try:
            seconds = float(retry_after)
        except ValueError:
            seconds = 0.0
        if 0 < seconds <= MAX_RETRY_AFTER_SECONDS:
            return seconds
    delay: float = min(FIRST_DELAY_SECONDS * 2**taken, MAX_DELAY_SECONDS)
    return delay * (1 - 0.25 * rng.random())
