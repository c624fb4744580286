"""Runs `native/load.c` and samples the proxy's CPU time at the edges of the measured window."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.router.process import Clocks
from benchmarks.router.programs import native

API_KEY = "sk-heron-bench-4f1c-9a7e-2b60-d835"
ANSWER_TOKENS = 32
"""Of upstream.c's answer in one piece."""
GIVE_UP_SECONDS = 90.0
"""Beyond warm-up and window; the program itself waits 30 s for late answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run saw; all answers were checked, `errors` failed the check."""

    requests: int
    chunks: int
    seconds: float
    p50_us: int
    """Of a request's time; of streams, of how much later than the pacing a chunk came."""
    p99_us: int
    p999_us: int
    late_max_us: float
    ttft_max_us: float
    answer_bytes: int
    errors: int
    reconnects: int
    open_streams: int
    completed: int
    first_error: str
    cpu_seconds: float
    waited_seconds: float
    """Of the proxy, within the window."""


class LoadError(RuntimeError):
    """The load generator could not do its work."""


def body(*, stream_tokens: int | None = None, prompt_bytes: int = 0) -> bytes:
    """A chat request of about 214 bytes, or with a prompt of so many more."""
    user = "How much power does one turbine give at eight metres per sec, and why?" + "w" * prompt_bytes
    fields = {
        "model": "bench",
        **({} if stream_tokens is None else {"stream": True}),
        "max_tokens": ANSWER_TOKENS if stream_tokens is None else stream_tokens,
        "messages": [
            {"role": "system", "content": "You are a terse helper at a wind farm."},
            {"role": "user", "content": user},
        ],
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def request(content: bytes, *, is_kept: bool = True) -> bytes:
    """The whole HTTP request; not `is_kept`: the last on its connection."""
    close = "" if is_kept else "connection: close\r\n"
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        "host: 127.0.0.1\r\n"
        f"authorization: Bearer {API_KEY}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(content)}\r\n"
        f"{close}\r\n"
    )
    return head.encode() + content


def run(
    mode: str,
    *,
    port: int,
    core: int,
    connections: int,
    warm_up_seconds: float,
    seconds: float,
    content: bytes,
    tokens: int = ANSWER_TOKENS,
    period_us: int = 0,
    is_kept: bool = True,
    clocks: Callable[[], Clocks] = Clocks,
    on_stop: Callable[[], None] = lambda: None,
) -> Load:
    """`mode` is `requests` or `streams`; `clocks` is read when the window opens and when it closes.

    `on_stop` is called when it closes, while all streams are still open.

    Raises:
        LoadError: it could not connect, or came to no end.
    """
    numbers = (port, connections, warm_up_seconds, seconds, tokens, period_us)
    with subprocess.Popen(
        ["taskset", "-c", str(core), native("load"), mode, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        limit = threading.Timer(
            warm_up_seconds + seconds + tokens * period_us / 1e6 + GIVE_UP_SECONDS, process.kill
        )
        limit.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(request(content, is_kept=is_kept))
            process.stdin.close()
            before = after = Clocks()
            for line in process.stdout:
                if line == b"start\n":
                    before = clocks()
                elif line == b"stop\n":
                    after = clocks()
                    on_stop()
                else:
                    return Load(
                        **json.loads(line),
                        cpu_seconds=after.cpu_seconds - before.cpu_seconds,
                        waited_seconds=after.waited_seconds - before.waited_seconds,
                    )
            said = process.stderr.read().decode(errors="replace").strip()
            raise LoadError(said or "the load generator ended without a result")
        finally:
            limit.cancel()
            process.kill()
