"""OpenTelemetry spans of the router, sent by the real SDK and exporter to an OTLP receiver."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.otlp_receiver import OtlpReceiver, Seen, otlp_receiver
from support.recorded_site import RecordedSite
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import Behaviour, StubSite, stop_after
from support.wait import until

from router.live.tracing import spans_of

TRACE, PARENT = "a" * 32, "b" * 16
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "x=1", "x-request-id": "my-id"}


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OtlpReceiver]:
    """Asked for by the environment, and sent to without delay."""
    async with otlp_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield receiver


async def only_root(collector: OtlpReceiver) -> Seen:
    await until(lambda: bool(collector.roots()), what="the request's span")
    [root] = collector.roots()
    return root


def asked_with(fleet: RouterFleet, site_id: str) -> str:
    """The trace context that a site got last."""
    site = fleet.site(site_id)
    assert isinstance(site, RecordedSite)
    return str(site.asked[-1].headers["traceparent"])


async def test_a_request_and_its_attempt_are_spans_of_the_clients_trace(store: Any, collector: OtlpReceiver):
    """The site is told its own span as the parent; names, times and attributes say what happened."""
    async with router_fleet(store, "a", make_site=RecordedSite) as fleet:
        for _ in range(2):  # the second on a pooled connection, where callbacks do it all
            response = await fleet.post(chat(model="tiny"), headers=SENT)
            assert response.status_code == 200
        await until(lambda: len(collector.roots()) == 2, what="two requests' spans")
        for root in collector.roots():
            [attempt] = collector.parts_of(root)
            assert (root.name, root.kind, root.service) == ("chat tiny", "SERVER", "heron-router")
            assert (root.trace_id, root.parent_id) == (TRACE, PARENT)
            assert root.start_ns <= attempt.start_ns <= attempt.end_ns <= root.end_ns
            assert not root.is_error
            assert root.about["heron.request_id"] == "my-id"
            assert root.about["heron.outcome"] == "completed"
            assert root.about["heron.site_id"] == attempt.about["heron.site_id"] == "a"
            assert root.about["http.response.status_code"] == 200
            assert root.about["gen_ai.request.model"] == "tiny"
            assert root.about["gen_ai.usage.output_tokens"] > 0
            assert (attempt.name, attempt.kind, attempt.trace_id) == ("site a", "CLIENT", TRACE)
        assert asked_with(fleet, "a") == f"00-{TRACE}-{attempt.span_id}-01"
        site = fleet.site("a")
        assert isinstance(site, RecordedSite)
        assert site.asked[-1].headers["tracestate"] == "x=1"


async def test_a_stream_that_went_on_elsewhere_shows_both_sites(store: Any, collector: OtlpReceiver):
    """The part that broke is an error, the whole is none."""
    async with router_fleet(store, "a", "b") as fleet:
        fleet.sites[0].script.append(stop_after(5, "cut"))
        fleet.sites[1].script = fleet.sites[0].script
        status, _ = await fleet.stream(chat(stream=True))
        assert status == 200
        root = await only_root(collector)
        await fleet.settled(completed=1)
    attempts = [part for part in collector.parts_of(root) if part.name.startswith("site ")]
    assert [part.about["heron.is_resume"] for part in attempts] == [False] + [True] * (len(attempts) - 1)
    assert {part.name for part in attempts} == {"site a", "site b"}
    [asked] = [part for part in collector.parts_of(root) if part.name == "ask /detokenize"]
    assert attempts[0].end_ns <= asked.start_ns <= asked.end_ns <= attempts[1].start_ns
    assert [part.is_error for part in attempts] == [True] + [False] * (len(attempts) - 1)
    assert attempts[0].about["heron.verdict"] == "broken_stream"
    assert (root.about["heron.outcome"], root.about["heron.resumes"]) == ("completed", 1)
    assert not root.is_error
    assert root.events == ["first token"]
    assert 0 < root.about["gen_ai.latency.time_to_first_token"] < (root.end_ns - root.start_ns) / 1e9


async def test_what_the_new_site_was_asked_about_ids_is_below_its_attempt(
    store: Any, collector: OtlpReceiver
):
    """By path and status; an error where it could not say."""
    tools = [{"type": "function", "function": {"name": "write"}}]
    async with router_fleet(store, "a", "b", make_site=lambda name: StubSite(name, parses_ids=True)) as fleet:
        fleet.sites[0].script.append(stop_after(25, "cut"))
        fleet.sites[1].script = fleet.sites[0].script
        for site in fleet.sites:
            site.derender_statuses.append(500)
        await fleet.stream(chat(stream=True, tools=tools, max_tokens=60))
        root = await only_root(collector)
    for attempt in [part for part in collector.parts_of(root) if part.about.get("heron.is_resume")]:
        asked = collector.parts_of(attempt)
        assert {one.name for one in asked} <= {"ask /v1/chat/completions/derender"}
        assert {one.about["heron.site_id"] for one in asked} <= {attempt.about["heron.site_id"]}
    asked = [span for span in collector.spans if span.name.startswith("ask ")]
    ends = {(one.kind, one.about["http.response.status_code"], one.is_error) for one in asked}
    assert ends == {("CLIENT", 500, True), ("CLIENT", 200, False)}


async def test_waiting_and_a_refusal_are_seen(store: Any, collector: OtlpReceiver):
    """No room: a span of the wait, and an error that names its kind."""
    async with router_fleet(store, "a", hold_seconds=0.2) as fleet:
        await fleet.set_state("a", "dark")
        response = await fleet.post(chat())
        assert response.status_code == 503
        root = await only_root(collector)
    [wait] = collector.parts_of(root)
    assert (wait.name, wait.kind) == ("wait for room", "INTERNAL")
    assert (wait.end_ns - wait.start_ns) / 1e9 >= 0.15
    assert root.is_error
    assert root.about["error.type"] == root.about["heron.outcome"] == "shed"
    assert root.about["http.response.status_code"] == 503


async def test_failed_attempts_and_clients_mistakes(store: Any, collector: OtlpReceiver):
    """A site that failed is an error of that attempt alone; a client's mistake is none."""
    async with router_fleet(store, "a", "b") as fleet:
        for site in fleet.sites:
            site.script = fleet.sites[0].script
        fleet.sites[0].script.append(Behaviour(status=500))
        assert (await fleet.post(chat())).status_code == 200
        assert (await fleet.post(b"{")).status_code == 400
        await until(lambda: len(collector.roots()) == 2, what="two requests' spans")
    good, wrong = sorted(collector.roots(), key=lambda span: span.start_ns)
    failed, answered = collector.parts_of(good)
    assert (failed.about["heron.verdict"], failed.is_error, answered.is_error) == ("failed", True, False)
    assert (good.about["heron.retries"], good.is_error) == (1, False)
    assert (wrong.about["heron.outcome"], wrong.is_error) == ("client_error", False)
    assert collector.parts_of(wrong) == []


async def test_a_client_that_leaves(store: Any, collector: OtlpReceiver):
    """Its spans end with it, as no error."""
    async with router_fleet(store, "a") as fleet:
        fleet.sites[0].script.append(Behaviour(hang=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await fleet.post(chat())
        root = await only_root(collector)
        await fleet.settled(client_cancelled=1)
    [attempt] = collector.parts_of(root)
    assert (root.about["heron.outcome"], root.is_error) == ("client_cancelled", False)
    assert (attempt.about["heron.verdict"], attempt.is_error) == ("client_cancelled", False)


async def test_a_trace_that_is_not_sampled_costs_no_span(store: Any, collector: OtlpReceiver):
    """The client's decision holds at the site too, and nothing is sent."""
    async with router_fleet(store, "a", make_site=RecordedSite) as fleet:
        quiet = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert (await fleet.post(chat(model="tiny"), headers=quiet)).status_code == 200
        assert asked_with(fleet, "a").startswith(f"00-{TRACE}-")
        assert asked_with(fleet, "a").endswith("-00")
        assert (await fleet.post(chat(model="tiny"))).status_code == 200
        root = await only_root(collector)
    assert root.trace_id != TRACE
    assert root.parent_id == ""


async def test_a_trace_context_that_is_none_begins_a_new_trace(store: Any, collector: OtlpReceiver):
    """Nothing of it reaches the site."""
    async with router_fleet(store, "a", make_site=RecordedSite) as fleet:
        bad = {"traceparent": "00-nonsense", "tracestate": "x" * 600}
        assert (await fleet.post(chat(model="tiny"), headers=bad)).status_code == 200
        root = await only_root(collector)
        site = fleet.site("a")
        assert isinstance(site, RecordedSite)
        assert "nonsense" not in site.asked[-1].headers["traceparent"]
        assert "tracestate" not in site.asked[-1].headers
    assert root.parent_id == ""


async def test_the_access_log_names_the_trace(store: Any, collector: OtlpReceiver, caplog: Any):
    """So that a line leads to its trace, also where the client sent none."""
    async with router_fleet(store, "a", access_log=True) as fleet:
        await fleet.post(chat())
        root = await only_root(collector)
    [line] = [vars(record) for record in caplog.records if record.name == "heron.access"]
    assert line["traceparent"].startswith(f"00-{root.trace_id}-{root.span_id}-")


async def test_a_collector_that_is_gone_costs_no_request(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
):
    """Requests go on, the router stops in time (the SDK alone takes 15 s), and the log says what happened."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with asyncio.timeout(10):
        async with router_fleet(store, "a") as fleet:
            for _ in range(20):
                assert (await fleet.post(chat())).status_code == 200
            await fleet.settled(completed=20)
    assert any("export" in record.getMessage().lower() for record in caplog.records)


def test_what_the_environment_may_ask_for(monkeypatch: pytest.MonkeyPatch, caplog: Any):
    """Nothing without an endpoint; what cannot be done is said, and the router goes on without spans."""
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}

    def asked(**more: str) -> Any:
        return spans_of(endpoint | more, lambda: 0.0)

    assert spans_of({}, lambda: 0.0) is None
    assert asked(OTEL_SDK_DISABLED="true") is None
    assert asked(OTEL_TRACES_EXPORTER="none") is None
    assert caplog.records == []
    assert asked(OTEL_EXPORTER_OTLP_PROTOCOL="grpc") is None
    assert "http/protobuf" in caplog.text
    caplog.clear()
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING):
        assert asked() is None
    assert "heron-router[tracing]" in caplog.text


async def test_neither_prompts_nor_answers_nor_secrets_are_in_spans(store: Any, collector: OtlpReceiver):
    """A trace store is open to more people than the conversations are."""
    body = chat(model="tiny", messages=[{"role": "user", "content": "PRIVATE prompt"}], user="PRIVATE user")
    async with router_fleet(store, "a", make_site=RecordedSite) as fleet:
        response = await fleet.post(body, headers={"authorization": "Bearer PRIVATE", "cookie": "PRIVATE=1"})
        answer = response.json()["choices"][0]["message"]["content"]
        await only_root(collector)
    said = repr(collector.spans)
    assert answer
    assert "tiny" in said
    assert answer not in said
    assert "PRIVATE" not in said
