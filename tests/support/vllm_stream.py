"""One streamed chat of the official client, read as far as a test wants."""

from __future__ import annotations

from typing import Any

import openai

from support.vllm_fleet import MODEL


class Stream:
    """One streamed chat: greedy, and diverse by the repetition penalty, so that a wrong word would show."""

    def __init__(self, client: openai.OpenAI, prompt: str, max_tokens: int) -> None:
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"repetition_penalty": 1.3, "ignore_eos": True},
        )
        self.site = raw.headers["x-heron-site"]
        self._chunks = iter(raw.parse())
        self.text = ""
        self.finish_reason: str | None = None
        self.usage: Any = None

    def read(self, pieces: int | None = None) -> Stream:
        """So many pieces of text, or all."""
        for chunk in self._chunks:
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self.finish_reason = choice.finish_reason or self.finish_reason
                self.text += choice.delta.content or ""
                pieces = pieces if pieces is None or not choice.delta.content else pieces - 1
            if pieces == 0:
                break
        return self
