"""The stated end of a stream that cannot go on."""

from __future__ import annotations

import orjson

from router.policy.body import Api
from router.policy.stream_end import loss_events


def test_a_chat_ends_with_an_error_and_the_terminal_event():
    """OpenAI's shape."""
    error, done = loss_events(Api.CHAT, "power_lost", "why").split(b"\n\n")[:2]
    value = orjson.loads(error.removeprefix(b"data: "))["error"]
    assert (value["code"], value["type"]) == ("power_lost", "server_error")
    assert "why" in value["message"]
    assert done == b"data: [DONE]"


def test_other_apis_end_with_their_own_error_event():
    """Anthropic's and the Responses API's."""
    messages = loss_events(Api.MESSAGES, "stream_lost", "why")
    assert messages.startswith(b"event: error\n")
    assert orjson.loads(messages.split(b"data: ")[1])["error"]["code"] == "stream_lost"
    responses = orjson.loads(loss_events(Api.RESPONSES, "stream_lost", "why").split(b"data: ")[1])
    assert (responses["type"], responses["code"]) == ("error", "stream_lost")
