"""Configuration of live sources: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.config import ConfigError
from power_feed.config import load

MODBUS = 'kind = "modbus", host = "h", power = { address = 0 }, unit = "kW"'
MQTT = 'kind = "mqtt", host = "h", topic = "t", unit = "kW"'
HTTP = 'kind = "http", url = "http://h/x", json_path = "p", unit = "kW"'
OPCUA = 'kind = "opcua", url = "opc.tcp://h:4840/x", node = "ns=2;s=P", unit = "kW"'


def source(directory: Path, text: str) -> Any:
    path = directory / "fleet.toml"
    path.write_text(
        f'[[power_feed.farms]]\nfarm_id = "f"\nsite_id = "s"\nnameplate_watts = 1000\nsource = {{ {text} }}\n'
    )
    return load(path, {})[1].farms[0].source


@pytest.mark.parametrize("text", [MODBUS, MQTT, HTTP, OPCUA])
def test_the_least_that_is_needed(tmp_path: Path, text: str) -> None:
    """Kind, place, signal and unit."""
    assert source(tmp_path, text).unit == "kW"


@pytest.mark.parametrize("url", ["http://h:99999/x", "http://[bad/x", "http:///x", "http://h:0/x"])
def test_a_url_that_nobody_can_ask_is_refused(tmp_path: Path, url: str) -> None:
    """At once, and not by a trace from the depths."""
    with pytest.raises(ConfigError, match="url"):
        source(tmp_path, HTTP.replace("http://h/x", url))


@pytest.mark.parametrize("text", [MODBUS, MQTT, HTTP, OPCUA])
def test_the_unit_is_never_guessed(tmp_path: Path, text: str) -> None:
    """A thousand times too much is not a detail."""
    with pytest.raises(ConfigError, match="unit"):
        source(tmp_path, text.replace(', unit = "kW"', ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{MODBUS}, measures = "produced"', "refused without a curtailment table"),
        (f"{MODBUS}, curtailment = {{ address = 1 }}", 'belongs to measures = "produced"'),
        (f"{MODBUS}, scale = 0", "scale = 0"),
        (f'{MODBUS}, curtailment = {{ address = 1, curtailed_if = "below" }}', "threshold"),
        (MODBUS.replace("address = 0", 'address = 65535, type = "float64"'), "beyond the last register"),
        (MODBUS.replace("address = 0", "address = 65536"), "65535"),
        (MQTT.replace('"t"', '"farm/+/power"'), "topic"),
        (f'{MQTT}, password_file = "p"', "without username"),
        (f'{MQTT}, time_zone = "Mars/Olympus"', "no time zone"),
        (f'{MQTT}, tls = {{ certificate_file = "c" }}', "belong together"),
        (f'{HTTP}, url2 = "x"', "url2"),
        (HTTP.replace("http://h", "http://user:secret@h"), "url"),
        (OPCUA.replace("opc.tcp", "http"), "url"),
        ('kind = "http", preset = "elexon", capacity = 1.0', "refused without a curtailment table"),
        ('kind = "http", preset = "nobody"', "preset"),
        (f"{HTTP}, period_seconds = 10, poll_seconds = 31", "longer than three periods .30 s"),
        (
            f"{HTTP}, period_seconds = 60, poll_seconds = 20, silent_seconds = 20",
            "the 20 s between two questions",
        ),
        (f"{HTTP}, period_seconds = 60, silent_seconds = 30", "the 60 s between two questions"),
        (f"{MODBUS}, period_seconds = 5, silent_seconds = 4", "the 5 s between two questions"),
        (f"{OPCUA}, period_seconds = 5, silent_seconds = 4", "the 5 s between two questions"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """With the key and a reason."""
    with pytest.raises(ConfigError, match=message) as error:
        source(tmp_path, text)
    assert "secret" not in str(error.value) or "url" not in message


@pytest.mark.parametrize(
    "text",
    [
        f"{HTTP}, period_seconds = 10, poll_seconds = 30",
        f"{HTTP}, period_seconds = 60, poll_seconds = 20, silent_seconds = 21",
        f"{MODBUS}, period_seconds = 5, silent_seconds = 5.5",
        f"{MQTT}, period_seconds = 5, silent_seconds = 4",
    ],
)
def test_times_that_can_work_are_taken(tmp_path: Path, text: str) -> None:
    """To the edge; a broker is not asked, it may speak more often than once a period."""
    assert source(tmp_path, text).unit == "kW"


def test_a_preset_is_a_default_for_every_key(tmp_path: Path) -> None:
    """What is given goes before it."""
    subject = source(tmp_path, 'kind = "http", preset = "elia", poll_seconds = 30.0')
    assert subject.unit == "percent"
    assert subject.poll_seconds == 30.0
    assert subject.curtailment.curtailed_if == "not_empty"


def test_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    """At any depth; JSON paths are no files."""
    subject = source(tmp_path, f'{MQTT}, username = "u", password_file = "p", tls = {{ ca_file = "ca.pem" }}')
    assert subject.password_file == tmp_path / "p"
    assert subject.tls.ca_file == tmp_path / "ca.pem"
    assert source(tmp_path, HTTP).json_path == "p"
