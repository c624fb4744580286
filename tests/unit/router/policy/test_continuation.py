"""A stream that breaks anywhere, any number of times, is to its client the stream that never broke."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from support import toy_engine

from router.policy.body import Api
from router.policy.continuation import ClientStream, Continuation
from router.policy.resumable import resumability
from router.policy.resume_plan import (
    Continue,
    Finish,
    ResumableRequest,
    ResumePlan,
    ends_inside_a_character,
    owed_text,
    plan_resume,
)
from router.policy.stream_record import StreamRecord
from router.policy.stream_scan import ChatStreamScanner

PATHS = {Api.CHAT: "/v1/chat/completions", Api.COMPLETION: "/v1/completions"}


def request_of(api: Api, fields: dict[str, Any]) -> ResumableRequest:
    return ResumableRequest(
        api=api,
        raw=orjson.dumps(fields),
        resumability=resumability(api, fields),
        include_usage=bool(fields.get("stream_options", {}).get("include_usage")),
        asks_token_ids=fields.get("return_token_ids") is True,
    )


class Result:
    """What a client makes of a stream."""

    def __init__(self, data: bytes) -> None:
        assert data.endswith(b"data: [DONE]\n\n")
        assert data.count(b"[DONE]") == 1
        self.text = ""
        self.ids: list[int] = []
        self.roles = 0
        self.finish: list[str] = []
        self.usage: list[dict[str, int]] = []
        self.heads = set()
        for event in data.split(b"\n\n")[:-2]:
            value = orjson.loads(event.removeprefix(b"data: "))
            self.heads.add((value["id"], value["object"], value["created"], value["model"]))
            if value.get("usage"):
                self.usage.append(value["usage"])
            for choice in value["choices"]:
                delta = choice.get("delta", choice)
                self.roles += "role" in delta
                self.text += delta.get("content", delta.get("text")) or ""
                self.ids += choice.get("token_ids") or []
                if choice["finish_reason"]:
                    self.finish.append(choice["finish_reason"])
        self.has_ids = b"token_ids" in data


def plan_of(request: ResumableRequest, record: StreamRecord, *, site_takes_ids: bool) -> ResumePlan:
    return plan_resume(
        request,
        record,
        site_takes_ids=site_takes_ids,
        first_max_model_len=toy_engine.MAX_MODEL_LEN,
        max_model_len=toy_engine.MAX_MODEL_LEN,
    )


def text_of(plan: Continue) -> str:
    if plan.detokenize is None:
        return ""
    return str(orjson.loads(toy_engine.detokenize(plan.detokenize))["prompt"])


class UnfitError(Exception):
    """Ids whose text does not say what the client is owed."""


def bytes_to_begin(api: Api, events: list[bytes]) -> int:
    """How many bytes of a stream it takes until the client gets any: before, it is retried, not resumed."""
    scanner = ChatStreamScanner(api, "text", cut=True)
    size = 0
    for event in events:
        scanner.feed(event)
        size += len(event)
        if scanner.has_begun:
            break
    return size


def run(
    api: Api,
    fields: dict[str, Any],
    cuts: list[int],
    *,
    site_takes_ids: bool = True,
    tokens_an_event: int = 1,
) -> tuple[Result, Result]:
    """The unbroken stream, and the one that breaks at each of `cuts` bytes of the engine's answer.

    The engines that continue it put `tokens_an_event` into one event.
    """
    request = request_of(api, fields)
    ids = site_takes_ids and not request.asks_token_ids
    raw = request.raw[:-1] + b',"return_token_ids":true}' if ids else request.raw
    whole = Result(b"".join(toy_engine.answer(PATHS[api], request.raw)))
    scanner = ChatStreamScanner(api, "ids" if site_takes_ids else "text", cut=ids)
    events = toy_engine.answer(PATHS[api], raw)
    cuts = [*cuts, 1 << 30]
    out = scanner.feed(b"".join(events)[: max(cuts[0], bytes_to_begin(api, events))])
    record, ending = scanner.record, scanner.ending
    for cut in cuts[1:]:
        if ending == "complete":
            break
        plan = plan_of(request, record, site_takes_ids=site_takes_ids)
        if isinstance(plan, Finish):
            out += ClientStream(request, record).close(plan.finish_reason)
            break
        assert isinstance(plan, Continue)
        owed: str | None = ""
        if plan.detokenize is not None:
            while ends_inside_a_character(text := text_of(plan)):
                record.take_back_last_id()
                plan = plan_of(request, record, site_takes_ids=True)
                assert isinstance(plan, Continue)
            owed = owed_text(text, record.sent_text, holds_back=bool(plan.stop))
            if owed is None:
                raise UnfitError
        continuation = Continuation(request, record, plan)
        out += continuation.begin(owed)
        if continuation.ending is None:
            events = toy_engine.answer(plan.path, plan.body, tokens_an_event=tokens_an_event)
            out += continuation.feed(b"".join(events)[:cut])
        if (search := continuation.stop_search) is not None:
            while (question := search.question) is not None:
                search.note(orjson.loads(toy_engine.detokenize(question))["prompt"])
            out += continuation.end(search.count)
        ending = continuation.ending
    return whole, Result(out)


def check(whole: Result, resumed: Result, *, counts: bool = True) -> None:
    assert resumed.text == whole.text
    assert resumed.heads == whole.heads
    assert resumed.roles == whole.roles
    assert resumed.finish == whole.finish
    assert resumed.ids == whole.ids
    assert resumed.has_ids == whole.has_ids
    if counts:
        assert resumed.usage == whole.usage


def fields_of(api: Api, prompt: str, **changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"model": "m", "stream": True, "max_tokens": 60, "temperature": 0}
    base |= {"messages": [{"role": "user", "content": prompt}]} if api is Api.CHAT else {"prompt": prompt}
    return base | changes


CUTS = st.lists(st.integers(1, 12_000), min_size=1, max_size=5)
APIS = st.sampled_from([Api.CHAT, Api.COMPLETION])


@given(APIS, st.text(min_size=1, max_size=6), CUTS)
def test_by_ids_the_stream_is_exact_wherever_it_breaks(api: Api, prompt: str, cuts: list[int]) -> None:
    """Text, one id, one role, one finish, one usage, one end."""
    fields = fields_of(api, prompt, stream_options={"include_usage": True})
    check(*run(api, fields, cuts))


@given(
    APIS,
    st.text(min_size=1, max_size=6),
    CUTS,
    st.lists(st.sampled_from(["END", "ND", "a<", "😀b", "x>a"]), max_size=2),
)
def test_stop_strings_are_found_over_the_seam(
    api: Api, prompt: str, cuts: list[int], stop: list[str]
) -> None:
    """One engine wrote its first half, the other its second; no token too many is counted."""
    fields = fields_of(api, prompt, stop=stop, max_tokens=90, stream_options={"include_usage": True})
    try:
        check(*run(api, fields, cuts))
    except UnfitError:
        reject()  # a special token in what is held back: such a stream goes on by text (docs/resume.md)


@given(APIS, st.text(min_size=1, max_size=6), CUTS)
def test_a_client_that_asked_for_ids_gets_every_one(api: Api, prompt: str, cuts: list[int]) -> None:
    """Also those of the continuation."""
    check(*run(api, fields_of(api, prompt, return_token_ids=True), cuts))


@given(APIS, st.text(alphabet="abc ", min_size=1, max_size=6), st.integers(1, 12_000))
def test_without_a_limit_the_model_s_length_ends_it(api: Api, prompt: str, cut: int) -> None:
    """A chat goes on to `max_model_len`, a completion to its default of 16, never to 16 anew."""
    fields = fields_of(api, prompt, stream_options={"include_usage": True})
    del fields["max_tokens"]
    check(*run(api, fields, [cut]))


TEXT_ENGINE_CUTS = st.integers(1, 6_000)


@given(APIS, TEXT_ENGINE_CUTS)
def test_by_text_nothing_is_missing_or_doubled(api: Api, cut: int) -> None:
    """Another tokenization, so other words may follow; but the frame holds and the token count adds up."""
    fields = fields_of(api, "hi", stream_options={"include_usage": True})
    whole, resumed = run(api, fields, [cut], site_takes_ids=False)
    assert resumed.heads == whole.heads
    assert resumed.roles == whole.roles
    assert resumed.finish == ["length"]
    assert len(resumed.usage) <= 1
    for usage in resumed.usage:
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def start(data: bytes, fields: dict[str, Any], *, site_takes_ids: bool = True) -> Continuation:
    request = request_of(Api.CHAT, fields)
    scanner = ChatStreamScanner(Api.CHAT, "ids", cut=True)
    scanner.feed(data)
    plan = plan_resume(
        request, scanner.record, site_takes_ids=site_takes_ids, first_max_model_len=200, max_model_len=200
    )
    assert isinstance(plan, Continue)
    return Continuation(request, scanner.record, plan)


FIELDS = fields_of(Api.CHAT, "hi", stream_options={"include_usage": True})


def begun(*, site_takes_ids: bool = True, **changes: Any) -> Continuation:
    raw = orjson.dumps(FIELDS)[:-1] + b',"return_token_ids":true}'
    events = toy_engine.answer(PATHS[Api.CHAT], raw)
    return start(b"".join(events[:5]), FIELDS | changes, site_takes_ids=site_takes_ids)


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (b'data: {"error":{"code":503}}\n\ndata: [DONE]\n\n', "error_event"),
        (b'data: {"choices":[{"text":"x","finish_reason":"abort"}]}\n\n', "aborted"),
        (b"data: [DONE]\n\n", "no_finish"),
        (
            b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":0}}\n\ndata: [DONE]\n\n',
            "no_finish",
        ),
        (b"data: nonsense\n\n", "malformed"),
        (b"data: " + b"x" * (9 << 20), "malformed"),
        (b"data: [1]\n\n", "malformed"),
        (b'data: {"choices":[{"index":1,"text":"x","token_ids":[1],"finish_reason":null}]}\n\n', "malformed"),
        (b'data: {"choices":[{"index":null,"text":"x","finish_reason":"stop"}]}\n\n', "malformed"),
    ],
)
@pytest.mark.parametrize("site_takes_ids", [True, False])
def test_a_continuation_may_break_as_any_stream(data: bytes, ending: str, site_takes_ids: bool):
    """And nothing of what broke it is passed on."""
    continuation = begun(site_takes_ids=site_takes_ids)
    assert continuation.feed(data) == b""
    assert continuation.ending == ending


@pytest.mark.parametrize(
    "delta",
    [{"reasoning_content": "let me think"}, {"reasoning": "hm"}, {"content": "x", "tool_calls": [{}]}],
)
def test_a_continuation_with_other_output_than_text_ends(delta: dict[str, Any]):
    """Dropped in silence the answer would lack it; in a stated break the client knows."""
    continuation = begun(site_takes_ids=False)
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    assert continuation.feed(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n") == b""
    assert continuation.ending == "other_output"


def test_a_usage_in_every_event_of_the_new_site_is_not_passed_on():
    """docs/resume.md, `continuous_usage_stats`: it would count its own prompt; the last one adds up."""
    continuation = begun()
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    ends = [None, "length"]
    events = [
        {"choices": [{"index": 0, "text": "x", "token_ids": [1], "finish_reason": end}], "usage": usage}
        for end in ends
    ]
    out = continuation.feed(
        b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    )
    *passed, last = [orjson.loads(event.removeprefix(b"data: ")) for event in out.split(b"\n\n")[:-2]]
    assert [event["choices"][0]["finish_reason"] for event in passed] == ends
    assert not any(event.get("usage") for event in passed)
    assert last["usage"] == {"prompt_tokens": 2, "completion_tokens": 4 + 2, "total_tokens": 8}


def test_what_the_first_event_alone_says_is_not_said_again():
    """A prompt's text, sent once by the engine, is not in every event of the continuation."""
    role = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    said = {"index": 0, "delta": {"content": "xy"}, "finish_reason": None, "token_ids": [3, 4]}
    first = {"id": "1", "model": "m", "prompt_text": "long", "prompt_token_ids": [1], "choices": [role]}
    data = b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in (first, {"choices": [said]}))
    continuation = start(data, FIELDS)
    event = {"choices": [{"index": 0, "text": "z", "token_ids": [7], "finish_reason": None}]}
    out = continuation.feed(b"data: " + orjson.dumps(event) + b"\n\n")
    sent = orjson.loads(out.removeprefix(b"data: "))
    assert set(sent) == {"id", "model", "choices"}


@pytest.mark.parametrize(("min_tokens", "is_found"), [(0, True), (4, True), (20, False)])
def test_a_stop_string_over_the_seam_is_not_looked_for_before_min_tokens(min_tokens: int, is_found: bool):
    """Nor would an engine have stopped there; where in the text the minimum lies is not known."""
    fields = FIELDS | {"stop": ["aZ"], "min_tokens": min_tokens, "max_tokens": 30}
    role = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    seam = {"index": 0, "delta": {"content": "xya"}, "finish_reason": None, "token_ids": [3, 4, 5, 6]}
    values = [{"id": "1", "choices": [role], "prompt_token_ids": [1, 2]}, {"choices": [seam]}]
    data = b"".join(b"data: " + orjson.dumps(value) + b"\n\n" for value in values)
    continuation = start(data, fields)
    event = {"choices": [{"index": 0, "text": "Zb", "token_ids": [7], "finish_reason": None}]}
    continuation.feed(b"data: " + orjson.dumps(event) + b"\n\n")
    assert continuation.is_stopped_here == is_found


@pytest.mark.parametrize(
    ("changes", "ids", "is_kept"),
    [
        ({}, [8], False),
        ({}, [7, 8], True),
        ({"include_stop_str_in_output": True}, [8], True),
        ({"stop_token_ids": [8]}, [8], True),
        ({"stop": []}, [8], True),
    ],
    ids=["ours", "not to be told apart", "the client's wish", "engine keeps nothing", "no stop strings"],
)
def test_the_text_of_a_token_that_ends_answers_is_dropped(
    changes: dict[str, Any], ids: list[int], is_kept: bool
):
    """An engine that is told to keep stop strings keeps its text too, where it is no special token."""
    continuation = begun(**({"stop": ["zzz"]} | changes))
    choice = {"index": 0, "text": "<eos>", "token_ids": ids, "finish_reason": "stop", "stop_reason": None}
    out = continuation.feed(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n")
    assert (b"<eos>" in out) == is_kept
    assert b'"finish_reason":"stop"' in out


def test_comments_of_the_new_site_pass():
    """They keep the client alive, and are no progress."""
    continuation = begun()
    assert continuation.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert continuation.events == 0


@pytest.mark.parametrize("seed", range(20))
def test_many_breaks_in_a_row(seed: int):
    """Ten sites, one after the other."""
    rng = random.Random(seed)
    cuts = [rng.randrange(1, 3000) for _ in range(10)]
    fields = fields_of(Api.CHAT, f"seed {seed}", stream_options={"include_usage": True}, stop=["END"])
    check(*run(Api.CHAT, fields, cuts))


@pytest.mark.parametrize(("tokens_an_event", "asks_ids"), [(1, False), (9, False), (9, True)])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("length", [2, 5])
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETION])
def test_a_stop_string_of_which_each_site_wrote_a_half(
    api: Api, seed: int, length: int, keeps: bool, tokens_an_event: int, asks_ids: bool
):
    """For every seam: a stop string across it ends the answer there, with the tokens up to it and no more,
    though the site that goes on puts many into one event."""
    changes: dict[str, Any] = {
        "stream_options": {"include_usage": True},
        "include_stop_str_in_output": keeps,
    }
    changes |= {"return_token_ids": True} if asks_ids else {}
    fields = fields_of(api, f"seam {seed}", max_tokens=25, **changes)
    raw = orjson.dumps(fields)[:-1] + b',"return_token_ids":true}'
    events = toy_engine.answer(PATHS[api], raw)
    text = Result(b"".join(toy_engine.answer(PATHS[api], orjson.dumps(fields)))).text
    for at in range(1, len(text) - length + 1):
        stopped = fields | {"stop": [text[at - 1 : at - 1 + length]]}
        raw = orjson.dumps(stopped)[:-1] + b',"return_token_ids":true}'
        events = toy_engine.answer(PATHS[api], raw)
        ends = [len(b"".join(events[:count])) for count in range(1, len(events))]
        for end in ends[-4:]:
            with contextlib.suppress(UnfitError):  # a special token in what is held back, as above
                check(*run(api, stopped, [end], tokens_an_event=tokens_an_event))
