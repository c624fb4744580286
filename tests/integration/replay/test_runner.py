"""replay against a server on a real socket that misbehaves as told: each end gets its right name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from support.openai_stub import serving
from support.wait import until

from replay.client import ClientLimits, Endpoint
from replay.outcome import OUTCOMES
from replay.progress import Progress
from replay.prompts import PromptSource, TokenIdPrompts, WordPrompts
from replay.results import Results, Slo
from replay.runner import ReplayPlan, run
from replay.schedule import ScheduledRequest

SHORT = ClientLimits(
    connect_timeout_seconds=2.0,
    first_byte_timeout_seconds=0.3,
    stall_timeout_seconds=0.3,
    request_timeout_seconds=20.0,
)


def requests(count: int = 1, **values: Any) -> list[ScheduledRequest]:
    defaults: dict[str, Any] = {"due_seconds": 0.0, "prompt_tokens": 9, "output_tokens": 6}
    return [ScheduledRequest(index=index, **{**defaults, **values}) for index in range(count)]


def plan(items: Iterable[ScheduledRequest], prompts: PromptSource | None = None, **values: Any) -> ReplayPlan:
    return ReplayPlan(requests=items, prompts=prompts or WordPrompts("m"), **{"is_verifying": True, **values})


async def replay_one(behaviour: str, **values: Any) -> Results:
    async with serving(lambda _: behaviour) as stub:
        return await run(plan(requests(), **values), stub.url)


def only(results: Results) -> str:
    """The one outcome there is."""
    found = [name for name in OUTCOMES if results.outcomes[name]]
    assert len(found) == 1
    assert results.requests == results.sent
    return found[0]


@pytest.mark.parametrize("behaviour", ["complete", "bytewise", "commented", "windows", "cut_after_done"])
async def test_whole_answers_complete(behaviour: str) -> None:
    """However the bytes come; every word is right and counted."""
    results = await replay_one(behaviour)
    assert only(results) == "completed"
    assert (results.corrupted, results.corruptions) == (0, [])
    assert (results.prompt_tokens, results.output_tokens, results.streamed_token_events) == (9, 6, 6)
    assert (results.ttft.count, results.itl.count, results.e2e.count) == (1, 5, 1)
    assert results.sites["north"].completed == 1


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [
        ("status_503", "shed", "HTTP 503 c503"),
        ("status_429", "shed", "HTTP 429 c429"),
        ("overloaded", "shed", "first event is error 503"),
        ("status_400", "failed", "HTTP 400 c400"),
        ("status_500", "failed", "HTTP 500 c500"),
        ("failed_first", "failed", "first event is error invalid_request"),
        ("broken", "broken", "stream error power_lost"),
        ("broken_before_text", "broken", "stream error power_lost"),
        ("engine_died", "broken", "stream error 500"),
        ("cut", "lost", "connection: closed"),
        ("cut_in_event", "lost", "connection: closed"),
        ("cut_before_head", "lost", "connection: closed"),
        ("truncated", "lost", "ended without finish_reason"),
        ("without_finish", "lost", "ended without finish_reason"),
        ("without_done", "lost", "ended without [DONE]"),
        ("abort", "lost", "finish_reason abort"),
    ],
)
async def test_each_end_has_its_name(behaviour: str, outcome: str, reason: str) -> None:
    """And its reason; what had arrived before it was right."""
    results = await replay_one(behaviour)
    assert only(results) == outcome
    assert dict(results.reasons) == {f"{outcome}: {reason}": 1}
    assert results.corrupted == 0


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("hang", "connection: first_byte_timeout"), ("stalled", "no byte within the stall time-out")],
)
async def test_silence_is_lost(behaviour: str, reason: str) -> None:
    """Before the first byte and after it; the connection is closed."""
    async with serving(lambda _: behaviour) as stub:
        results = await run(plan(requests(), limits=SHORT), stub.url)
        await until(lambda: stub.clients_gone == 1)
    assert only(results) == "lost"
    assert list(results.reasons) == [f"lost: {reason}"]


async def test_the_whole_request_has_a_time_out() -> None:
    """A server that keeps saying something does not hold a request for ever."""
    limits = ClientLimits(request_timeout_seconds=0.3)
    results = await replay_one("hang", limits=limits)
    assert list(results.reasons) == ["lost: request time-out"]


async def test_nobody_listening_is_a_failure() -> None:
    """What was never accepted cannot be lost."""
    async with serving(lambda _: "complete") as stub:
        url = stub.url
    results = await run(plan(requests(3)), url)
    assert only(results) == "failed"
    assert list(results.reasons) == ["failed: connection: connect"]


@pytest.mark.parametrize("behaviour", ["token_lost", "token_repeated", "token_foreign", "text_after_done"])
async def test_wrong_tokens_are_corruption(behaviour: str) -> None:
    """A lost, repeated, foreign or late token fails the run, whatever the answer's end says."""
    results = await replay_one(behaviour)
    assert results.corrupted == 1
    assert results.corruptions != []


@pytest.mark.parametrize("behaviour", ["wrong_usage", "garbage"])
async def test_wrong_counts_and_garbage_are_corruption(behaviour: str) -> None:
    """Also where the words are not checked."""
    results = await replay_one(behaviour, is_verifying=False)
    assert only(results) == "completed"
    assert results.corrupted == 1


async def test_other_engines_count_tokens_their_own_way() -> None:
    """Against a real model a word is not a token: nothing is held against the usage."""
    results = await replay_one("wrong_usage", prompts=WordPrompts("m", is_exact=False), is_verifying=False)
    assert results.corrupted == 0


async def test_token_id_prompts() -> None:
    """Completions with ids, exact both ways."""
    async with serving(lambda _: "complete") as stub:
        source = TokenIdPrompts("m", vocabulary_size=2048)
        results = await run(plan(requests(4), source), stub.url + "/v1")
    assert only(results) == "completed"
    assert (results.prompt_tokens, results.output_tokens, results.corrupted) == (36, 24, 0)
    assert stub.paths == ["/v1/completions"] * 4


async def test_whole_answers_without_streaming() -> None:
    """Verified just the same."""
    results = await replay_one("complete", stream=False)
    assert only(results) == "completed"
    assert (results.prompt_tokens, results.output_tokens, results.corrupted) == (9, 6, 0)


async def test_the_api_key_is_sent() -> None:
    """As OpenAI clients do."""
    async with serving(lambda _: "complete") as stub:
        await run(plan(requests(), api_key="k-1"), stub.url)
    assert stub.headers[0]["authorization"] == "bearer k-1"


async def test_clients_that_leave() -> None:
    """Before the first byte and in mid-stream; the connection is closed at once, nothing is lost."""
    items = [
        *requests(1, cancel_after_seconds=0.02),
        *requests(1, cancel_after_seconds=0.02, output_tokens=7),
    ]
    async with serving(lambda body: "stalled" if body["max_tokens"] == 7 else "hang") as stub:
        results = await run(plan(items), stub.url)
        await until(lambda: stub.clients_gone == 2)
    assert only(results) == "client_cancelled"
    assert list(results.reasons) == ["client_cancelled: left as scheduled"]
    assert results.corrupted == 0


async def test_an_answer_before_the_client_leaves_completes() -> None:
    """The schedule's cancel is for those who still wait."""
    async with serving(lambda _: "complete") as stub:
        results = await run(plan(requests(1, cancel_after_seconds=30.0)), stub.url)
    assert only(results) == "completed"


async def test_a_mixed_run_adds_up() -> None:
    """Every class at once, over pooled connections: exact counts, and the sums of the completed ones."""
    ways = {1: "complete", 2: "status_503", 3: "broken", 4: "status_400", 5: "cut", 6: "stalled"}
    items = [
        ScheduledRequest(
            index=index,
            due_seconds=index * 0.002,
            prompt_tokens=10 + index,
            output_tokens=index % 6 + 1,
            cancel_after_seconds=0.05 if index % 6 == 5 else None,
        )
        for index in range(60)
    ]
    async with serving(lambda body: ways[body["max_tokens"]]) as stub:
        slo = Slo(prefill_tokens_per_second=1.0, itl_seconds=10.0)
        results = await run(plan(items, slo=slo), stub.url)
    assert results.outcomes == {
        "completed": 10,
        "shed": 10,
        "client_cancelled": 10,
        "broken": 10,
        "failed": 10,
        "lost": 10,
    }
    completed = [item for item in items if item.output_tokens == 1]
    assert results.prompt_tokens == sum(item.prompt_tokens for item in completed)
    assert results.output_tokens == results.wanted_output_tokens == 10
    assert (results.sent, results.unsent, results.corrupted, results.good) == (60, 0, 0, 10)


async def test_the_cap_on_requests_in_flight() -> None:
    """What is due beyond it is not sent and not delayed, but counted."""
    async with serving(lambda _: "hang") as stub:
        results = await run(plan(requests(7), max_in_flight=3, limits=SHORT), stub.url)
    assert (results.sent, results.unsent, results.requests) == (3, 4, 3)


async def test_late_sends_are_counted() -> None:
    """A generator that is slow makes the next request late; the run says so and how much."""

    def slow() -> Iterable[ScheduledRequest]:
        yield requests()[0]
        late = requests(1, due_seconds=-0.5)[0]
        yield late

    async with serving(lambda _: "complete") as stub:
        results = await run(plan(slow()), stub.url)
    assert results.late_sends == 1
    assert results.max_lateness_seconds >= 0.5
    assert only(results) == "completed"


async def test_the_grace_after_the_last_send() -> None:
    """What has not ended by then is lost, and says why."""
    results = await replay_one("stalled", grace_seconds=0.2)
    assert list(results.reasons) == ["lost: no end within the grace period"]


async def test_stopping_early() -> None:
    """No more is sent; what is in flight counts as cancelled by its client."""
    stop = asyncio.Event()
    items = [*requests(2), ScheduledRequest(index=2, due_seconds=3600, prompt_tokens=1, output_tokens=1)]
    async with serving(lambda _: "hang") as stub:
        task = asyncio.create_task(run(plan(items), stub.url, stop=stop))
        await until(lambda: stub.behaviours["hang"] == 2)
        stop.set()
        results = await task
        await until(lambda: stub.clients_gone == 2)
    assert results.sent == 2
    assert only(results) == "client_cancelled"


async def test_a_cancelled_run_leaves_nothing() -> None:
    """Its connections are closed."""
    async with serving(lambda _: "hang") as stub:
        task = asyncio.create_task(run(plan(requests(2)), stub.url))
        await until(lambda: stub.behaviours["hang"] == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: stub.clients_gone == 2)
    assert task.cancelled()


async def test_progress_is_shown_and_ends_with_the_final_counts() -> None:
    """At least once in the run and once at its end."""
    seen: list[Progress] = []
    items = [*requests(), *requests(1, due_seconds=0.2)]
    async with serving(lambda _: "complete") as stub:
        await run(plan(items), stub.url, on_progress=seen.append, progress_seconds=0.02)
    assert len(seen) >= 2
    assert (seen[-1].sent, seen[-1].in_flight, seen[-1].outcomes["completed"]) == (2, 0, 2)


async def test_a_fault_in_the_view_ends_the_run() -> None:
    """It is raised, not swallowed."""

    def broken(_: Progress) -> None:
        raise ZeroDivisionError("the view")

    async with serving(lambda _: "hang") as stub:
        with pytest.raises(ZeroDivisionError, match="the view"):
            await run(plan(requests()), stub.url, on_progress=broken, progress_seconds=0.02)


async def test_an_empty_plan() -> None:
    """Nothing to send is nothing sent."""
    async with serving(lambda _: "complete") as stub:
        results = await run(plan([]), stub.url)
    assert (results.requests, results.sent) == (0, 0)


@pytest.mark.parametrize(
    ("url", "origin", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000", "/v1"),
        ("https://api.example/openai/v1", "https://api.example", "/openai/v1"),
    ],
)
def test_base_urls(url: str, origin: str, root: str) -> None:
    """As OpenAI clients take them; without a path /v1 is meant."""
    endpoint = Endpoint.parse(url)
    assert (str(endpoint.origin), endpoint.root) == (origin, root)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://h/v1", "http://", "http://h/v 1", "http://h/v1?x=1"]
)
def test_base_urls_that_cannot_be(url: str) -> None:
    """Refused with the reason."""
    with pytest.raises(ValueError, match=r"must|only|no host"):
        Endpoint.parse(url)
