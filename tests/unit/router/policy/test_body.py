"""What routing reads of a body, and what it refuses."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.request import ClassCutoffs
from router.policy.body import (
    Api,
    BadRequestError,
    RequestBody,
    features_of,
    read_body,
    read_form,
    splice_token_ids,
)

GOOD = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def read(api: Api = Api.CHAT, **changes: Any) -> RequestBody:
    return read_body(api, orjson.dumps(GOOD | changes))[0]


def test_a_good_body_is_read():
    """Only what routing needs."""
    body = read(stream=True, max_tokens=5, n=2, stream_options={"include_usage": True}, unknown={"x": 1})
    assert (body.stream, body.max_tokens, body.choices, body.include_usage) == (True, 5, 2, True)


@pytest.mark.parametrize(
    ("prompt", "n", "choices"),
    [
        ("a", 2, 2),
        (["a", "b"], 1, 2),
        (["a", "b", "c"], 2, 6),
        ([1, 2, 3], 1, 1),
        ([[1], [2]], 1, 2),
        ([], 1, 1),
    ],
)
def test_every_prompt_of_a_completion_has_its_choices(prompt: Any, n: int, choices: int):
    """One of them that is cut off makes the answer a broken one."""
    body = read_body(Api.COMPLETION, orjson.dumps({"model": "m", "prompt": prompt, "n": n}))[0]
    assert body.choices == choices


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b'"text"', b"1", b"null", b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000],
    ids=["empty", "cut", "list", "string", "number", "null", "not utf-8", "nan", "deep"],
)
def test_what_is_not_a_json_object_is_refused(raw: bytes):
    """With an error that says so."""
    with pytest.raises(BadRequestError, match="JSON"):
        read_body(Api.CHAT, raw)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 600}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_completion_tokens": []}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": "2"}, "n"),
        ({"stream_options": []}, "stream_options"),
    ],
)
def test_wrong_types_name_the_field(changes: dict[str, Any], param: str):
    """So that the client's developer finds it."""
    with pytest.raises(BadRequestError) as caught:
        read(**changes)
    assert caught.value.param == param
    assert param in str(caught.value)


def test_null_is_as_good_as_absent():
    """As OpenAI's clients send it."""
    body = read(stream=None, max_tokens=None, n=None, stream_options=None)
    assert (body.stream, body.max_tokens, body.choices) == (False, None, 1)


def test_a_completion_needs_no_messages():
    """Its prompt is the engine's business."""
    assert read_body(Api.COMPLETION, b'{"model":"m","prompt":"x"}')[1] == "m"


@pytest.mark.parametrize(
    ("value", "tier"), [(None, "default"), ("auto", "default"), ("priority", "priority"), ("flex", "flex")]
)
def test_tiers_are_read(value: str | None, tier: str):
    """OpenAI's names."""
    body = read(service_tier=value)
    features = features_of(body, "m", ClassCutoffs(), affinity_key=None, deadline_seconds=None)
    assert features.tier == tier


@pytest.mark.parametrize("value", ["gold", 1, ["flex"]])
def test_an_unknown_tier_is_refused(value: object):
    """Rather than served as something else."""
    with pytest.raises(BadRequestError, match="service_tier"):
        features_of(read(service_tier=value), "m", ClassCutoffs(), affinity_key=None, deadline_seconds=None)


def test_ids_are_counted_and_text_is_estimated():
    """Four bytes a token."""
    by_ids = read_body(Api.COMPLETION, orjson.dumps({"model": "m", "prompt": list(range(3000))}))[0]
    features = features_of(by_ids, "m", ClassCutoffs(), affinity_key=None, deadline_seconds=None)
    assert (features.prompt_tokens, features.request_class) == (3000, "LM")
    by_text = read(max_tokens=3)
    features = features_of(by_text, "m", ClassCutoffs(), affinity_key="k", deadline_seconds=2.0)
    assert features.prompt_tokens == len(by_text.raw) // 4
    assert (features.expected_output_tokens, features.request_class) == (3, "SS")


@pytest.mark.parametrize(
    ("api", "prompt"),
    [
        *((api, [1]) for api in (Api.CHAT, Api.RESPONSES, Api.MESSAGES, Api.OTHER)),
        (Api.COMPLETION, [1, "x" * 4000]),
        (Api.COMPLETION, []),
        (Api.COMPLETION, [True]),
    ],
)
def test_only_a_completion_s_prompt_is_ids_and_only_where_all_are(api: Api, prompt: list[Any]):
    """Else a field that the engine ignores would make a prompt of any length one token."""
    body = read(api, prompt=prompt, messages=[{"role": "user", "content": "x" * 4000}])
    features = features_of(body, "m", ClassCutoffs(), affinity_key=None, deadline_seconds=None)
    assert features.prompt_tokens == len(body.raw) // 4 > 1000


@pytest.mark.parametrize(
    ("api", "fields", "limit"),
    [
        (Api.CHAT, {"max_tokens": 50, "max_completion_tokens": 60, "max_output_tokens": 0}, 60),
        (Api.COMPLETION, {"max_tokens": 50, "max_completion_tokens": 0, "max_output_tokens": 0}, 50),
        (Api.COMPLETION, {"max_completion_tokens": 0}, None),
        (Api.RESPONSES, {"max_tokens": 0, "max_completion_tokens": 0, "max_output_tokens": 70}, 70),
        (Api.MESSAGES, {"max_tokens": 50, "max_completion_tokens": 0, "max_output_tokens": 0}, 50),
        (Api.OTHER, {"max_tokens": 50, "max_completion_tokens": 0, "max_output_tokens": 0}, 50),
    ],
)
def test_only_what_the_engine_reads_limits_an_answer(api: Api, fields: dict[str, int], limit: int | None):
    """Another API's field is no promise."""
    assert read(api, **fields).max_tokens == limit


@given(
    st.dictionaries(st.text(), st.one_of(st.integers(-5, 5), st.text(), st.booleans()), min_size=1),
    st.sampled_from([b"", b" ", b"\n\t"]),
)
def test_the_splice_changes_nothing_else(fields: dict[str, Any], tail: bytes):
    """The same object with one field more, whatever it said of it before."""
    raw = orjson.dumps(fields) + tail
    assert orjson.loads(b"".join(splice_token_ids(raw))) == {**fields, "return_token_ids": True}


def test_a_long_prompt_is_not_copied_for_a_field_more():
    """What is sent is a view of what the client sent."""
    raw = orjson.dumps({"model": "m", "prompt": "x" * (1 << 20)})
    body, tail = splice_token_ids(raw)
    assert isinstance(body, memoryview)
    assert body.obj is raw
    assert orjson.loads(b"".join((body, tail)))["return_token_ids"] is True


FORM = "multipart/form-data; boundary=B"


def form_of(**fields: str) -> bytes:
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    upload = '--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + "x" * 9000 + "\r\n"
    return ("".join(parts) + upload + "--B--").encode()


@pytest.mark.parametrize(("text", "stream"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_a_form_is_read(text: str, stream: bool):
    """Model and stream; the upload does not count as a prompt."""
    raw = form_of(model="m", stream=text)
    body, model = read_form(FORM.encode(), raw)
    assert (model, body.api, body.stream, body.raw is raw) == ("m", Api.FORM, stream, True)
    features = features_of(body, model, ClassCutoffs(), affinity_key=None, deadline_seconds=None)
    assert features.prompt_tokens < 10


@pytest.mark.parametrize(
    ("content_type", "raw", "status"),
    [
        ("application/json", form_of(model="m"), 415),
        ("", form_of(model="m"), 415),
        ("multipart/form-data", form_of(model="m"), 400),
        (FORM, b"", 400),
        (FORM, form_of(), 400),
        (FORM, form_of(model="x" * 600), 400),
    ],
)
def test_a_bad_form_is_refused(content_type: str, raw: bytes, status: int):
    """With the status that says whose fault it is."""
    with pytest.raises(BadRequestError) as caught:
        read_form(content_type.encode(), raw)
    assert caught.value.status == status
