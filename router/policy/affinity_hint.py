"""What of a request says which site may hold its KV cache: its session, and hashes of its prompt. Pure.

The router carries no tokenizer, so it looks at bytes: equal beginnings of the prompt's JSON text are equal
beginnings of its tokens. Rules: hashing is left to C (`zlib.crc32`: a running CRC is a chain by itself, and
gives the same figures in every replica), the body is sliced, never copied, and no more than
`MAX_PREFIX_BYTES` of it are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any
from zlib import crc32

from router.policy.body import Api, RequestBody

MIN_PROMPT_BYTES = 1024
"""A shorter body (some 250 tokens) is computed anew sooner than it is worth a detour."""
BLOCK_BYTES = 512
FINE_BLOCKS = 32
"""So many blocks of `BLOCK_BYTES`; from there on each is a 32nd of what comes before it."""
LEADING_BLOCKS = 8
"""So much of a bare prompt (4 KiB) names it to the site, where nothing else does."""
MAX_PREFIX_BYTES = 128 * 1024
"""Some 32,000 tokens; two prompts that agree so far are at home at the same site."""
MAX_HEAD_MESSAGES = 16
"""Looked through for the first user message."""
MAX_HEAD_PARTS = 16
"""Of one message's content."""
SAMPLE_CHARACTERS = 1024
"""Of a long text its beginning, its end and its length tell it from others."""
MAX_KEY_CHARACTERS = 1024

_FIELD = {
    Api.CHAT: b'"messages"',
    Api.MESSAGES: b'"messages"',
    Api.COMPLETION: b'"prompt"',
    Api.RESPONSES: b'"input"',
}


def _boundaries() -> tuple[int, ...]:
    ends = [BLOCK_BYTES * (number + 1) for number in range(FINE_BLOCKS)]
    while (end := ends[-1] + ends[-1] // FINE_BLOCKS) <= MAX_PREFIX_BYTES:
        ends.append(end)
    return tuple(ends)


BOUNDARIES = _boundaries()
"""Where blocks end, in bytes from the beginning of the prompt."""


class Hint:
    """Which requests belong together (a plain class with slots: one is made per request)."""

    __slots__ = ("group", "prefix", "session")

    def __init__(self, *, session: int | None, group: int | None, prefix: tuple[int, ...]) -> None:
        self.session = session
        """One conversation: its history is where its last turn went. None: not known."""
        self.group = group
        """What is best kept together while nobody holds anything of it yet. None: its prefix says."""
        self.prefix = prefix
        """One hash per block end; equal ones mean an equal prompt up to there. Not empty where all else is
        None."""

    @property
    def key(self) -> str:
        """What the site is told, for its choice of an instance: opaque."""
        name = self.group if self.session is None else self.session
        if name is None:
            name = self.prefix[min(len(self.prefix), LEADING_BLOCKS) - 1]
        return f"{name:016x}"


def read_hint(
    body: RequestBody, model: str, *, header: bytes | None, tenant: str = "anonymous"
) -> Hint | None:
    """The hint of a request; None: it is all the same where it goes.

    `header` is the client's own `x-heron-affinity`. The cases, in order:
      1. the client names the session,
      2. too short, or an API without a prompt: None,
      3. a conversation: known again by everything up to its first user message, as that never changes while
         turns are added; with a `prompt_cache_key` the two together,
      4. a bare prompt: no session; its `prompt_cache_key` or its beginning says what it belongs to.
    """
    fields = body.fields
    assert fields is not None
    if header is not None:
        name = _digest(b"header", tenant, model, header)
        return Hint(session=name, group=name, prefix=_prefix(body, model, fields))
    if len(body.raw) < MIN_PROMPT_BYTES or body.api not in _FIELD:
        return None
    prefix = _prefix(body, model, fields)
    cache_key = fields.get("prompt_cache_key")
    group = None
    if type(cache_key) is str and cache_key:
        group = _digest(b"key", tenant, model, _encoded(cache_key[:MAX_KEY_CHARACTERS]))
    head = _conversation_head(fields)
    if head is not None:
        session = _digest(b"session", tenant, model, b"%d\0%b" % (group or 0, head))
        return Hint(session=session, group=session if group is None else group, prefix=prefix)
    if group is None and not prefix:
        return None
    return Hint(session=None, group=group, prefix=prefix)


def _prefix(body: RequestBody, model: str, fields: dict[str, Any]) -> tuple[int, ...]:
    """The chain over the prompt's bytes, seeded with what else the engine's cache depends on."""
    name = _FIELD.get(body.api)
    start = body.raw.find(name) if name is not None else -1
    room = len(body.raw) - start
    if start < 0 or room < BLOCK_BYTES:
        return ()
    seed = model
    if fields.get("cache_salt") is not None:
        seed = f"{model}\0{fields['cache_salt']}"
    view = memoryview(body.raw)[start:]
    value = crc32(_encoded(seed))
    hashes = []
    before = 0
    for end in BOUNDARIES:
        if end > room:
            break
        value = crc32(view[before:end], value)
        hashes.append(
            end << 32 | value
        )  # with its place, so that two hashes of different lengths never agree
        before = end
    return tuple(hashes)


def _conversation_head(fields: dict[str, Any]) -> bytes | None:
    """What stays the same in every turn: all up to the first user message. None: not a conversation."""
    messages = fields.get("messages")
    if messages is None:
        messages = fields.get("input")
    if type(messages) is not list:
        return None
    system = fields.get("system") or fields.get("instructions")
    pieces = list(_samples(system)) if system is not None else []
    for message in messages[:MAX_HEAD_MESSAGES]:
        if type(message) is not dict:
            return None
        pieces.extend(_samples(message.get("content")))
        if message.get("role") == "user":
            return b"\0".join(pieces)
    return None


def _samples(content: Any) -> Iterator[bytes]:
    """Enough of a message's content to know it again."""
    parts = content[:MAX_HEAD_PARTS] if type(content) is list else (content,)
    for part in parts:
        text = part.get("text") if type(part) is dict else part
        if type(text) is not str:
            yield b"-"
        elif len(text) <= 2 * SAMPLE_CHARACTERS:
            yield _encoded(text)
        else:
            yield b"%d" % len(text)
            yield _encoded(text[:SAMPLE_CHARACTERS])
            yield _encoded(text[-SAMPLE_CHARACTERS:])


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(kind: bytes, tenant: str, model: str, value: bytes) -> int:
    """64 bits that nobody can turn back into the value, and that no other tenant's value gives."""
    text = b"\0".join((kind, _encoded(tenant), _encoded(model), value))
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
