"""A site that costs as little as possible: the same 600 bytes for every POST, and endless room.

python -m benchmarks.workers.site PORT REDIS_URL
"""

from __future__ import annotations

import asyncio
import sys
import time

import orjson
import uvloop

from fleet.keys import Keys
from fleet.redis_store import RedisStore

REPORT_SECONDS = 1.0
CONTENT = "wind " * 80
BODY = orjson.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": CONTENT},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 80, "total_tokens": 90},
    }
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Site(asyncio.Protocol):
    """Trusts its client: one whole request at a time, with a content-length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) >= length:
            self._buffer = b""
            self._transport.write(ANSWER)  # type: ignore[attr-defined]


async def serve(port: int, redis_url: str) -> None:
    """Until killed."""
    await asyncio.get_running_loop().create_server(Site, "127.0.0.1", port)
    store = RedisStore(redis_url, Keys())
    sequence = time.time_ns() // 1_000_000
    while True:
        sequence += 1
        report = {
            "schema_version": "1.0",
            "agent_id": "bench",
            "sequence": sequence,
            "site_id": "bench",
            "observed_at_unix_seconds": time.time(),
            "ingress_url": f"http://127.0.0.1:{port}",
            "state": "serving",
            "models": [{"model": "m", "ready_instances": 1, "headroom_requests": 9999}],
        }
        await store.publish_site_report("bench", orjson.dumps(report), time.time())
        await asyncio.sleep(REPORT_SECONDS)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
