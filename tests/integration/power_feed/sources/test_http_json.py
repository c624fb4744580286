"""The HTTP source against a real HTTP server, and the presets against documents of the APIs' shapes.

Of the documents in tests/support/recorded/*_wind.json Energinet's is an answer of its service of 2025-02-21,
the first of its rows, as Electricity Maps' open tests keep it. The two others are made by hand after the
operators' documentation (2026-11); their fields are those that public programs read.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.json_server import JsonServer, json_server
from support.raw_server import raw_server
from support.running_source import running_source
from support.wait import until

from cli.ports import free_ports

RECORDED = Path(__file__).parents[3] / "support" / "recorded"


@pytest.fixture
async def server() -> AsyncIterator[JsonServer]:
    async with json_server() as subject:
        yield subject


def source(url: str, **keys: Any) -> dict[str, Any]:
    return {"kind": "http", "url": url, "json_path": "p", "unit": "kW", **keys}


async def test_a_number_is_polled(server: JsonServer) -> None:
    """One request a period, one connection."""
    server.say({"p": 0.5})
    async with running_source(source(server.url)) as subject:
        await subject.until_watts(500.0)
        server.say({"p": 0.25})
        await subject.until_watts(250.0)
        assert subject.source.status.faults == {}
        assert server.requests[0].headers["accept"] == "application/json"


async def test_a_value_with_a_time_counts_once(server: JsonServer) -> None:
    """The same document again is no new measurement; the shift makes a begin an end."""
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=900)
    server.say({"p": 0.5, "t": begin.strftime("%Y-%m-%dT%H:%M:%S")})
    keys = {"time_path": "t", "time_zone": "UTC", "time_shift_seconds": 300.0}
    async with running_source(source(server.url, **keys)) as subject:
        await subject.until_watts(500.0)
        count = len(server.requests)
        await until(lambda: len(server.requests) > count + 3, seconds=20, what="requests")
        assert subject.seen == [500.0]
        measured = subject.source.measurement(0.0).observed_at_unix_seconds
        assert measured == begin.timestamp() + 300.0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html>", "protocol", "not JSON"),
        (b"", "protocol", "not JSON"),
        (b'{"p": "0.5"}', "wrong_type", "to_number"),
        (b'{"q": 1}', "missing", "nothing is there"),
        (b'{"p": null}', "missing", "nothing is there"),
        (b'{"p": {}}', "wrong_type", "an object"),
    ],
)
async def test_what_is_no_number_is_a_fault_and_no_measurement(
    server: JsonServer, body: bytes, kind: Any, message: str
) -> None:
    """And the next number counts, over the same connection."""
    server.body = body
    async with running_source(source(server.url)) as subject:
        assert message in await subject.until_fault(kind, more_than=1)
        assert subject.watts is None
        server.body = b'{"p": 0.5}'
        await subject.until_watts(500.0)
        assert subject.source.status.connections == 1


async def test_nan_is_handed_on(server: JsonServer) -> None:
    """For the quality checks to mark."""
    server.body = b'{"p": NaN}'
    async with running_source(source(server.url)) as subject:
        await subject.until_connected()
        assert math.isnan(subject.watts or 0.0)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, "credentials", "bearer_token_file"),
        (403, "credentials", "bearer_token_file"),
        (404, "missing", "check url"),
        (302, "refused", "it has moved to"),
        (500, "refused", "answered 500"),
    ],
)
async def test_refusals_are_named(server: JsonServer, status: int, kind: Any, message: str) -> None:
    """By status; a later success is taken."""
    server.status = status
    server.say({"p": 0.5})
    async with running_source(source(server.url)) as subject:
        assert message in await subject.until_fault(kind)
        server.status = 200
        await subject.until_watts(500.0)


async def test_a_server_that_asks_for_patience_gets_it(server: JsonServer) -> None:
    """429 with Retry-After: not one request more before its time."""
    server.status, server.headers = 429, {"retry-after": "3600"}
    async with running_source(source(server.url)) as subject:
        assert "asked too often" in await subject.until_fault("refused")
        assert len(server.requests) == 1
        error = await subject.source._listen_once()
        assert error.retry_after_seconds == 3600.0


async def test_slow_and_endless_answers_end(server: JsonServer) -> None:
    """By time-out and by size; then the source goes on."""
    server.say({"p": 0.5})
    server.delay_seconds = 5.0
    async with running_source(source(server.url, timeout_seconds=0.2)) as subject:
        assert "no whole answer within 0.2 s" in await subject.until_fault("timeout")
        server.delay_seconds = 0.0
        await subject.until_watts(500.0)
        server.body = b" " * ((1 << 20) + 1)
        assert "ask for less" in await subject.until_fault("too_large")


async def test_a_server_that_restarts_is_found_again(server: JsonServer) -> None:
    """By itself."""
    server.say({"p": 0.5})
    async with running_source(source(server.url)) as subject:
        await subject.until_watts(500.0)
        await server.stop()
        await subject.until_fault("connect")
        server.say({"p": 0.75})
        await server.start()
        await subject.until_watts(750.0)


async def test_a_token_comes_from_its_file(server: JsonServer, tmp_path: Path) -> None:
    """And never into a message or a description."""
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    server.say({"p": 0.5})
    async with running_source(source(server.url + "?key=1", bearer_token_file=token)) as subject:
        await subject.until_watts(500.0)
        assert server.requests[0].headers["authorization"] == "Bearer open sesame"
        assert "key=1" not in subject.source.description
        assert "sesame" not in subject.source.description


@pytest.mark.parametrize("answer", [b"\x00" * 64, b"SSH-2.0-OpenSSH\r\n", None])
async def test_what_is_no_http_server_is_never_a_measurement(answer: bytes | None) -> None:
    """Another protocol, zeros, silence."""
    async with raw_server(answer) as port:
        table = source(f"http://127.0.0.1:{port}/", timeout_seconds=0.2)
        async with running_source(table) as subject:
            faults = subject.source.status.faults
            await until(lambda: sum(faults.values()) > 1, seconds=20, what="faults")
            assert set(faults) <= {"timeout", "protocol"}
            assert subject.watts is None


async def test_nobody_there_is_a_clear_message() -> None:
    """With the address, and what to look at."""
    port = free_ports(1)[0]
    async with running_source(source(f"http://127.0.0.1:{port}/x")) as subject:
        message = await subject.until_fault("connect", more_than=1)
        assert f"127.0.0.1:{port}/x" in message
        assert "is the address right" in message


def shape(name: str) -> Any:
    return json.loads((RECORDED / f"{name}_wind.json").read_text())


async def test_elia_gives_the_load_factor_unless_held_back(server: JsonServer) -> None:
    """25.5 % of the nameplate at the end of its quarter; with a decremental bid nothing is measured."""
    document = shape("elia")
    server.say(document)
    table = {"kind": "http", "preset": "elia", "url": server.url, "poll_seconds": 0.1}
    async with running_source(table) as subject:
        await subject.until_watts(pytest.approx(255.0))  # type: ignore[arg-type]
        measured = subject.source.measurement(0.0).observed_at_unix_seconds
        assert datetime.fromtimestamp(measured, UTC).isoformat() == "2026-11-20T10:30:00+00:00"
        assert subject.source.measures == "produced"
        document["results"][0]["decrementalbidid"] = "BID-1"
        server.say(document)
        await subject.until_watts(None)


async def test_energinet_gives_a_share_of_the_capacity(server: JsonServer) -> None:
    """2,135.2 + 1,502.0 MW of 5,000 MW; a time without an offset is UTC there."""
    server.say(shape("energinet"))
    table = {"kind": "http", "preset": "energinet", "url": server.url, "capacity": 5000.0}
    async with running_source(table | {"curtailable": False, "poll_seconds": 0.1}) as subject:
        await subject.until_watts(pytest.approx(727.435986))  # type: ignore[arg-type]
        measured = subject.source.measurement(0.0).observed_at_unix_seconds
        assert datetime.fromtimestamp(measured, UTC).isoformat() == "2025-02-21T19:15:00+00:00"


async def test_elexon_gives_the_newest_row_of_wind(server: JsonServer) -> None:
    """Whatever their order, and whatever other fuels come."""
    server.say(shape("elexon"))
    table = {"kind": "http", "preset": "elexon", "url": server.url, "capacity": 30_000.0}
    async with running_source(table | {"curtailable": False, "poll_seconds": 0.1}) as subject:
        await subject.until_watts(pytest.approx(200.0))  # type: ignore[arg-type]
        measured = subject.source.measurement(0.0).observed_at_unix_seconds
        assert datetime.fromtimestamp(measured, UTC).isoformat() == "2026-11-20T10:25:00+00:00"


async def test_an_empty_answer_of_an_api_is_no_measurement(server: JsonServer) -> None:
    """As at the turn of a day, or when a dataset is renamed."""
    server.say({"total_count": 0, "results": []})
    table = {"kind": "http", "preset": "elia", "url": server.url, "poll_seconds": 0.1}
    async with running_source(table) as subject:
        await subject.until_fault("clock")
        assert subject.watts is None
        assert time.time() - (subject.source.status.value_at_unix_seconds or 0.0) > 1e6


async def test_a_region_without_a_curtailment_signal_is_refused() -> None:
    """Unless the operator says that it is never curtailed."""
    with pytest.raises(ValidationError, match="refused without a curtailment table"):
        async with running_source({"kind": "http", "preset": "elexon", "capacity": 30_000.0}):
            pass
