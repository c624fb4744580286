"""Every inference path that Heron offers: one table, read by the router and by the sites' ingress. Pure.

Rule: what is not listed does not exist. The list is vLLM 0.32's, route by route (docs/api.md says of each
path why it is in or out); an engine's control and operator paths are never in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Literal


class Api(Enum):
    """Which API a path speaks: how its body is read, how its stream ends, whether it can be continued."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    MESSAGES = "messages"
    FORM = "form"
    """`multipart/form-data` with a field `model`; anything may come back."""
    OTHER = "other"
    """A JSON object with a `model`; anything may come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRule:
    """How one path is served."""

    api: Api = Api.OTHER
    takes_slot: bool = True
    """False: the engine's front end answers without the GPU, and a site need not have a slot free."""
    is_usual: bool = False
    """Every vLLM engine that generates text serves it."""
    is_public: bool = True
    """False: sites offer it to their routers, not to clients."""


DERENDER_PATH = "/v1/chat/completions/derender"
"""Tells reasoning, text and tool calls from token ids: a router continues such a chat by it."""
CHAT_PATH = "/v1/chat/completions"
RENDER_PATH = "/v1/chat/completions/render"
"""Tells what an engine makes of a chat before it generates: its grammar, for one."""
RESPONSES_PATH = "/v1/responses"
MODELS_PATH = "/v1/models"
HEALTH_PATH = "/health"

PATHS: Mapping[str, PathRule] = MappingProxyType(
    {
        CHAT_PATH: PathRule(api=Api.CHAT, is_usual=True),
        "/v1/chat/completions/batch": PathRule(is_usual=True),
        DERENDER_PATH: PathRule(takes_slot=False, is_public=False),
        RENDER_PATH: PathRule(takes_slot=False, is_public=False),
        "/v1/completions": PathRule(api=Api.COMPLETION, is_usual=True),
        RESPONSES_PATH: PathRule(api=Api.RESPONSES, is_usual=True),
        "/v1/messages": PathRule(api=Api.MESSAGES, is_usual=True),
        "/v1/messages/count_tokens": PathRule(api=Api.MESSAGES, takes_slot=False, is_usual=True),
        "/cohere/v2/chat": PathRule(),
        "/v1/embeddings": PathRule(),
        "/v2/embed": PathRule(),
        "/pooling": PathRule(),
        "/classify": PathRule(),
        "/score": PathRule(),
        "/v1/score": PathRule(),
        "/rerank": PathRule(),
        "/v1/rerank": PathRule(),
        "/v2/rerank": PathRule(),
        "/generative_scoring": PathRule(is_usual=True),
        "/v1/systemone": PathRule(is_usual=True),
        "/v1/audio/speech": PathRule(),
        "/v1/audio/transcriptions": PathRule(api=Api.FORM),
        "/v1/audio/translations": PathRule(api=Api.FORM),
        "/tokenize": PathRule(takes_slot=False, is_usual=True),
        "/detokenize": PathRule(takes_slot=False, is_usual=True),
    }
)
"""Path → rule. All are `POST`."""

PUBLIC_PATHS = MappingProxyType({path: rule for path, rule in PATHS.items() if rule.is_public})
"""What clients may ask a router for."""

USUAL_PATHS = tuple(path for path, rule in PATHS.items() if rule.is_usual)
"""What a vLLM engine is taken to serve until it has said so itself."""

ResponseAction = Literal["read", "cancel"]
_RESPONSE_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,255}", re.ASCII)
"""Never a dot first: what a path would be resolved by must not reach a site."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCall:
    """A request about a response that some engine holds in its memory."""

    response_id: str
    action: ResponseAction

    @property
    def method(self) -> str:
        """The only method there is. vLLM 0.32 knows no `DELETE`."""
        return "GET" if self.action == "read" else "POST"


def response_call(path: str) -> ResponseCall | None:
    """`/v1/responses/{id}` and `/v1/responses/{id}/cancel`; None: the path is something else."""
    if not path.startswith("/v1/responses/"):
        return None
    response_id, slash, rest = path[len("/v1/responses/") :].partition("/")
    if _RESPONSE_ID.fullmatch(response_id) is None or (slash and rest != "cancel"):
        return None
    return ResponseCall(response_id=response_id, action="cancel" if slash else "read")


def allowed_methods(path: str) -> tuple[str, ...]:
    """What may be asked of a path, `OPTIONS` left out; empty: there is no such path."""
    if path in PUBLIC_PATHS:
        return ("POST",)
    if path in (MODELS_PATH, HEALTH_PATH) or path.startswith(f"{MODELS_PATH}/"):
        return ("GET", "HEAD")
    call = response_call(path)
    return () if call is None else (call.method,)


def served_paths(engine_paths: tuple[str, ...]) -> tuple[str, ...]:
    """What a site offers of the paths its engines answer, sorted."""
    return (*sorted(set(PATHS).intersection(engine_paths)), MODELS_PATH)
