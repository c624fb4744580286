"""The OPC UA source against a real OPC UA server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua.ua.status_codes import StatusCodes
from support.certificates import make_certificate
from support.opcua_server import URI, OpcUaServer
from support.raw_server import raw_server
from support.running_source import running_source
from support.wait import until

from cli.ports import free_ports


@pytest.fixture(scope="module")
def running() -> Iterator[OpcUaServer]:
    subject = OpcUaServer()
    subject.start()
    yield subject
    subject.stop()


@pytest.fixture
def server(running: OpcUaServer) -> OpcUaServer:
    """The one server of these tests, as new."""
    running.say(0.5)
    running.curtail(False)
    return running


def source(url: str, **keys: Any) -> dict[str, Any]:
    table = {"kind": "opcua", "url": url, "node": "ns=2;s=Farm.Power", "unit": "kW", "timeout_seconds": 3.0}
    return table | keys


async def test_a_node_is_followed(server: OpcUaServer) -> None:
    """The value at the start, and each change."""
    async with running_source(source(server.url)) as subject:
        await subject.until_watts(500.0)
        server.say(0.25)
        await subject.until_watts(250.0)
        assert subject.source.status.faults == {}


async def test_a_change_comes_by_subscription_before_the_next_read(server: OpcUaServer) -> None:
    """With a period of an hour only the subscription can bring it, and not after a quarter of an hour."""
    table = source(server.url, period_seconds=3600.0)
    async with running_source(table) as subject:
        await subject.until_watts(500.0)
        for share in (0.25, 0.75):  # the first may come with the subscription, as its first value
            server.say(share)
            await subject.until_watts(1000 * share)
        assert subject.source.status.connections == 1


async def test_a_value_that_stands_still_is_measured_again_and_again(server: OpcUaServer) -> None:
    """Else a calm hour would look like a dead server; the stuck check judges it."""
    async with running_source(source(server.url)) as subject:
        await until(lambda: subject.seen.count(500.0) > 5, seconds=20, what="five measurements")


async def test_source_time_stamps_count_where_configured(server: OpcUaServer) -> None:
    """A value is as old as its server says, and then not measured again by being read again."""
    measured = datetime.now(UTC) - timedelta(seconds=30)
    server.say(0.4, at=measured)
    async with running_source(source(server.url, timestamp="source")) as subject:
        await subject.until_watts(400.0)
        assert subject.source.measurement(0.0).observed_at_unix_seconds == pytest.approx(measured.timestamp())
        server.say(0.6, at=datetime.now(UTC) + timedelta(hours=1))
        assert "in the future" in await subject.until_fault("clock")
        assert 600.0 not in subject.seen


@pytest.mark.parametrize("name", ["Text", "Array", "Flag"])
async def test_wrong_types_are_faults(server: OpcUaServer, name: str) -> None:
    """Text, arrays and flags are no power."""
    async with running_source(source(server.url, node=f"ns=2;s=Farm.{name}")) as subject:
        await subject.until_fault("wrong_type", more_than=1)
        assert subject.watts is None
        assert subject.source.status.is_connected


async def test_nan_is_handed_on_and_a_bad_status_is_not(server: OpcUaServer) -> None:
    """A value that the server itself does not trust is none, however plausible."""
    async with running_source(source(server.url)) as subject:
        await subject.until_watts(500.0)
        server.say(math.nan)
        await until(lambda: math.isnan(subject.watts or 0.0), seconds=20, what="NaN")
        server.say(0.7, status=StatusCodes.BadSensorFailure)
        assert "BadSensorFailure" in await subject.until_fault("bad_status")
        await subject.until_watts(None)
        server.say(0.6, status=StatusCodes.UncertainSensorNotAccurate)
        await subject.until_watts(None)
        server.say(0.25)
        await subject.until_watts(250.0)
        assert 700.0 not in subject.seen
        assert 600.0 not in subject.seen


async def test_a_wrong_node_is_said(server: OpcUaServer) -> None:
    """As is a text that is no node id."""
    async with running_source(source(server.url, node="ns=2;s=Nothing")) as subject:
        assert "check the node id" in await subject.until_fault("missing")
        assert subject.watts is None
    async with running_source(source(server.url, node="Farm.Power")) as subject:
        assert "write it like" in await subject.until_fault("missing")


async def test_a_connection_that_breaks_is_made_again(server: OpcUaServer) -> None:
    """By itself, subscribed again."""
    async with running_source(source(server.url)) as subject:
        await subject.until_watts(500.0)
        server.hang_up()
        await until(lambda: not subject.source.status.is_connected, seconds=20, what="the loss")
        server.say(0.75)
        server.listen_again()
        await subject.until_watts(750.0)
        assert subject.source.status.connections == 2


async def test_a_server_that_restarts_is_found_again_and_subscribed_to() -> None:
    """It has forgotten every session and subscription; with so long a period only a new one brings the
    change."""
    server = OpcUaServer()
    server.start()
    try:
        async with running_source(source(server.url, period_seconds=3600.0)) as subject:
            await subject.until_watts(500.0)
            server.stop()
            await until(lambda: not subject.source.status.is_connected, seconds=20, what="the loss")
            server.start()
            await subject.until_connected(connections=2)
            for share in (0.75, 0.25):
                server.say(share)
                await subject.until_watts(1000 * share)
    finally:
        server.stop()


SECURITY = [
    (policy, mode)
    for policy in ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
    for mode in ("Sign", "SignAndEncrypt")
]


@pytest.mark.parametrize(("policy", "mode"), SECURITY)
async def test_every_security_policy_that_is_offered_works(tmp_path: Path, policy: str, mode: str) -> None:
    """Against a server that offers this one only: value, change by subscription, and a password in it."""
    server_files = make_certificate(tmp_path, "server", uri=URI)
    feed_files = make_certificate(tmp_path, "feed", uri="urn:heron:power-feed")
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "feed.pem").write_bytes(feed_files[0].read_bytes())
    secret = tmp_path / "password"
    secret.write_text("right")
    server = OpcUaServer(
        password="right", security=(*server_files, [feed_files[0]]), policies=(f"{policy}_{mode}",)
    )
    server.start()
    try:
        security = {
            "policy": policy,
            "mode": mode,
            "certificate_file": feed_files[0],
            "private_key_file": feed_files[1],
            "server_certificate_file": server_files[0],
        }
        login = {"username": "feed", "password_file": secret}
        table = source(server.url, security=security, period_seconds=3600.0, **login)
        async with running_source(table) as subject:
            await subject.until_watts(500.0)
            for share in (0.25, 0.75):
                server.say(share)
                await subject.until_watts(1000 * share)
    finally:
        server.stop()


async def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    """And the right one works, read anew from its file."""
    secret = tmp_path / "password"
    secret.write_text("wrong")
    server = OpcUaServer(password="right")
    server.start()
    try:
        login = {"username": "feed", "password_file": secret}
        async with running_source(source(server.url, **login)) as subject:
            assert "refuses the user" in await subject.until_fault("credentials")
            assert subject.watts is None
            secret.write_text("right\n")
            await subject.until_watts(500.0)
    finally:
        server.stop()


async def test_a_signed_and_encrypted_channel(tmp_path: Path) -> None:
    """The server trusts the feed's certificate, the feed only the server's; either refuses a stranger."""
    server_files = make_certificate(tmp_path, "server", uri=URI)
    feed_files = make_certificate(tmp_path, "feed", uri="urn:heron:power-feed")
    stranger = make_certificate(tmp_path, "stranger", uri="urn:heron:power-feed")
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "feed.pem").write_bytes(feed_files[0].read_bytes())
    server = OpcUaServer(security=(*server_files, [feed_files[0]]))
    server.start()

    def security(own: tuple[Path, Path], of_server: Path) -> dict[str, Any]:
        return {
            "certificate_file": own[0],
            "private_key_file": own[1],
            "server_certificate_file": of_server,
        }

    try:
        table = source(server.url, security=security(feed_files, server_files[0]))
        async with running_source(table) as subject:
            await subject.until_watts(500.0)
        table = source(server.url, security=security(stranger, server_files[0]))
        async with running_source(table) as subject:
            await until(lambda: subject.source.status.last_fault, seconds=20, what="a fault")
            assert subject.watts is None
            assert "refuses the channel" in await subject.until_fault("credentials")
        table = source(server.url, security=security(feed_files, stranger[0]))
        async with running_source(table) as subject:
            await until(lambda: subject.source.status.last_fault, seconds=20, what="a fault")
            assert subject.watts is None
        table = source(server.url)
        async with running_source(table) as subject:
            await until(lambda: subject.source.status.last_fault, seconds=20, what="a fault")
            assert subject.watts is None
        missing = security((tmp_path / "no.pem", tmp_path / "no.key"), server_files[0])
        async with running_source(source(server.url, security=missing)) as subject:
            assert "cannot be read" in await subject.until_fault("credentials")
    finally:
        server.stop()


async def test_produced_power_counts_only_while_the_farm_is_free(server: OpcUaServer) -> None:
    """By the curtailment node; unknown when it cannot be read."""
    keys = {"measures": "produced", "curtailment": {"node": "ns=2;s=Farm.Curtailed"}}
    async with running_source(source(server.url, **keys)) as subject:
        await subject.until_watts(500.0)
        server.curtail(True)
        await subject.until_watts(None)
        server.curtail(False)
        await subject.until_watts(500.0)
    keys["curtailment"] = {"node": "ns=2;s=Nothing"}
    async with running_source(source(server.url, **keys)) as subject:
        await subject.until_fault("missing")
        assert subject.watts is None


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, None])
async def test_what_is_no_opcua_server_is_never_a_measurement(answer: bytes | None) -> None:
    """Another protocol, zeros, silence."""
    async with raw_server(answer) as port:
        table = source(f"opc.tcp://127.0.0.1:{port}", timeout_seconds=0.3)
        async with running_source(table) as subject:
            faults = subject.source.status.faults
            await until(lambda: sum(faults.values()) > 1, seconds=20, what="faults")
            assert subject.watts is None
            assert subject.source.status.connections == 0


async def test_a_server_that_only_accepts_costs_no_connection() -> None:
    """Each failed attempt closes its own: a hung SCADA must not make the whole feed deaf."""
    open_now, accepted = set[asyncio.StreamWriter](), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        open_now.add(writer)
        while await reader.read(4096):
            pass
        open_now.discard(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        async with running_source(source(f"opc.tcp://127.0.0.1:{port}", timeout_seconds=0.2)):
            await until(lambda: accepted >= 3, seconds=30, what="several attempts")
            assert len(open_now) <= 1
        await until(lambda: not open_now, seconds=10, what="all are closed")


async def test_nobody_there_is_a_clear_message() -> None:
    """With the address."""
    port = free_ports(1)[0]
    async with running_source(source(f"opc.tcp://127.0.0.1:{port}")) as subject:
        assert f"127.0.0.1:{port} takes no connection" in await subject.until_fault("connect", more_than=1)
