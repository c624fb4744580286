"""HTTP as clients speak it to the router, over raw sockets: bodies, connections, ids, CORS, access log."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from support.memory import far_from_collector
from support.recorded_site import EVENTS, JSON, Asked, RecordedSite, Reply, recorded
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, stop_after
from support.wait import until

from gateway.client_request import ClientRequest
from router.live.exchange import Exchange

BODY = orjson.dumps({"model": "tiny", "input": "hi"})
ORIGIN = "https://chat.example.org"
PATH = "/v1/responses"


@pytest.fixture
async def fleet(store: Any) -> AsyncIterator[RouterFleet]:
    """One site with recordings."""
    async with router_fleet(store, "a", make_site=RecordedSite, max_body_bytes=100_000) as running:
        yield running


@pytest.fixture
async def browsed(store: Any) -> AsyncIterator[RouterFleet]:
    """The same, open to one origin."""
    async with router_fleet(
        store, "a", make_site=RecordedSite, cors_origins=(ORIGIN,), max_body_bytes=100_000
    ) as running:
        yield running


def site(fleet: RouterFleet) -> RecordedSite:
    found = fleet.site("a")
    assert isinstance(found, RecordedSite)
    return found


def post(body: bytes = BODY, *headers: bytes, path: str = PATH, version: bytes = b"1.1") -> bytes:
    lines = [b"POST %b HTTP/%b" % (path.encode(), version), b"host: h", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers]) + b"\r\n\r\n" + body


async def connect(fleet: RouterFleet) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", fleet.router.port)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Until the router closes."""
    async with asyncio.timeout(15):
        return await reader.read()


# bodies


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_a_compressed_body_is_undone(fleet: RouterFleet, encoding: str):
    """A site gets it plain."""
    packed = gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])
    response = await fleet.post(packed, PATH, headers={"content-encoding": encoding})
    assert response.status_code == 200
    [asked] = site(fleet).asked
    assert asked.raw == BODY
    assert "content-encoding" not in asked.headers


async def test_bodies_that_cannot_be_undone(fleet: RouterFleet):
    """415 that says what is taken; 400 for a broken one; a bomb is a 413 and was never made whole."""
    bomb = gzip.compress(b" " * 50_000_000)
    small_bomb = gzip.compress(b" " * 5_000_000)
    assert len(bomb) < 100_000
    cases = [
        (zlib.compress(BODY), "br", 415, "unsupported_content_encoding"),
        (gzip.compress(gzip.compress(BODY)), "gzip, gzip", 415, "unsupported_content_encoding"),
        (BODY, "gzip", 400, "invalid_content_encoding"),
        (gzip.compress(BODY)[:-4], "gzip", 400, "invalid_content_encoding"),
        (gzip.compress(b"") * 2000, "gzip", 400, "invalid_content_encoding"),
        (bomb, "gzip", 413, "request_too_large"),
        (small_bomb, "gzip", 413, "request_too_large"),
    ]
    for body, encoding, status, code in cases:
        response = await fleet.post(body, PATH, headers={"content-encoding": encoding})
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert (response.headers.get("accept-encoding") == "gzip") == (status == 415)
    assert site(fleet).asked == []
    await fleet.settled(client_error=len(cases))


async def test_a_chunked_body_is_one_body(fleet: RouterFleet):
    """With extensions and trailers; the site gets a length."""
    reader, writer = await connect(fleet)
    writer.write(b"POST %b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode())
    for byte in BODY:
        writer.write(b"1;x=y\r\n%c\r\n" % byte)
    writer.write(b"0\r\nx-trailer: 1\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    [asked] = site(fleet).asked
    assert (asked.raw, asked.headers["content-length"]) == (BODY, str(len(BODY)))
    writer.close()


# connections


async def test_pipelined_requests_are_answered_in_order(fleet: RouterFleet):
    """Inference, models, inference, on one connection, then the close that the last one asks for."""
    reader, writer = await connect(fleet)
    site(fleet).override = lambda asked: Reply(body=asked.raw)
    first, last = orjson.dumps({"model": "tiny", "n": 1}), orjson.dumps({"model": "tiny", "n": 2})
    writer.write(
        post(first, path="/rerank")
        + b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n"
        + post(last, b"connection: close", path="/rerank")
    )
    data = await read_all(reader)
    assert data.count(b"HTTP/1.1 200") == 3
    assert data.index(first) < data.index(b'"object":"list"') < data.index(last)
    assert data.endswith(last)
    writer.close()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_half_closed_client_gets_its_answer(fleet: RouterFleet, stream: bool, version: bytes):
    """It has said all that it had to say, and reads until the router closes; also HTTP/1.0."""
    gate = site(fleet).gate = asyncio.Event()
    body = orjson.dumps({"model": "tiny", "input": "hi", "stream": stream})
    reader, writer = await connect(fleet)
    writer.write(post(body, version=version))
    writer.write_eof()
    await until(lambda: len(site(fleet).asked) == 1, what="the site has it")
    await asyncio.sleep(0.05)  # longer than the router takes to look whether anybody is there
    gate.set()
    data = await read_all(reader)
    assert b" 200 OK\r\n" in data
    assert (b"response.completed" in data) == stream
    if version == b"1.0":
        assert b"HTTP/1.1 100" not in data
        assert b"transfer-encoding" not in data
    writer.close()
    await fleet.settled(completed=1)


async def test_pipelined_requests_of_a_half_closed_client(fleet: RouterFleet):
    """All of them are answered, then the router closes."""
    reader, writer = await connect(fleet)
    writer.write(post() + b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n" + post())
    writer.write_eof()
    assert (await read_all(reader)).count(b"HTTP/1.1 200") == 3
    writer.close()
    await until(lambda: fleet.router._server.connections == 0, what="the connection is closed")
    await fleet.settled(completed=2)


async def test_half_a_request_of_a_half_closed_client_ends(fleet: RouterFleet):
    """It can never be whole."""
    reader, writer = await connect(fleet)
    writer.write(post()[:-5])
    writer.write_eof()
    assert await read_all(reader) == b""
    writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_has_gone_is_told_from_one_that_is_half_closed(store: Any, stream: bool):
    """The site's connection is closed though nothing was written to the client in the meantime."""
    async with router_fleet(store, "a") as fleet:
        gate = asyncio.Event()
        behaviour = stop_after(3, "end", Behaviour(gate=gate)) if stream else Behaviour(hang=True)
        fleet.site("a").default = behaviour
        messages = [{"role": "user", "content": "hi"}]
        body = orjson.dumps({"model": "m", "messages": messages, "max_tokens": 30, "stream": stream})
        reader, writer = await connect(fleet)
        writer.write(post(body, path="/v1/chat/completions"))
        await until(lambda: len(fleet.site("a").inference) == 1, what="the site has it")
        if stream:
            await reader.readuntil(b"data: ")
            await reader.readuntil(b"\n\n\r\n")
        writer.close()
        await until(lambda: fleet.site("a").disconnects == 1, what="the site was told")
        await fleet.settled(client_cancelled=1)


@pytest.mark.parametrize("how", ["whole", "stream", "left"])
async def test_a_closed_connection_leaves_no_body_behind(store: Any, how: str):
    """Whether its request was answered in one piece, streamed, or left in the midst of a stream."""
    async with router_fleet(store, "a") as fleet:
        if how == "left":
            fleet.site("a").default = stop_after(3, "end", Behaviour(gate=asyncio.Event()))
        body = orjson.dumps(chat(stream=how != "whole"))
        with far_from_collector(ClientRequest, Exchange) as left:
            reader, writer = await connect(fleet)
            writer.write(post(body, path="/v1/chat/completions"))
            await reader.readuntil({"whole": b"}", "stream": b"0\r\n\r\n", "left": b"data: "}[how])
            writer.transport.abort()
            await until(lambda: not (fleet.router._server.connections or fleet.totals["in_flight"]))
            await until(lambda: left() == 0)


async def test_an_answer_in_one_piece_to_http_1_0(fleet: RouterFleet):
    """With a length and a close."""
    reader, writer = await connect(fleet)
    writer.write(post(version=b"1.0"))
    head, _, body = (await read_all(reader)).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    writer.close()


# ids


async def test_ids_are_taken_returned_and_passed_on(fleet: RouterFleet):
    """The client's request id, trace context, and where it ran."""
    sent = {
        "x-request-id": "my-id",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "tracestate": "x=1",
    }
    private = {"authorization": "Bearer mine", "cookie": "a=b", "x-heron-resume": "1", "x-api-key": "k"}
    response = await fleet.post(BODY, PATH, headers=sent | private)
    assert response.headers.get_list("x-request-id") == ["my-id"]
    assert response.headers["x-heron-site"] == "a"
    [asked] = site(fleet).asked
    assert {name: asked.headers[name] for name in sent} == sent
    assert asked.headers["authorization"] == "Bearer site-secret"
    assert not {"cookie", "x-api-key", "x-heron-resume"} & set(asked.headers)
    response_id = response.json()["id"]
    read = await fleet.client.get(f"{PATH}/{response_id}", headers=sent)
    assert read.headers.get_list("x-request-id") == ["my-id"]
    assert {name: site(fleet).asked[-1].headers[name] for name in sent} == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "\u00e9"])
async def test_ids_are_made_where_there_is_none_to_use(fleet: RouterFleet, sent: str | None):
    """The same one goes to the site and back."""
    headers = {} if sent is None else {"x-request-id": sent.encode("latin-1")}
    response = await fleet.post(BODY, PATH, headers=headers)
    made = response.headers["x-request-id"]
    assert made == site(fleet).asked[0].headers["x-request-id"]
    assert len(made) == 32


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", b""),
        ("GET", "/nothing", b""),
        ("POST", PATH, b"{"),
        ("POST", PATH, b" " * 100_001),
        ("GET", "/v1/responses/resp_1", b""),
        ("GET", PATH, b""),
    ],
)
async def test_every_answer_carries_the_id(fleet: RouterFleet, method: str, path: str, body: bytes):
    """Refusals and the application's own answers too."""
    response = await fleet.client.request(method, path, content=body, headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"] == "mine"


# CORS


async def test_no_answer_carries_cors_unless_configured(fleet: RouterFleet):
    """Not even to a preflight."""
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    for response in (
        await fleet.post(BODY, PATH, headers=headers),
        await fleet.client.options(PATH, headers=headers),
        await fleet.client.get("/v1/models", headers=headers),
        await fleet.post(b"{", PATH, headers=headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "vary" not in response.headers


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, JSON), (200, EVENTS), (422, JSON)], ids=["whole", "stream", "refusal"]
)
async def test_a_site_allows_no_origin_and_sets_no_cookie(fleet: RouterFleet, status: int, content_type: str):
    """Nor does what its `Connection` header names pass; what else it says does."""
    said = {
        "access-control-allow-origin": "*",
        "Access-Control-Allow-Credentials": "true",
        "set-cookie": "a=b",
        "connection": "keep-alive, X-Secret",
        "x-secret": "1",
        "x-ratelimit": "9",
    }
    body = recorded("responses.sse") if content_type == EVENTS else b"{}"
    reply = Reply(status=status, content_type=content_type, body=body, headers=said)
    site(fleet).override = lambda _asked: reply
    fields = {"model": "tiny", "input": "hi", "stream": content_type == EVENTS}
    response = await fleet.post(orjson.dumps(fields), PATH, headers={"origin": ORIGIN})
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["content-type"] == content_type
    assert response.headers["x-ratelimit"] == "9"
    assert not {name.lower() for name in said} & set(response.headers) - {"x-ratelimit", "connection"}


async def test_a_preflight_is_answered_by_the_router(browsed: RouterFleet):
    """Method, headers, how long; and nothing for a foreign origin."""
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, x-stainless-os",
    }
    response = await browsed.client.options(PATH, headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-allow-methods"] == "POST, OPTIONS"
    assert response.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
    assert int(response.headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in response.headers
    foreign = await browsed.client.options(PATH, headers=asked | {"origin": "https://elsewhere.example"})
    assert not [name for name in foreign.headers if name.startswith("access-control")]
    assert site(browsed).asked == []


async def test_every_answer_may_be_read_by_the_origin(browsed: RouterFleet):
    """Streams, refusals before the body is whole, errors of sites, models, what there is not."""
    site(browsed).override = _status_of
    stream = orjson.dumps({"model": "tiny", "input": "hi", "stream": True})
    for method, path, body, status in (
        ("POST", PATH, BODY, 200),
        ("POST", PATH, stream, 200),
        ("POST", PATH, b"{", 400),
        ("POST", PATH, b" " * 100_001, 413),
        ("POST", "/rerank", orjson.dumps({"model": "tiny", "status": 422}), 422),
        ("POST", "/rerank", orjson.dumps({"model": "tiny", "status": 500}), 500),
        ("GET", "/v1/models", b"", 200),
        ("HEAD", "/v1/models", b"", 200),
        ("GET", "/v1/models/other", b"", 404),
        ("GET", "/nothing", b"", 404),
        ("GET", PATH, b"", 405),
    ):
        response = await browsed.client.request(method, path, content=body, headers={"origin": ORIGIN})
        assert (response.status_code, path) == (status, path)
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["vary"] == "Origin"
        assert "x-request-id" in response.headers["access-control-expose-headers"]
        assert "x-heron-site" in response.headers["access-control-expose-headers"]
    foreign = await browsed.post(BODY, PATH, headers={"origin": "https://elsewhere.example"})
    assert foreign.status_code == 200
    assert not [name for name in foreign.headers if name.startswith("access-control")]
    assert foreign.headers["vary"] == "Origin"


def _status_of(asked: Asked) -> Reply | None:
    status = asked.fields.get("status") if asked.raw else None
    return None if status is None else Reply(status=status, body=b'{"error":{"message":"m","code":null}}')


async def test_every_origin_may_be_allowed(store: Any):
    """By `*`."""
    async with router_fleet(store, "a", make_site=RecordedSite, cors_origins=("*",)) as fleet:
        response = await fleet.post(BODY, PATH, headers={"origin": "null"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "vary" not in response.headers


# the access log


async def test_the_access_log_has_one_line_for_each_request(store: Any, caplog: Any):
    """Off by default; on, it says who, what, where, and how it went."""
    async with router_fleet(store, "a", make_site=RecordedSite) as quiet:
        await quiet.post(BODY, PATH)
        await quiet.client.get("/v1/models")
    assert [record for record in caplog.records if record.name == "heron.access"] == []
    async with router_fleet(store, "a", make_site=RecordedSite, access_log=True) as fleet:
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        stream = orjson.dumps({"model": "tiny", "input": "hi", "stream": True})
        await fleet.post(stream, PATH, headers={"x-request-id": "one", "traceparent": trace})
        await fleet.post(b"{", PATH, headers={"x-request-id": "two"})
        await fleet.client.get("/v1/models", headers={"x-request-id": "three"})
        await fleet.settled(completed=1, client_error=1)
    lines = [vars(record) for record in caplog.records if record.name == "heron.access"]
    by_id = {line["request_id"]: line for line in lines}
    assert len(lines) == len(by_id) == 3
    one, two, three = by_id["one"], by_id["two"], by_id["three"]
    assert one["levelno"] == logging.INFO
    assert (one["method"], one["path"], one["status"], one["outcome"]) == ("POST", PATH, 200, "completed")
    assert (one["model"], one["site_id"], one["traceparent"]) == ("tiny", "a", trace)
    assert one["seconds"] >= one["ttft_seconds"] > 0
    assert (two["status"], two["outcome"], two["site_id"]) == (400, "client_error", None)
    assert (three["method"], three["path"], three["status"]) == ("GET", "/v1/models", 200)


def records_of(caplog: Any, request_id: str) -> list[dict[str, Any]]:
    return [vars(one) for one in caplog.records if vars(one).get("request_id") == request_id]


async def test_a_line_of_the_log_about_a_request_has_its_id(
    store: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
):
    """The client's or the router's own: an error in the router, a broken stream, a site that refuses."""
    async with router_fleet(store, "a", resume_wait_seconds=0) as fleet:
        fleet.site("a").script.extend([Behaviour(status=401), stop_after(5)])
        await fleet.post(chat(), headers={"x-request-id": "refused"})
        await fleet.announce()
        await fleet.stream(chat(stream=True), headers={"x-request-id": "cut"})
        monkeypatch.setattr(fleet.router.view.registry, "loads", {})
        await fleet.post(chat(), headers={"x-request-id": "inside"})
        own_id = (await fleet.post(chat())).headers["x-request-id"]
        await fleet.settled(failed=3, broken=1)
    [refused], [cut] = records_of(caplog, "refused"), records_of(caplog, "cut")
    assert (refused["path"], refused["site_id"]) == ("/v1/chat/completions", "a")
    assert (cut["levelno"], cut["code"], cut["site_id"]) == (logging.WARNING, "stream_lost", "a")
    for request_id in ("inside", own_id):
        [inside] = records_of(caplog, request_id)
        assert inside["exc_info"] is not None
