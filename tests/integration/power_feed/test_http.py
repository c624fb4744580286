"""The feed's surface over real sockets, with a store that is away all the time: no stream waits for it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.wait import until, until_it_says

from fleet.config import ConfigError
from fleet.records import PowerReading
from fleet.store import StoreError
from gateway.sse import EventSplitter, data_of
from power_feed.app import FeedService
from power_feed.config import FeedConfig


class AwayStore:
    """Answers nothing, ever."""

    async def power_readings(self, _site_ids: object) -> list[bytes | None]:
        raise StoreError("no store here")

    async def site_reports(self, _site_ids: object) -> list[bytes | None]:
        raise StoreError("no store here")

    async def power_log(self, _site_id: str, _count: int) -> list[bytes]:
        raise StoreError("no store here")

    async def publish_power_reading(self, _site_id: str, _record: bytes, *, log: bool) -> None:
        raise StoreError("no store here")


def config(source: dict[str, Any], **keys: Any) -> FeedConfig:
    farms = [
        {"farm_id": f"{site}-farm", "site_id": site, "nameplate_watts": 1000.0, "source": source}
        for site in ("north", "coast")
    ]
    return FeedConfig.model_validate({"port": 0, "interval_seconds": 0.05, "farms": farms, **keys})


STEADY = {"kind": "schedule", "points": [[0, 0.5]]}


class Feeds:
    """Starts feeds for a test and stops them after it."""

    def __init__(self) -> None:
        self.services: list[FeedService] = []

    async def start(self, config: FeedConfig) -> tuple[FeedService, str]:
        service = FeedService(config, AwayStore())  # type: ignore[arg-type]
        self.services.append(service)
        await service.start()
        return service, f"http://127.0.0.1:{service.port}"


@pytest.fixture
async def feeds() -> AsyncIterator[Feeds]:
    subject = Feeds()
    yield subject
    for service in subject.services:
        await service.stop()


async def readings(response: httpx.Response) -> AsyncIterator[PowerReading]:
    """A stream's readings, each checked as any reader would."""
    splitter = EventSplitter()
    async for data in response.aiter_raw():
        for event in splitter.feed(data):
            payload = data_of(event)
            if payload is not None:
                yield PowerReading.from_json(payload)


async def first(url: str, count: int) -> list[PowerReading]:
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        found = []
        async for reading in readings(response):
            found.append(reading)
            if len(found) == count:
                break
        return found


async def test_a_stream_carries_a_reading_each_interval_with_growing_sequence(feeds: Feeds) -> None:
    """The site's own readings, one writer, each sequence above the last, without any store."""
    _, url = await feeds.start(config(STEADY))
    found = await first(f"{url}/v1/power/north/stream", 5)
    assert {reading.site_id for reading in found} == {"north"}
    assert len({reading.writer_id for reading in found}) == 1
    sequences = [reading.sequence for reading in found]
    assert sequences == sorted(set(sequences))
    assert all(reading.granted_power_watts == 500.0 for reading in found)
    assert found[0].quality == "good"


async def test_two_feeds_are_two_writers(feeds: Feeds) -> None:
    """Writer ids are random per process start, whatever name is configured."""
    one, _ = await feeds.start(config(STEADY, feed_id="feed"))
    other, _ = await feeds.start(config(STEADY, feed_id="feed"))
    assert one.feed_id != other.feed_id
    assert one.feed_id.startswith("feed-")


async def test_a_change_is_sent_without_waiting_for_the_interval(feeds: Feeds) -> None:
    """Changes within a second of interval reach the stream in order, the last one with its own instant."""
    start = time.time() + 0.5
    points = [[0, 0.5]] + [[0.1 * step, 0.5 - 0.04 * step] for step in range(1, 11)]
    source = {"kind": "schedule", "points": points, "period_seconds": 3600}
    service, url = await feeds.start(config(source, interval_seconds=1.0, start_unix_seconds=start))
    found = []
    async with (
        httpx.AsyncClient() as client,
        client.stream("GET", f"{url}/v1/power/coast/stream") as response,
    ):
        async for reading in readings(response):
            found.append(reading)
            if reading.granted_power_watts == pytest.approx(100.0):
                break
    grants = [reading.granted_power_watts for reading in found]
    assert grants == sorted(grants, reverse=True)
    assert found[-1].observed_at_unix_seconds == pytest.approx(start + 1.0)
    assert service.start_unix_seconds == start


async def test_a_stream_of_anybody_elses_does_not_make_a_site_hear_its_grants(feeds: Feeds) -> None:
    """Two silent sites of one farm: an agent's stream is proof, a ride-through on, that no more is drawn than
    idle; an operator's says nothing of the site, which may draw its most for 10 T, here 100 s."""
    sites = [{"site_id": name, "server_idle_watts": 90.0, "max_site_watts": 760.0} for name in ("a", "b")]
    farm = {
        "farm_id": "farm",
        "nameplate_watts": 1000.0,
        "source": {**STEADY, "period_seconds": 10.0},
        "sites": sites,
    }
    of_agents = FeedConfig.model_validate({"port": 0, "interval_seconds": 0.05, "farms": [farm]})
    urls = [(await feeds.start(of_agents))[1] for _ in range(2)]

    async def grants(client: httpx.AsyncClient, url: str) -> list[float]:
        found = (await client.get(f"{url}/v1/power")).json()["readings"]
        return [reading["granted_power_watts"] for reading in found]

    async with AsyncExitStack() as streams:
        client = await streams.enter_async_context(httpx.AsyncClient(timeout=30))
        for url, header in zip(urls, ("1", "0"), strict=True):
            for name in ("a", "b"):
                path, headers = f"{url}/v1/power/{name}/stream", {"x-heron-site-agent": header}
                await streams.enter_async_context(client.stream("GET", path, headers=headers))

        async def is_shared_out() -> bool:
            return sum(await grants(client, urls[0])) > 0

        await until_it_says(is_shared_out, seconds=30, what="power for the sites whose agents listen")
        for name in ("a", "b"):
            found = await first(f"{urls[1]}/v1/power/{name}/stream", 20)
            assert [reading.granted_power_watts for reading in found] == 20 * [0.0]


async def test_many_streams_get_the_same_readings(feeds: Feeds) -> None:
    """Ten subscribers of a site and one of another, all served, all counted, all forgotten."""
    service, url = await feeds.start(config(STEADY))
    streams = [first(f"{url}/v1/power/north/stream", 3) for _ in range(10)]
    found = await asyncio.gather(*streams, first(f"{url}/v1/power/coast/stream", 3))
    assert all(len(part) == 3 for part in found)
    await until(
        lambda: not service.hub.subscribers("north") and not service.hub.subscribers("coast"),
        what="leaving streams are forgotten",
    )


async def test_a_client_that_does_not_read_blocks_nobody(feeds: Feeds) -> None:
    """The other stream goes on; the stalled one costs one reading."""
    _, url = await feeds.start(config(STEADY))
    port = int(url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v1/power/north/stream HTTP/1.1\r\nHost: feed\r\n\r\n")
    await writer.drain()
    assert len(await first(f"{url}/v1/power/north/stream", 20)) == 20
    writer.close()


async def test_the_latest_reading_can_be_asked_for(feeds: Feeds) -> None:
    """Of one site, or of all."""
    service, url = await feeds.start(config(STEADY))
    await until(lambda: service.hub.newest("coast"))
    async with httpx.AsyncClient(base_url=url) as client:
        one = await client.get("/v1/power/north")
        assert PowerReading.from_json(one.content).site_id == "north"
        everything = (await client.get("/v1/power")).json()["readings"]
        assert [reading["site_id"] for reading in everything] == ["north", "coast"]


async def test_an_unknown_site_is_a_404_that_names_the_known_ones(feeds: Feeds) -> None:
    """For the reading and for the stream."""
    _, url = await feeds.start(config(STEADY))
    async with httpx.AsyncClient(base_url=url) as client:
        for path in ("/v1/power/south", "/v1/power/south/stream"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "site_not_found"
            assert "north, coast" in answer.json()["error"]["message"]


async def test_without_any_measurement_it_is_healthy_and_not_ready(feeds: Feeds, tmp_path: Path) -> None:
    """Nothing is invented: 503 for the reading, silence on the stream, the reasons on /readyz."""
    path = tmp_path / "wind.csv"
    path.write_text("time,north\n0,\n3600,0.5\n")
    source = {"kind": "csv", "path": path, "column": "north"}
    service, url = await feeds.start(config(source))
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "nothing was measured for site north yet" in ready.json()["reasons"]
        reading = await client.get("/v1/power/north")
        assert reading.status_code == 503
        assert reading.json()["error"]["code"] == "no_measurement"
    assert service.hub.newest("north") is None


async def test_a_feed_with_readings_is_ready_without_its_store(feeds: Feeds) -> None:
    """Redis is the second path: its absence shows in a metric, not in readiness."""
    service, url = await feeds.start(config(STEADY))
    await until(lambda: service.hub.newest("coast"))
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/readyz")).status_code == 200
        page = (await client.get("/metrics")).text
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["heron_feed_redis_up",] == 0.0
    assert samples["heron_feed_redis_errors_total",] >= 1.0
    assert samples["heron_feed_granted_watts", "north"] == 500.0
    assert samples["heron_feed_quality", "good", "north"] == 1.0
    assert samples["heron_feed_subscribers", "north"] == 0.0
    assert 0.0 <= samples["heron_feed_source_age_seconds", "north"] <= 5.0


async def test_stopping_ends_the_streams_properly(feeds: Feeds) -> None:
    """A client sees the end of a whole answer, not a cut connection."""
    service, url = await feeds.start(config(STEADY))
    async with (
        httpx.AsyncClient() as client,
        client.stream("GET", f"{url}/v1/power/north/stream") as response,
    ):
        stream = readings(response)
        await anext(stream)
        await service.stop()
        rest = [reading async for reading in stream]
    assert len(rest) <= 5
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as client:
            await client.get(f"{url}/healthz")


async def test_a_port_in_use_is_an_error_at_start(feeds: Feeds) -> None:
    """With the address in the message."""
    taken, _ = await feeds.start(config(STEADY))
    second = FeedService(config(STEADY, port=taken.port), AwayStore())  # type: ignore[arg-type]
    with pytest.raises(OSError, match=f"127.0.0.1:{taken.port}"):
        await second.start()


async def test_a_start_file_sets_the_record_going(feeds: Feeds, tmp_path: Path) -> None:
    """Until the file is there the record stands at its first step; then it plays from that instant."""
    start_file = tmp_path / "start"
    source = {"kind": "schedule", "points": [[0, 0.5], [30, 0.2]], "period_seconds": 0.05}
    service, url = await feeds.start(config(source, start_file=start_file))
    assert (await first(f"{url}/v1/power/north/stream", 3))[-1].granted_power_watts == 500.0
    start_file.write_text(f"{time.time() - 30}\n")
    await until(lambda: json.loads(service.hub.newest("north") or b"{}")["granted_power_watts"] == 200.0)


async def test_a_start_file_without_a_time_ends_the_feed_with_its_reason(
    feeds: Feeds, tmp_path: Path
) -> None:
    """A configuration error names the file and what it held."""
    start_file = tmp_path / "start"
    service, _ = await feeds.start(config(STEADY, start_file=start_file))
    start_file.write_text("noon\n")
    with pytest.raises(ConfigError, match="'noon' is no Unix time"):
        await asyncio.wait_for(service.wait(), timeout=10)


async def test_after_the_end_of_a_record_readings_are_fallback(feeds: Feeds, tmp_path: Path) -> None:
    """The last good value is repeated with its own time, so that agents walk their caps down."""
    path = tmp_path / "wind.csv"
    path.write_text("time,north\n0,0.5\n60,0.25\n")
    source = {"kind": "csv", "path": path, "column": "north"}
    start = time.time() - 119.5
    service, _ = await feeds.start(config(source, start_unix_seconds=start))
    await until(lambda: json.loads(service.hub.newest("north") or b"{}").get("quality") == "fallback")
    reading = PowerReading.from_json(service.hub.newest("north") or b"")
    assert reading.granted_power_watts == 250.0
    assert reading.observed_at_unix_seconds == pytest.approx(start + 60)


async def test_rows_that_were_refused_show_in_a_metric(feeds: Feeds, tmp_path: Path) -> None:
    """With the file's name; the log has the lines."""
    path = tmp_path / "wind.csv"
    path.write_text("time,north\n0,0.5\n60,oops\n180,0.5\n")
    service, _ = await feeds.start(config({"kind": "csv", "path": path, "column": "north"}))
    page = service.exposition().decode()
    assert 'heron_feed_refused_rows{file="wind.csv"} 1.0' in page
    assert 'heron_feed_missing_steps{file="wind.csv"} 1.0' in page
