"""What of a request says which site may hold its cache."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from router.policy.affinity_hint import BOUNDARIES, MAX_PREFIX_BYTES, Hint, read_hint
from router.policy.body import Api, read_body

SYSTEM = "You are a heron at a wind farm. " * 100
TURNS = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": "How is the wind?"},
    {"role": "assistant", "content": "Strong, from the north. " * 40},
    {"role": "user", "content": "And tomorrow?"},
]


def hint_of(
    api: Api = Api.CHAT, *, header: bytes | None = None, tenant: str = "t", **fields: Any
) -> Hint | None:
    body, model = read_body(api, orjson.dumps({"model": "m", **fields}))
    return read_hint(body, model, header=header, tenant=tenant)


def session(api: Api = Api.CHAT, **options: Any) -> int | None:
    hint = hint_of(api, **options)
    assert hint is not None
    return hint.session


def test_a_short_request_has_none():
    """Some 250 tokens are computed sooner than looked for."""
    assert hint_of(messages=[{"role": "user", "content": "hi"}]) is None


def test_turns_of_one_conversation_have_one_session():
    """All up to the first user message stays the same while turns are added."""
    assert session(messages=TURNS) == session(messages=TURNS[:2])
    other = [TURNS[0], {"role": "user", "content": "How are the waves?"}]
    assert session(messages=TURNS[:2]) != session(messages=other)


def test_sessions_of_tenants_and_models_differ():
    """Nobody's key says where another's conversation goes."""
    assert session(messages=TURNS) != session(messages=TURNS, tenant="u")
    assert session(header=b"s", prompt="x", api=Api.COMPLETION) != session(
        header=b"s", prompt="x", api=Api.COMPLETION, tenant="u"
    )
    assert session(messages=TURNS) != session(messages=TURNS, model="n")


def test_the_clients_own_header_is_the_session_whatever_the_prompt_is():
    """Short, long, any API; and what the site is told does not give it away."""
    named = hint_of(header=b"secret", messages=[{"role": "user", "content": "hi"}])
    assert named is not None
    assert named.session == session(header=b"secret", messages=TURNS)
    assert named.session == session(Api.OTHER, header=b"secret", input="text")
    assert "secret" not in named.key
    assert len(named.key) == 16


def test_a_prompt_cache_key_groups_conversations_but_does_not_join_them():
    """OpenAI's field is often one for a whole application."""
    one, other = (
        hint_of(prompt_cache_key="app", messages=[TURNS[0], {"role": "user", "content": text}])
        for text in "ab"
    )
    assert one is not None
    assert other is not None
    assert one.group == other.group
    assert one.session != other.session


@pytest.mark.parametrize("value", ["", 7, None, ["x"]])
def test_a_prompt_cache_key_that_is_none_is_ignored(value: Any):
    """What is wrong with it is the engine's business."""
    plain, odd = hint_of(messages=TURNS), hint_of(messages=TURNS, prompt_cache_key=value)
    assert plain is not None
    assert odd is not None
    assert (plain.session, plain.group) == (odd.session, odd.group)


def test_user_is_not_looked_at():
    """It names a person or an application, not a prompt."""
    assert session(messages=TURNS) == session(messages=TURNS, user="u1", safety_identifier="s")


def test_prompts_that_begin_alike_share_the_beginning_of_their_chain():
    """And from the first difference on nothing; the order of the body's other fields does not matter."""
    one = hint_of(Api.COMPLETION, prompt=SYSTEM + "a" * 1000)
    body, model = read_body(
        Api.COMPLETION, orjson.dumps({"prompt": SYSTEM + "b" * 1000, "max_tokens": 5, "model": "m"})
    )
    other = read_hint(body, model, header=None)
    assert one is not None
    assert other is not None
    same = [a == b for a, b in zip(one.prefix, other.prefix, strict=False)]
    whole = (len(SYSTEM) + len('"prompt":"')) // 512
    assert same == [True] * whole + [False] * (len(same) - whole)
    assert 0 < whole < len(same)
    assert one.session is None


def test_the_next_turn_goes_on_from_the_chain_of_the_last():
    """But for the last block, which holds what follows the messages."""
    before, after = hint_of(messages=TURNS[:2]), hint_of(messages=TURNS)
    assert before is not None
    assert after is not None
    assert after.prefix[: len(before.prefix) - 1] == before.prefix[:-1]
    assert len(after.prefix) > len(before.prefix)


def test_a_cache_salt_separates():
    """vLLM does not share blocks between salts."""
    plain, salted = hint_of(messages=TURNS), hint_of(messages=TURNS, cache_salt="x")
    assert plain is not None
    assert salted is not None
    assert not set(plain.prefix) & set(salted.prefix)


def test_the_chain_of_a_megabyte_is_as_long_as_that_of_128_kib():
    """Bounded work, whatever comes."""
    hint = hint_of(Api.COMPLETION, prompt="x" * 1_000_000)
    assert hint is not None
    assert len(hint.prefix) == len(BOUNDARIES) < 100
    assert BOUNDARIES[-1] <= MAX_PREFIX_BYTES


def test_figures_are_the_same_in_every_process():
    """Replicas and workers must agree without talking: no per-process hash seed, no clock."""
    hint = hint_of(messages=TURNS)
    assert hint is not None
    assert hint.key == "869a14350428dd69"
    assert hint.prefix[0] == 2200413644880


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": SYSTEM}, {"type": "image_url"}]}],
        [{"role": "user", "content": None}, {"role": "x", "content": SYSTEM}],
        [{"content": SYSTEM}],
        [],
    ],
)
def test_odd_messages_do_no_harm(messages: list[Any]):
    """Whatever the engine will say to them."""
    body, model = read_body(Api.CHAT, orjson.dumps({"model": "m", "messages": messages, "pad": "x" * 2000}))
    hint = read_hint(body, model, header=None)
    assert hint is not None
    assert (hint.session is None) == (not any(one.get("role") == "user" for one in messages))


def test_the_responses_and_messages_apis_have_sessions_too():
    """`instructions` and `system` stand beside the turns there."""
    turns = TURNS[1:]
    for api, turns_name, system_name in (
        (Api.RESPONSES, "input", "instructions"),
        (Api.MESSAGES, "messages", "system"),
    ):
        one = session(api, **{turns_name: turns[:1], system_name: SYSTEM})
        assert one == session(api, **{turns_name: turns, system_name: SYSTEM})
        assert one != session(api, **{turns_name: turns[:1], system_name: SYSTEM + "!"})
    bare = hint_of(Api.RESPONSES, input=SYSTEM)
    assert bare is not None
    assert bare.session is None
