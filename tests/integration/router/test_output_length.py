"""What the router learns of the length of answers, and whom it tells."""

from __future__ import annotations

from typing import Any

import pytest
from support.router_fleet import chat, router_fleet

from router.policy.body import BYTES_PER_TOKEN
from router.policy.output_length import ENOUGH_OBSERVATIONS


@pytest.mark.parametrize("stream", [False, True])
async def test_the_site_is_told_what_was_learnt(store: Any, stream: bool):
    """Answers of 12 tokens, of requests that allow 100: the first are expected to be 100, later ones 12."""
    async with router_fleet(store, "a") as fleet:
        await fleet.announce()
        body = chat(stream=stream, max_tokens=12)
        for _ in range(int(ENOUGH_OBSERVATIONS)):
            response = await fleet.client.post("/v1/chat/completions", json=body)
            assert response.status_code == 200
        await fleet.settled(completed=int(ENOUGH_OBSERVATIONS))
        prompt_tokens = len(response.request.content) // BYTES_PER_TOKEN
        learnt = fleet.router.forwarder._reader.lengths.expect("m", "anonymous", 12, prompt_tokens)
        assert learnt is not None
        assert 10 <= learnt.mean_tokens <= 17  # the few events without text are counted too
        await fleet.client.post("/v1/chat/completions", json=chat(stream=stream, max_tokens=16))
        told = [int(seen.headers["x-heron-expected-output-tokens"]) for seen in fleet.site("a").seen]
        assert told[:8] == [12] * 8
        assert told[8] == min(16, round(learnt.mean_tokens))


async def test_what_is_no_answer_teaches_nothing(store: Any):
    """Refused, or of an API whose answer is no text."""
    async with router_fleet(store, "a") as fleet:
        await fleet.announce()
        for _ in range(10):
            await fleet.client.post("/v1/chat/completions", json=chat(model="unknown"))
            await fleet.client.post("/v1/embeddings", json={"model": "m", "input": "hi"})
        assert len(fleet.router.forwarder._reader.lengths) == 0
