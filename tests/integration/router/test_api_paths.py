"""The whole API through the router: every inference path, byte for byte, and nothing else."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from support.recorded_site import Asked, RecordedSite, Reply
from support.router_fleet import RouterFleet, router_fleet

from gateway.api_paths import PUBLIC_PATHS, USUAL_PATHS, Api

JSON_PATHS = [path for path, rule in PUBLIC_PATHS.items() if rule.api is not Api.FORM]
FORM_PATHS = [path for path, rule in PUBLIC_PATHS.items() if rule.api is Api.FORM]
ODD_JSON = (
    b'{ "model" :"tiny", "messages":[{"role":"user","content":"\\u00e9\\ud83d\\ude00 \xc3\xa9"}],\n\t'
    b'"x-unknown": {"n": 1.0, "e": 1e2, "big": 123456789012345678901234567890, "deep": [[]]}, '
    b'"x":null , "seed":1, "x":2}  '
)
ODD_ANSWER = b'{"z": 1.50, "id":"\\u00e9", "unknown":{"b":1,"a":2} ,"id":"again"}\n'
BOUNDARY = b"--x_Y'z"
CONTROL = [
    *("/sleep", "/wake_up", "/is_sleeping", "/release_kv_cache_memory", "/reset_prefix_cache"),
    *("/reset_mm_cache", "/reset_encoder_cache", "/collective_rpc", "/server_info", "/pause", "/resume"),
    *("/is_paused", "/abort_requests", "/inference/v1/abort_requests", "/inference/v1/generate"),
    *("/init_weight_transfer_engine", "/update_weights", "/weight_info", "/get_world_size"),
    *("/start_profile", "/stop_profile", "/scale_elastic_ep", "/is_scaling_elastic_ep"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/fault_tolerance/apply", "/invocations"),
    *("/metrics", "/load", "/version", "/kv_event_sources", "/tokenizer_info", "/v1/realtime"),
    *("/v1/chat/completions/render", "/v1/completions/derender", "/v1/responses/../../sleep"),
    *(
        "/v1/responses/..",
        "/v1/responses/resp_1/../../sleep",
        "/v1/responses/resp_1/delete",
        "/heron/v1/report",
    ),
]


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """One site that says nothing of its paths."""
    async with router_fleet(store, "a", make_site=RecordedSite, max_body_bytes=200_000) as running:
        yield running


def site(fleet: RouterFleet, site_id: str = "a") -> RecordedSite:
    found = fleet.site(site_id)
    assert isinstance(found, RecordedSite)
    return found


def form(*, model: str = "tiny", stream: str | None = None, file: bytes = bytes(range(256)) * 200) -> bytes:
    """As a client makes it, with a preamble, odd headers, and a file that looks like a form."""
    fields = [("language", "n\u00f6"), ("model", model)] + ([] if stream is None else [("stream", stream)])
    parts = [
        b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n"
        % (BOUNDARY, f'"{name}"'.encode(), value.encode())
        for name, value in fields
    ]
    fake = b'\r\n--other\r\nContent-Disposition: form-data; name="model"\r\n\r\nwrong\r\n'
    upload = (
        b'--%b\r\ncontent-disposition: form-data; filename="a;name=model.wav"; name="file"\r\n'
        b"Content-Type: audio/wav\r\n\r\n%b\r\n" % (BOUNDARY, file + fake)
    )
    return b"preamble\r\n" + upload + b"".join(parts) + b"--%b--\r\n" % BOUNDARY


FORM_TYPE = f'multipart/form-data; charset=utf-8; boundary="{BOUNDARY.decode()}"'


@pytest.mark.parametrize("path", JSON_PATHS)
async def test_every_json_path_passes_byte_for_byte(fleet: RouterFleet, path: str):
    """Request and answer: query, odd spelling, unknown and repeated fields, the engine's headers."""
    site(fleet).override = lambda _asked: Reply(
        body=ODD_ANSWER, content_type="application/json; odd=1", headers={"X-Engine": "yes"}
    )
    response = await fleet.post(ODD_JSON, f"{path}?a=1&b=%20")
    [asked] = site(fleet).asked
    assert (asked.method, asked.target, asked.raw) == ("POST", f"{path}?a=1&b=%20", ODD_JSON)
    assert response.content == ODD_ANSWER
    assert response.headers["content-type"] == "application/json; odd=1"
    assert (response.headers["x-engine"], response.headers["x-heron-site"]) == ("yes", "a")
    await fleet.settled(completed=1)


@pytest.mark.parametrize("path", FORM_PATHS)
async def test_every_form_path_passes_byte_for_byte(fleet: RouterFleet, path: str):
    """With the client's own content type."""
    body = form()
    response = await fleet.post(body, path, headers={"content-type": FORM_TYPE})
    assert (response.status_code, response.json()["text"]) == (200, "hello")
    [asked] = site(fleet).asked
    assert (asked.raw, asked.headers["content-type"]) == (body, FORM_TYPE)
    await fleet.settled(completed=1)


async def test_a_binary_answer_passes(fleet: RouterFleet):
    """Speech is no JSON, and a compressed one stays compressed."""
    sound = gzip.compress(bytes(range(256)) * 100)
    site(fleet).override = lambda _asked: Reply(
        body=sound, content_type="audio/wav", headers={"content-encoding": "gzip"}
    )
    body = orjson.dumps({"model": "tiny", "input": "hi", "voice": "x"})
    async with fleet.client.stream("POST", "/v1/audio/speech", content=body) as response:
        raw = b"".join([piece async for piece in response.aiter_raw()])
    assert raw == sound
    assert (response.headers["content-encoding"], response.headers["content-type"]) == ("gzip", "audio/wav")


async def test_a_compressed_stream_is_a_fault_of_its_site(store: Any):
    """It cannot be looked into, nobody asked for it: another site answers."""
    async with router_fleet(store, "a", "b", make_site=RecordedSite) as fleet:
        odd = Reply(
            body=b"\x1f\x8b\n\n",
            content_type="text/event-stream; charset=utf-8",
            headers={"content-encoding": "gzip"},
        )
        answered = []

        def once(asked: Asked) -> Reply | None:
            answered.append(asked)
            return odd if len(answered) == 1 else None

        site(fleet, "a").override = site(fleet, "b").override = once
        status, data = await fleet.stream({"model": "tiny", "input": "hi", "stream": True}, "/v1/responses")
        assert status == 200
        assert b"event: response.completed" in data
        await fleet.settled(completed=1)
        assert len(answered) == 2


HEARD = b"".join(
    b"data: "
    + orjson.dumps(
        {"object": "transcription.chunk", "choices": [{"delta": {"content": word}, "finish_reason": end}]}
    )
    + b"\n\n"
    for word, end in (("hello", None), (" ", None), ("world", "stop"))
)


@pytest.mark.parametrize("path", FORM_PATHS)
@pytest.mark.parametrize("events", [3, 2])
async def test_a_form_s_stream_passes_and_ends_with_a_stated_error_where_it_breaks(
    fleet: RouterFleet, path: str, events: int
):
    """Byte for byte; a break after the first event is told in-band, and not continued."""
    sent = b"".join(event + b"\n\n" for event in HEARD.split(b"\n\n")[:events])
    is_whole = events == 3
    body = sent + b"data: [DONE]\n\n" if is_whole else sent
    site(fleet).override = lambda _asked: Reply(content_type="text/event-stream", body=body)
    content = form(stream="true")
    response = await fleet.post(content, path, headers={"content-type": FORM_TYPE})
    [asked] = site(fleet).asked
    assert (response.status_code, asked.raw) == (200, content)
    assert response.content.startswith(sent)
    rest = response.content[len(sent) :]
    if is_whole:
        assert rest == b"data: [DONE]\n\n"
        await fleet.settled(completed=1)
    else:
        error, done, _ = rest.split(b"\n\n")
        assert orjson.loads(error.removeprefix(b"data: "))["error"]["code"] == "stream_lost"
        assert done == b"data: [DONE]"
        await fleet.settled(broken=1)


async def test_bad_forms_are_refused(fleet: RouterFleet):
    """400 or 415 in OpenAI's shape; no site sees them."""
    path = "/v1/audio/transcriptions"
    good = {"content-type": FORM_TYPE}
    cases: list[tuple[bytes, dict[str, str], int, str]] = [
        (form(), {"content-type": "application/json"}, 415, "unsupported_media_type"),
        (form(), {"content-type": "multipart/form-data"}, 400, "invalid_form"),
        (form(), {"content-type": "multipart/form-data; boundary=other"}, 400, "invalid_form"),
        (form()[:-20], good, 400, "invalid_form"),
        (b"", good, 400, "invalid_form"),
        (form(model=""), good, 400, "invalid_field"),
        (form().replace(b'"model"', b'"modal"'), good, 400, "missing_field"),
        (form(model="other"), good, 404, "model_not_found"),
        (form(file=b"x" * 200_000), good, 413, "request_too_large"),
    ]
    for body, headers, status, code in cases:
        response = await fleet.post(body, path, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert site(fleet).asked == []


async def test_sites_get_the_paths_that_they_serve(store: Any):
    """By SiteInfo; a site that says nothing is tried; a path that no site serves is a 404 at once."""
    paths = {"a": ("/v1/embeddings",), "b": USUAL_PATHS}
    async with router_fleet(
        store, "a", "b", make_site=lambda name: RecordedSite(name, paths=paths[name])
    ) as fleet:
        for _ in range(6):
            body = {"model": "tiny", "messages": [], "input": "hi"}
            assert (await fleet.post(body)).headers["x-heron-site"] == "b"
            assert (await fleet.post(body, "/v1/embeddings")).headers["x-heron-site"] == "a"
        response = await fleet.post({"model": "tiny"}, "/rerank")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "path_not_served")
        assert "/rerank" in response.json()["error"]["message"]
        await fleet.settled(completed=12, client_error=1)


async def test_sites_that_lack_a_path_do_not_count_as_failed(store: Any):
    """However many they are, a failure among the others is retried; and a lack of power there is said."""

    def make(name: str) -> RecordedSite:
        return RecordedSite(name, paths=("/v1/embeddings",) if name in "gh" else USUAL_PATHS)

    async with router_fleet(store, *"abcdefgh", make_site=make, hold_seconds=0.2) as fleet:
        body = {"model": "tiny", "input": "hi"}
        site(fleet, "g").override = lambda _asked: Reply(status=500, body=b"{}")
        for _ in range(4):
            assert (await fleet.post(body, "/v1/embeddings")).headers["x-heron-site"] == "h"
        assert site(fleet, "g").asked
        for name in "gh":
            await fleet.set_state(name, "dark")
        refused = await fleet.post(body, "/v1/embeddings")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_power")


@pytest.mark.parametrize("path", CONTROL)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_control_paths_reach_no_site(fleet: RouterFleet, method: str, path: str):
    """404, whatever the method; what vLLM serves beyond inference is not there."""
    content = b'{"model":"tiny"}' if method in ("POST", "PUT") else None
    request = fleet.client.build_request(method, "/", content=content)
    request.url = request.url.copy_with(raw_path=path.encode())
    response = await fleet.client.send(request)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert response.headers["x-request-id"]
    assert site(fleet).asked == []


@pytest.mark.parametrize(
    "path", [*PUBLIC_PATHS, "/v1/models", "/v1/models/tiny", "/v1/responses/resp_1", "/health"]
)
async def test_a_wrong_method_is_told_the_right_one(fleet: RouterFleet, path: str):
    """405 with `Allow`, the same that `OPTIONS` says."""
    response = await fleet.client.request("PATCH", path, content=b"{}")
    options = await fleet.client.options(path)
    assert response.status_code == 405
    assert response.headers["allow"] == options.headers["allow"]
    assert options.status_code == 200
    assert "access-control-allow-origin" not in options.headers
    error = response.json()["error"]
    assert error["code"] == "method_not_allowed"
    assert (response.json().get("type") == "error") == path.startswith("/v1/messages")
    assert site(fleet).asked == []


@pytest.mark.parametrize("path", ["/v1%2fchat/completions", "/v1/chat%2Fcompletions", "/v1/%63ompletions"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS"])
async def test_a_path_in_another_spelling_is_not_there(fleet: RouterFleet, method: str, path: str):
    """404: telling its client to use what it has used would help nobody."""
    request = fleet.client.build_request(method, "/", content=b'{"model":"tiny"}')
    request.url = request.url.copy_with(raw_path=path.encode())
    response = await fleet.client.send(request)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert site(fleet).asked == []


async def test_options_of_what_there_is_not(fleet: RouterFleet):
    """404, also to a preflight."""
    assert (await fleet.client.options("/sleep")).status_code == 404


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/health"])
async def test_head_is_get_without_a_body(fleet: RouterFleet, path: str):
    """The same status and length."""
    head, get = await fleet.client.head(path), await fleet.client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_models_are_the_union_over_sites(store: Any):
    """Each once, and an unknown one is a 404 with the list."""
    models = {"a": "one", "b": "two", "c": "two"}
    async with router_fleet(
        store, "a", "b", "c", make_site=lambda name: RecordedSite(name, model=models[name])
    ) as fleet:
        listed = (await fleet.client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["one", "two"]
        for missing in (
            await fleet.client.get("/v1/models/three"),
            await fleet.post({"model": "three", "messages": []}),
            await fleet.post(
                form(model="three"), "/v1/audio/translations", headers={"content-type": FORM_TYPE}
            ),
        ):
            assert missing.status_code == 404
            assert missing.json()["error"]["code"] == "model_not_found"
            assert "Models: one, two." in missing.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_messages_speak_anthropic_in_every_refusal(fleet: RouterFleet, path: str):
    """Bad, too large and unknown."""
    cases = [
        (b"{", 400, "invalid_request_error"),
        (b'{"model":"tiny","messages":1}', 400, "invalid_request_error"),
        (b'{"model":"other","messages":[]}', 404, "not_found_error"),
        (b" " * 200_001, 413, "request_too_large"),
    ]
    for body, status, kind in cases:
        response = await fleet.post(body, path)
        assert response.status_code == status
        assert response.json()["type"] == "error"
        assert response.json()["error"]["type"] == kind
        assert response.json()["error"]["message"]
