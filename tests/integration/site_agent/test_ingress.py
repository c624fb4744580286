"""The ingress over real sockets, with stub engines behind it: one test per exit path, counts back at zero."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
from support.fake_drivers import FLOOD_EVENT, FLOOD_EVENTS, FakeEngines, FakeGpus, StubEngine, specs
from support.full_listener import FullListener
from support.wait import until

from fleet.instance import InstanceState
from gateway.server import HttpServer
from gateway.upstream import Origin, UpstreamPool
from site_agent.admission import Admission
from site_agent.drivers.interface import Drivers
from site_agent.forwarding import Forwarder
from site_agent.held_responses import HeldResponses
from site_agent.ingress import Ingress
from site_agent.instance import RestartRule
from site_agent.instances import InstancePool
from site_agent.limits import Limits
from site_agent.slots import Slots

TOKEN = "site-token"
CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Site:
    """An ingress with engines."""

    url: str
    admission: Admission
    pool: InstancePool
    engines: FakeEngines
    client: httpx.AsyncClient
    upstream: UpstreamPool
    outcomes: Counter[str] = field(default_factory=Counter)
    pushbacks: Counter[str] = field(default_factory=Counter)

    def engine(self, index: int) -> StubEngine:
        return self.engines.engines[f"i{index}"]

    async def post(self, behaviour: str, path: str = CHAT, **headers: str) -> httpx.Response:
        return await self.client.post(
            path, json={"model": "m"}, headers={"x-behaviour": behaviour, **headers}
        )

    async def settled(self) -> None:
        """Every count is back at zero, here and at the engines."""
        await until(lambda: self.admission.total_in_flight == 0, what="nothing in flight at the site")
        await until(
            lambda: all(engine.running == 0 for engine in self.engines.engines.values()),
            what="nothing running on the engines",
        )


@asynccontextmanager
async def running_site(
    count: int = 2, max_concurrency: int = 2, *, reserve: float = 0.0, timeout_seconds: float = 30.0
) -> AsyncIterator[Site]:
    engines, upstream = FakeEngines(), UpstreamPool(connect_timeout_seconds=1.0)
    async with asyncio.TaskGroup() as tasks:
        pool = InstancePool(
            specs=specs(count),
            drivers=Drivers(engines=engines, gpus=FakeGpus()),
            restart=RestartRule(),
            probe_seconds=1.0,
            probe_failures=5,
            start_seconds=60.0,
            start_timeout_seconds=5.0,
            rng=random.Random(1),
            tasks=tasks,
            on_change=lambda: None,
            on_end=lambda _instance_id: None,
        )
        admission = Admission(
            slots=Slots(
                seats=pool.instances,
                limits=Limits(max_concurrency=max_concurrency),
                resume_reserve_ratio=reserve,
                start_seconds=2.0,
            )
        )
        outcomes: Counter[str] = Counter()
        pushbacks: Counter[str] = Counter()
        responses = HeldResponses(instances=pool.instances, clock=asyncio.get_running_loop().time)
        ingress = Ingress(
            responses=responses,
            admission=admission,
            forwarder=Forwarder(
                note_opening=responses.learn,
                admission=admission,
                upstream=upstream,
                request_timeout_seconds=timeout_seconds,
                max_answer_bytes=1 << 20,
            ),
            site_token=TOKEN,
            engine_paths=lambda: engines.capabilities().paths,
            models=lambda: b'{"data": [{"id": "m"}]}',
            report=lambda: b'{"state": "serving"}',
            count=lambda outcome: outcomes.update([outcome]),
            count_pushback=lambda reason: pushbacks.update([reason]),
        )
        server = HttpServer(hot=ingress.route, max_body_bytes=1 << 20)
        await server.start()
        for one in pool.instances:
            pool.start(one.instance_id)
        await until(lambda: all(one.is_admitted for one in pool.instances), what="engines ready")
        url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(
            base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=20
        ) as client:
            yield Site(
                url=url,
                admission=admission,
                pool=pool,
                engines=engines,
                client=client,
                upstream=upstream,
                outcomes=outcomes,
                pushbacks=pushbacks,
            )
        await server.stop(0)
        await engines.aclose()
        await upstream.aclose()


async def hold(site: Site, count: int, **headers: str) -> list[httpx.Response]:
    """Have so many streams running, each held after its first event, which has come through."""
    request = site.client.build_request(
        "POST", CHAT, json={"model": "m"}, headers={"x-behaviour": "hold", **headers}
    )
    return [await site.client.send(request, stream=True) for _ in range(count)]


async def finish(site: Site, held: list[httpx.Response]) -> None:
    """Let them run to their end."""
    release(site)
    for response in held:
        assert (await response.aread()).endswith(b"data: [DONE]\n\n")
    await site.settled()


def release(site: Site) -> None:
    for engine in site.engines.engines.values():
        engine.release.set()


async def test_an_answer_passes_and_says_which_instance_and_what_headroom() -> None:
    """Headroom is what is left after this request."""
    async with running_site() as site:
        answer = await site.post("json")
        assert answer.status_code == 200
        assert answer.json()["instance"] == answer.headers["x-heron-instance"]
        assert answer.headers["x-heron-headroom"] == "3"
        await site.settled()
        assert site.outcomes == {"completed": 1}


async def test_a_stream_passes_byte_for_byte() -> None:
    """Events come as the engine wrote them."""
    async with running_site() as site:
        answer = await site.post("stream")
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.content == b'data: {"word": 1}\n\ndata: {"word": 2}\n\ndata: [DONE]\n\n'
        await site.settled()
        assert site.outcomes == {"completed": 1}


async def test_headers_of_the_contract_and_the_token_never_reach_an_engine() -> None:
    """The request id and the trace do."""
    async with running_site() as site:
        await site.post("json", **{"x-request-id": "r1", "traceparent": "t", "x-heron-class": "SS"})
        engine = next(engine for engine in site.engines.engines.values() if engine.seen)
        names = {name for name, _ in engine.seen[0].headers}
        assert {b"x-request-id", b"traceparent"} <= names
        assert not names & {b"authorization", b"x-heron-class"}


@pytest.mark.parametrize("token", [None, "Bearer wrong", "site-token"])
async def test_without_the_site_token_nothing_is_answered(token: str | None) -> None:
    """401 in OpenAI's shape, for the report and the models too."""
    async with running_site() as site:
        headers = {} if token is None else {"authorization": token}
        async with httpx.AsyncClient(base_url=site.url, headers=headers) as stranger:
            for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/heron/v1/report")):
                answer = await stranger.request(method, path, json={})
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_site_token"
        assert site.outcomes == {"rejected": 3}


@pytest.mark.parametrize(
    "path", ["/sleep", "/wake_up", "/pause", "/abort_requests", "/metrics", "//sleep", "/v1/x"]
)
async def test_a_path_outside_the_allow_list_never_reaches_an_engine(path: str) -> None:
    """Even where the engine says that it has it."""
    async with running_site() as site:
        answer = await site.client.post(f"{site.url}{path}", json={})
        assert answer.status_code == 404
        assert all(not engine.seen for engine in site.engines.engines.values())


async def test_the_agent_answers_models_report_and_health_itself() -> None:
    """Whatever its engines do; health needs no token."""
    async with running_site() as site:
        assert (await site.client.get("/v1/models")).json()["data"][0]["id"] == "m"
        assert (await site.client.get("/heron/v1/report")).json()["state"] == "serving"
        assert (await httpx.AsyncClient().get(f"{site.url}/health")).status_code == 200
        assert (await site.client.get(CHAT)).status_code == 405
        site.admission.shut()
        assert (await site.client.get("/health")).status_code == 503


async def test_a_full_site_pushes_back() -> None:
    """In one round trip, with the reason and when to come back."""
    async with running_site() as site:
        held = await hold(site, 4)
        answer = await site.post("json")
        assert answer.status_code == 503
        assert answer.headers["x-heron-pushback"] == "capacity"
        assert float(answer.headers["x-heron-retry-after-seconds"]) > 0
        assert answer.json()["error"]["code"] == "pushback"
        await finish(site, held)
        assert site.outcomes == {"pushback": 1, "completed": 4}
        assert site.pushbacks == {"capacity": 1}


async def test_the_reserve_is_for_resumed_streams() -> None:
    """New work is pushed back while a resume still comes in."""
    async with running_site(reserve=0.25) as site:
        held = await hold(site, 3)
        assert (await site.post("json")).status_code == 503
        assert (await site.post("json", **{"x-heron-resume": "1"})).status_code == 200
        await finish(site, held)


async def test_a_request_without_generation_needs_no_slot() -> None:
    """A resume must be able to ask for the text of its ids on a full site."""
    async with running_site() as site:
        held = await hold(site, 4)
        assert (await site.post("json", "/detokenize")).status_code == 200
        await finish(site, held)


async def test_load_goes_to_the_instance_with_least_running() -> None:
    """Four held requests are two each."""
    async with running_site() as site:
        held = await hold(site, 4)
        assert [site.engine(index).running for index in range(2)] == [2, 2]
        await finish(site, held)


async def test_a_session_stays_on_its_instance_until_that_is_loaded() -> None:
    """The same key, the same instance; and when it is full, another."""
    async with running_site(count=3, max_concurrency=8) as site:
        homes = {
            (await site.post("json", **{"x-heron-affinity": "session-1"})).headers["x-heron-instance"]
            for _ in range(6)
        }
        others = {
            (await site.post("json", **{"x-heron-affinity": f"s{number}"})).headers["x-heron-instance"]
            for number in range(30)
        }
        assert len(homes) == 1
        assert len(others) == 3
        held = await hold(site, 12, **{"x-heron-affinity": "session-1"})
        assert max(site.admission.slots.running(one.instance_id) for one in site.pool.instances) < 12
        await finish(site, held)


@pytest.mark.parametrize(("behaviour", "status"), [("refuse", 400), ("fault", 500)])
async def test_an_engines_own_error_passes(behaviour: str, status: int) -> None:
    """The router decides what to do about it."""
    async with running_site() as site:
        assert (await site.post(behaviour)).status_code == status
        await site.settled()
        assert site.outcomes == {"client_error" if status == 400 else "engine_error": 1}


@pytest.mark.parametrize("behaviour", ["full", "full_in_stream"])
async def test_an_engine_at_its_limit_is_a_pushback(behaviour: str) -> None:
    """Also where it says so inside a 200, as vLLM does; every instance was asked first."""
    async with running_site() as site:
        answer = await site.post(behaviour)
        assert answer.status_code == 503
        assert answer.headers["x-heron-pushback"] == "capacity"
        assert [len(site.engine(index).seen) for index in range(2)] == [1, 1]
        await site.settled()
        assert site.outcomes == {"pushback": 1}


@pytest.mark.parametrize("behaviour", ["cut_before", "dead_in_stream"])
async def test_an_engine_that_fails_before_the_first_byte_is_not_the_last(behaviour: str) -> None:
    """Each instance is tried once; then it is a 502, which the router may retry elsewhere."""
    async with running_site() as site:
        answer = await site.post(behaviour)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_failed"
        assert [len(site.engine(index).seen) for index in range(2)] == [1, 1]
        await site.settled()
        assert site.outcomes == {"engine_error": 1}


@pytest.mark.parametrize(
    ("behaviour", "is_begun"), [("cut_before", False), ("dead_in_stream", False), ("cut", True)]
)
async def test_a_request_that_an_engine_failed_is_in_the_log(
    behaviour: str, is_begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Under the id that the router gave it."""
    async with running_site(count=1) as site:
        with suppress(httpx.TransportError):
            await site.post(behaviour, **{"x-request-id": "lost"})
        await site.settled()
    [line] = [vars(one) for one in caplog.records if vars(one).get("request_id") == "lost"]
    assert (line["path"], line["instance"], line["is_begun"]) == (CHAT, "i0", is_begun)


async def test_an_engine_that_is_gone_costs_one_try() -> None:
    """The request is answered by the other instance."""
    async with running_site() as site:
        await site.engine(0).server.stop(0)
        for _ in range(3):
            answer = await site.post("json")
            assert answer.headers["x-heron-instance"] == "i1"
        await site.settled()


async def test_an_engine_that_takes_no_connection_costs_one_try() -> None:
    """Connect time-out: another instance, and 502 where there is none."""
    with FullListener() as nowhere:
        for count, status in ((2, 200), (1, 502)):
            async with running_site(count=count) as site:
                site.upstream.connect_timeout_seconds = 0.2
                site.admission.instances[0].origin = Origin.parse(nowhere.url)
                answers = [await site.post("json") for _ in range(3)]
                assert {answer.status_code for answer in answers} == {status}
                assert site.engine(0).seen == []
                await site.settled()


async def test_a_router_that_does_not_read_stops_the_engine() -> None:
    """What it has not taken is not asked of the engine; once it reads, it gets all."""
    async with running_site(count=1) as site:
        engine = site.engine(0)
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        link.setblocking(False)
        port = int(site.url.rpartition(":")[2])
        await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=link, limit=65_536)
        writer.write(
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\nx-behaviour: flood\r\n"
            "content-length: 2\r\n\r\n{}".encode()
        )
        await until(lambda: engine.flooded, what="it has begun")
        written, looks = 0, 0
        while looks < 100:  # so often nothing more was taken
            await asyncio.sleep(0.005)
            looks = looks + 1 if engine.flooded == written else 0
            written = engine.flooded
        assert written < FLOOD_EVENTS // 2
        got, tail = 0, b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(1 << 20)
            assert piece, tail
            got += piece.count(b"x")
            tail = (tail + piece)[-16:]
        assert got >= FLOOD_EVENTS * FLOOD_EVENT.count(b"x")
        writer.close()
        await site.settled()
        assert site.outcomes == {"completed": 1}


async def test_an_engine_that_dies_in_mid_stream_cuts_the_connection() -> None:
    """Without the final chunk: the router sees a break, not an end."""
    async with running_site() as site:
        with pytest.raises(httpx.RemoteProtocolError):
            await site.post("cut")
        await site.settled()
        assert site.outcomes == {"broken": 1}


async def test_a_request_is_unanswered_until_its_first_byte() -> None:
    """An engine that never gives one hangs (`site_agent.progress`)."""
    async with running_site(count=1) as site:
        task = asyncio.create_task(site.post("silent"))
        await until(lambda: site.admission.unanswered("i0") == 1)
        held = await hold(site, 1)
        assert site.admission.unanswered("i0") == 1, "the other one's first event has come"
        await finish(site, held)
        await task
        assert site.admission.unanswered("i0") == 0
        await site.settled()


async def test_broken_off_streams_end_without_a_final_chunk_and_at_once() -> None:
    """The power has gone; the engine's connection is cut too."""
    async with running_site(count=1) as site:
        held = await hold(site, 2)
        assert site.admission.break_streams("i0") == 2
        for response in held:
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
        await site.settled()
        assert site.outcomes == {"broken": 2}
        assert site.engine(0).cancelled == 2


async def test_a_request_without_a_byte_yet_moves_on_when_its_instance_is_stopped() -> None:
    """Nothing has reached the router, so the other instance takes it."""
    async with running_site() as site:
        task = asyncio.create_task(site.post("silent"))
        await until(lambda: sum(engine.running for engine in site.engines.engines.values()) == 1)
        index = next(index for index in range(2) if site.engine(index).running)
        assert [site.admission.unanswered(one) for one in ("i0", "i1")] == [1 - index, index]
        site.pool.drain(f"i{index}")
        site.admission.break_streams(f"i{index}")
        await until(lambda: site.engine(1 - index).running == 1, what="the other instance has it")
        release(site)
        assert (await task).headers["x-heron-instance"] == f"i{1 - index}"
        await site.settled()
        assert site.outcomes == {"completed": 1}


async def test_a_request_without_a_byte_yet_is_pushed_back_when_the_site_goes_dark() -> None:
    """The router tries the next site, and says nothing to the client."""
    async with running_site(count=1) as site:
        task = asyncio.create_task(site.post("silent"))
        await until(lambda: site.engine(0).running == 1)
        site.pool.drain("i0")
        site.admission.slots.is_short_of_power = True
        site.admission.break_streams("i0")
        answer = await task
        assert answer.status_code == 503
        assert answer.headers["x-heron-pushback"] == "draining"
        await site.settled()


async def test_a_dark_site_says_that_it_lacks_power() -> None:
    """And not that it is full."""
    async with running_site(count=1) as site:
        site.pool.stop("i0")
        await until(lambda: site.pool["i0"].state is InstanceState.STOPPED)
        site.admission.slots.is_short_of_power = True
        answer = await site.post("json")
        assert answer.headers["x-heron-pushback"] == "power"
        assert answer.headers["x-heron-headroom"] == "0"


async def test_a_site_that_shuts_down_says_draining() -> None:
    """Even while its engines are ready."""
    async with running_site() as site:
        site.admission.shut()
        assert (await site.post("json")).headers["x-heron-pushback"] == "draining"


@pytest.mark.parametrize("behaviour", ["hold", "silent", "keep_alive"])
async def test_when_the_client_goes_the_engine_stops(behaviour: str) -> None:
    """Streaming or not, before and after the first byte."""
    async with running_site(count=1) as site:
        task = asyncio.create_task(site.post(behaviour))
        await until(lambda: site.engine(0).running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await site.settled()
        assert site.engine(0).cancelled == 1
        assert site.outcomes == {"client_cancelled": 1}


async def test_an_engine_that_is_silent_times_out() -> None:
    """504, and no other instance is tried: the time is used up."""
    async with running_site(timeout_seconds=0.2) as site:
        answer = await site.post("silent")
        assert answer.status_code == 504
        await site.settled()
        assert sum(len(engine.seen) for engine in site.engines.engines.values()) == 1


@pytest.mark.parametrize("deadline", ["0.2", "nan", "-1", "soon"])
async def test_the_routers_deadline_shortens_the_wait(deadline: str) -> None:
    """And nonsense in its place does not."""
    async with running_site(timeout_seconds=0.5) as site:
        answer = await site.post("silent", **{"x-heron-deadline-seconds": deadline})
        assert answer.status_code == 504
        assert ("within 0.2 s" in answer.json()["error"]["message"]) == (deadline == "0.2")
        await site.settled()


async def test_a_body_over_the_limit_is_refused() -> None:
    """413 in OpenAI's shape."""
    async with running_site() as site:
        answer = await site.client.post(CHAT, content=b"x" * (2 << 20))
        assert answer.status_code == 413
        assert orjson.loads(answer.content)["error"]["code"] == "request_too_large"
        await site.settled()


async def test_an_answer_over_the_limit_is_an_engine_error() -> None:
    """Memory stays bounded, whatever an engine sends; asking another one would not help."""
    async with running_site() as site:
        answer = await site.post("large")
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "answer_too_large"
        assert sum(len(engine.seen) for engine in site.engines.engines.values()) == 1
        await site.settled()


RESPONSES = "/v1/responses"
HELD = {"x-behaviour": "responses"}


async def create(site: Site, **fields: object) -> httpx.Response:
    return await site.client.post(RESPONSES, json={"model": "m", **fields}, headers=HELD)


def asked(site: Site) -> dict[str, int]:
    return {name: len(engine.seen) for name, engine in site.engines.engines.items()}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_read_at_the_engine_that_holds_it(stream: bool) -> None:
    """Reading takes no slot and asks no other; also when it was streamed, and on a full site."""
    async with running_site(count=3, max_concurrency=1) as site:
        answer = await create(site, stream=stream)
        home = answer.headers["x-heron-instance"]
        [response_id] = site.engines.engines[home].held
        held = await hold(site, 3)
        before = asked(site)
        for method, path in (("GET", ""), ("POST", "/cancel")):
            read = await site.client.request(method, f"{RESPONSES}/{response_id}{path}", headers=HELD)
            assert (read.status_code, read.headers["x-heron-instance"]) == (200, home)
        assert asked(site) == before | {home: before[home] + 2}
        await finish(site, held)


async def test_a_response_that_no_engine_holds_is_a_404() -> None:
    """After all were asked; and 405 for what cannot be done to one."""
    async with running_site(count=3) as site:
        answer = await site.client.get(f"{RESPONSES}/resp_nobody", headers=HELD)
        assert (answer.status_code, answer.json()["error"]["param"]) == (404, "response_id")
        assert asked(site) == {"i0": 1, "i1": 1, "i2": 1}
        assert (await site.client.delete(f"{RESPONSES}/resp_nobody")).status_code == 405
        async with httpx.AsyncClient(base_url=site.url) as stranger:
            assert (await stranger.get(f"{RESPONSES}/resp_nobody")).status_code == 401
        await site.settled()


async def test_an_engine_that_stops_while_another_is_asked_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no address any more; the answer is what the others say."""
    async with running_site(count=2) as site:
        attempt = Forwarder.attempt

        async def then_stop(self: Forwarder, *arguments: Any, **values: Any) -> Any:
            result = await attempt(self, *arguments, **values)
            site.pool["i1"].is_stopping = True
            return result

        monkeypatch.setattr(Forwarder, "attempt", then_stop)
        answer = await site.client.get(f"{RESPONSES}/resp_nobody", headers=HELD)
        assert answer.status_code == 404
        assert asked(site) == {"i0": 1, "i1": 0}
        site.pool["i1"].is_stopping = False
        await site.settled()


async def test_a_conversation_stays_at_its_engine() -> None:
    """Which is needed, not preferred: where it is full, the site pushes back."""
    async with running_site(count=3, max_concurrency=1) as site:
        first = await create(site)
        home, response_id = first.headers["x-heron-instance"], first.json()["id"]
        for _ in range(4):
            more = await create(site, previous_response_id=response_id)
            assert (more.status_code, more.headers["x-heron-instance"]) == (200, home)
        held = await hold(site, 3)
        refused = await create(site, previous_response_id=response_id)
        assert (refused.status_code, refused.headers["x-heron-pushback"]) == (503, "capacity")
        await finish(site, held)


async def test_a_conversation_that_is_not_remembered_is_looked_for() -> None:
    """A new agent knows no ids: engines are asked until one has it; 404 when all were."""
    async with running_site(count=3) as site:
        site.engine(2).held.append("resp_old")
        more = await create(site, previous_response_id="resp_old")
        assert (more.status_code, more.headers["x-heron-instance"]) == (200, "i2")
        missing = await create(site, previous_response_id="resp_nobody")
        assert missing.status_code == 404
        assert missing.json()["error"]["message"] == "not found"
        await site.settled()
        assert site.outcomes == {"completed": 1, "client_error": 1}


async def test_a_full_engine_may_hold_what_the_others_do_not() -> None:
    """So that is no 404: the site cannot say now."""
    async with running_site(count=2, max_concurrency=1) as site:
        held = await hold(site, 1)
        answer = await create(site, previous_response_id="resp_nobody")
        assert (answer.status_code, answer.headers["x-heron-pushback"]) == (503, "capacity")
        await finish(site, held)


async def test_a_compressed_body_is_refused() -> None:
    """The router undoes them; an engine would take it for a broken one."""
    async with running_site() as site:
        answer = await site.client.post(CHAT, content=b"x", headers={"content-encoding": "gzip"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_content_encoding")
        assert asked(site) == {"i0": 0, "i1": 0}
