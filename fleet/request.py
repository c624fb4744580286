"""What routing knows of a request: its size classes and features (DESIGN §3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

ServiceTier = Literal["priority", "default", "flex"]
RequestClass = Literal["SS", "SM", "SL", "MS", "MM", "ML", "LS", "LM", "LL"]
"""Prompt size, then output size: small, medium, large."""
ANONYMOUS = "anonymous"
"""The one tenant of a router that asks for no keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCutoffs:
    """Upper bounds of small and medium, in tokens.

    Defaults near the terciles of the Azure 2023 traces (FACTS.md: prompts p25 396–578, p75 1,189–2,744;
    outputs p50 13–129, p75 24–395).
    """

    small_prompt_tokens: int = 512
    medium_prompt_tokens: int = 2048
    small_output_tokens: int = 64
    medium_output_tokens: int = 256

    def classify(self, prompt_tokens: int, output_tokens: int) -> RequestClass:
        """The class of a request of these sizes."""
        prompt = (prompt_tokens > self.small_prompt_tokens) + (prompt_tokens > self.medium_prompt_tokens)
        output = (output_tokens > self.small_output_tokens) + (output_tokens > self.medium_output_tokens)
        return _CLASSES[prompt * 3 + output]


_CLASSES: tuple[RequestClass, ...] = get_args(RequestClass)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSlo:
    """What one request class is promised, from when the router has received it; None: nothing."""

    ttft_seconds: float | None = None
    e2e_seconds: float | None = None


class RequestFeatures(NamedTuple):
    """The part of a request that decisions may look at (a tuple: it is made for every request)."""

    model: str
    request_class: RequestClass
    prompt_tokens: int
    """Estimated; bytes of text ÷ 4 where the engine's tokenizer is not at hand."""
    expected_output_tokens: int
    stream: bool
    tier: ServiceTier = "default"
    tenant: str = ANONYMOUS
    affinity_key: str | None = None
    deadline_seconds: float | None = None
    """Seconds left when the request was read; None: no deadline."""
    slo: ClassSlo | None = None
    """What its class is promised; None: nothing."""
