"""The MQTT source against a real Mosquitto."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from support.certificates import make_certificate
from support.mosquitto import Mosquitto
from support.raw_server import raw_server
from support.running_source import running_source
from support.wait import until

from cli.ports import free_ports


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    subject = Mosquitto(tmp_path)
    await subject.start()
    yield subject
    await subject.stop()


def source(port: int, **keys: Any) -> dict[str, Any]:
    table = {"kind": "mqtt", "host": "127.0.0.1", "port": port, "topic": "farm/power", "unit": "kW"}
    return table | keys


async def publish(
    port: int, payload: str | bytes, *, topic: str = "farm/power", retain: bool = False, **login: Any
) -> None:
    async with aiomqtt.Client("127.0.0.1", port, **login) as client:
        await client.publish(topic, payload, qos=1, retain=retain)


async def test_a_number_is_a_payload(broker: Mosquitto) -> None:
    """The simplest case: the payload is the number."""
    async with running_source(source(broker.port)) as subject:
        await subject.until_connected()
        await publish(broker.port, "0.5")
        await subject.until_watts(500.0)
        await publish(broker.port, "0.25")
        await subject.until_watts(250.0)
        assert subject.source.status.faults == {}


async def test_a_path_finds_the_number_and_its_time(broker: Mosquitto) -> None:
    """Of a gateway's object; what is older than the newest is dropped."""
    paths = {"json_path": "metrics[?name=='P'] | [0].value", "time_path": "t"}
    paths["time_format"] = "unix_milliseconds"
    now = time.time()

    def payload(value: float, at: float) -> str:
        metrics = [{"name": "Q", "value": 9}, {"name": "P", "value": value}]
        return json.dumps({"t": at * 1000, "metrics": metrics})

    async with running_source(source(broker.port, **paths)) as subject:
        await subject.until_connected()
        await publish(broker.port, payload(0.5, now - 2.0))
        await subject.until_watts(500.0)
        assert subject.source.measurement(0.0).observed_at_unix_seconds == pytest.approx(now - 2.0)
        await publish(broker.port, payload(0.1, now - 5.0))
        await publish(broker.port, payload(0.25, now - 1.0))
        await subject.until_watts(250.0)
        assert 100.0 not in subject.seen


@pytest.mark.parametrize(
    ("payload", "kind", "message"),
    [
        ("not a number", "protocol", "is not JSON"),
        (b"\xff\xfe\x00", "protocol", "is not JSON"),
        ("", "protocol", "is not JSON"),
        ('"0.5"', "wrong_type", "to_number"),
        ("true", "wrong_type", "a truth value"),
        ("null", "missing", "nothing is there"),
        ("[1, 2]", "wrong_type", "a list"),
        ("[" * 100_000, "protocol", "is not JSON"),
        ("1" + "0" * 5000, "protocol", "is not JSON"),
        (b" " * (1 << 20) + b"0.5", "too_large", "at most"),
    ],
)
async def test_what_is_no_number_is_a_fault_and_no_measurement(
    broker: Mosquitto, payload: str | bytes, kind: Any, message: str
) -> None:
    """The value falls back to unknown at once, the connection stays, and the next number counts."""
    async with running_source(source(broker.port)) as subject:
        await subject.until_connected()
        await publish(broker.port, "0.5")
        await subject.until_watts(500.0)
        await publish(broker.port, payload)
        assert message in await subject.until_fault(kind)
        await subject.until_watts(None)
        await publish(broker.port, "0.25")
        await subject.until_watts(250.0)
        assert subject.source.status.connections == 1


async def test_nan_is_handed_on(broker: Mosquitto) -> None:
    """JSON has none, but much that calls itself JSON has."""
    async with running_source(source(broker.port)) as subject:
        await subject.until_connected()
        await publish(broker.port, "0.5")
        await subject.until_watts(500.0)
        await publish(broker.port, "NaN")
        await publish(broker.port, "1e999")
        await subject.until_watts(math.inf)
        assert any(value is not None and math.isnan(value) for value in subject.seen)


async def test_a_retained_value_is_of_unknown_age(broker: Mosquitto) -> None:
    """It is no measurement of now; with a time of its own it counts as what it is."""
    now = time.time()
    await publish(broker.port, json.dumps({"p": 0.9, "t": now - 60.0}), retain=True)
    async with running_source(source(broker.port, json_path="p")) as subject:
        await subject.until_connected()
        await publish(broker.port, json.dumps({"p": 0.5, "t": now}))
        await subject.until_watts(500.0)
        assert 900.0 not in subject.seen
    timed = {"json_path": "p", "time_path": "t", "time_format": "unix_seconds"}
    async with running_source(source(broker.port, **timed)) as subject:
        await subject.until_watts(900.0)
        assert subject.source.measurement(0.0).observed_at_unix_seconds == pytest.approx(now - 60.0)


async def test_a_time_of_the_future_is_refused(broker: Mosquitto) -> None:
    """Else a wrong clock would make one value count as fresh for ever."""
    timed = {"json_path": "p", "time_path": "t"}
    async with running_source(source(broker.port, **timed)) as subject:
        await subject.until_connected()
        await publish(broker.port, '{"p": 0.9, "t": "2099-01-01T00:00:00Z"}')
        assert "in the future" in await subject.until_fault("clock")
        assert subject.watts is None
        await publish(broker.port, '{"p": 0.9, "t": "2026-01-01T00:00:00"}')
        assert "no offset: set time_zone" in await subject.until_fault("clock", more_than=1)
        await publish(broker.port, '{"p": 0.5, "t": "2026-01-01T00:00:00Z"}')
        await subject.until_watts(500.0)
        assert subject.source.measurement(0.0).observed_at_unix_seconds == 1_767_225_600.0


async def test_a_broker_that_restarts_is_found_again(broker: Mosquitto) -> None:
    """By itself, and subscribed again."""
    async with running_source(source(broker.port)) as subject:
        await subject.until_connected()
        await publish(broker.port, "0.5")
        await subject.until_watts(500.0)
        await broker.stop()
        await subject.until_fault("connect")
        await broker.start()
        await subject.until_connected(connections=2)
        await publish(broker.port, "0.75")
        await subject.until_watts(750.0)


async def test_silence_makes_the_connection_anew(broker: Mosquitto) -> None:
    """A broker that hangs with its connections open, and a farm that stops publishing."""
    async with running_source(source(broker.port, silent_seconds=0.3)) as subject:
        await subject.until_connected()
        assert "is the farm's side publishing" in await subject.until_fault("silence")
        broker.pause()
        await subject.until_fault("timeout")
        broker.resume()
        await subject.until_connected(connections=2)


async def test_a_wrong_password_is_named(tmp_path: Path) -> None:
    """Refused is not the same as away; the right password then works, read anew from its file."""
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    broker = Mosquitto(tmp_path, password="right")
    await broker.start()
    try:
        login = {"username": "feed", "password_file": secret}
        async with running_source(source(broker.port, **login)) as subject:
            assert "refuses the user" in await subject.until_fault("credentials")
            secret.unlink()
            await subject.until_fault("credentials", more_than=subject.source.status.faults["credentials"])
            secret.write_text("right\n")
            await subject.until_connected()
            await publish(broker.port, "0.5", username="feed", password="right")
            await subject.until_watts(500.0)
    finally:
        await broker.stop()


async def test_tls_trusts_only_whom_it_is_told_to(tmp_path: Path) -> None:
    """A broker with another certificate than expected is not listened to."""
    certificate, key = make_certificate(tmp_path, "broker")
    other, _ = make_certificate(tmp_path, "other")
    broker = Mosquitto(tmp_path, tls=(certificate, key))
    await broker.start()
    try:
        async with running_source(source(broker.port, tls={"ca_file": other})) as subject:
            assert "TLS" in await subject.until_fault("credentials")
        async with running_source(source(broker.port, tls={"ca_file": certificate})) as subject:
            await subject.until_connected()
            tls = aiomqtt.TLSParameters(ca_certs=str(certificate))
            await publish(broker.port, "0.5", tls_params=tls)
            await subject.until_watts(500.0)
    finally:
        await broker.stop()


async def test_produced_power_waits_for_the_curtailment_signal(broker: Mosquitto) -> None:
    """Unknown is not free; the signal may be retained, and a broken one is unknown again."""
    signal = {"topic": "farm/curtailed", "json_path": "active"}
    async with running_source(source(broker.port, measures="produced", curtailment=signal)) as subject:
        await subject.until_connected()
        await publish(broker.port, "0.5")
        await subject.until_watts(None)
        await publish(broker.port, '{"active": false}', topic="farm/curtailed", retain=True)
        await subject.until_watts(500.0)
        await publish(broker.port, '{"active": true}', topic="farm/curtailed")
        await subject.until_watts(None)
        await publish(broker.port, '{"active": 0}', topic="farm/curtailed")
        await subject.until_watts(500.0)
        await publish(broker.port, '{"other": 0}', topic="farm/curtailed")
        await subject.until_watts(None)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x02\x00\x03", None])
async def test_what_is_no_broker_is_never_a_measurement(answer: bytes | None) -> None:
    """Another protocol, a refusal, silence."""
    async with raw_server(answer) as port, running_source(source(port, timeout_seconds=0.2)) as subject:
        status = subject.source.status
        await until(lambda: sum(status.faults.values()) > 2, seconds=20, what="faults")
        assert set(status.faults) <= {"refused", "timeout", "connect"}
        assert subject.watts is None
        assert status.connections == 0


async def test_a_broker_that_never_answers_costs_no_file_descriptors() -> None:
    """Each attempt's socket is closed."""
    async with raw_server(None) as port, running_source(source(port, timeout_seconds=0.05)) as subject:
        await subject.until_fault("timeout", more_than=2)
        before = len(list(Path("/proc/self/fd").iterdir()))
        await subject.until_fault("timeout", more_than=12)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


async def test_nobody_there_is_a_clear_message() -> None:
    """With the address, and what to look at."""
    port = free_ports(1)[0]
    async with running_source(source(port)) as subject:
        message = await subject.until_fault("connect", more_than=2)
        assert f"127.0.0.1:{port}" in message
        assert "is the broker up" in message
