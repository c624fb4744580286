"""Configuration: every message says file, table, key, value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr

from fleet.config import (
    MAX_CONFIG_BYTES,
    ConfigError,
    ConfigModel,
    FleetConfig,
    build,
    load_fleet,
    read_file,
    without_password,
)


class Hold(ConfigModel):
    """A table inside a table."""

    seconds: float = 20.0
    requests: int = 4096


class Local(ConfigModel):
    """One of two kinds of table."""

    kind: Literal["local"]


class Remote(ConfigModel):
    """The other, with a secret."""

    kind: Literal["remote"]
    api_key: SecretStr | None = None
    speed: float = 1.0


class Peer(ConfigModel):
    """An entry of a list."""

    watts: Annotated[float, Field(gt=0)]
    link: Annotated[Local | Remote, Field(discriminator="kind")] = Local(kind="local")


class Service(ConfigModel):
    """A table as services have them."""

    host: str = "127.0.0.1"
    port: int = 8000
    hold: Hold = Hold()
    needed: str
    peers: Annotated[tuple[Peer, ...], Field(min_length=1)] = (Peer(watts=1.0),)


def built(values: dict[str, Any], environment: dict[str, str] | None = None) -> Service:
    return build(
        Service,
        values,
        table="service",
        source="fleet.toml",
        environment=environment or {},
        environment_prefix="HERON_SERVICE_",
    )


def fault(values: dict[str, Any], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        built(values, environment)
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "fleet.toml"
    path.write_text(text)
    return path


def test_a_file_is_read_into_its_tables(tmp_path: Path) -> None:
    """All five tables may stand in one file."""
    text = '[fleet]\nname = "a"\n[router]\n[power_feed]\n[demo]\n[[sites]]\nsite_id = "north"\n'
    assert read_file(written(tmp_path, text)) == {
        "fleet": {"name": "a"},
        "router": {},
        "power_feed": {},
        "demo": {},
        "sites": [{"site_id": "north"}],
    }


def test_an_unknown_table_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    """A misspelt table would otherwise be a silent default."""
    path = written(tmp_path, "[ruoter]\nport = 1\n")
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert str(caught.value) == (
        f"{path}: [ruoter]: no such table; allowed are fleet, router, power_feed, sites, demo"
    )


def test_what_is_not_toml_is_named_with_its_place(tmp_path: Path) -> None:
    """The line is in the message."""
    path = written(tmp_path, "[fleet]\nname = \n")
    with pytest.raises(ConfigError, match=r"fleet\.toml: not TOML: .*line 2"):
        read_file(path)


def test_bytes_that_are_not_utf8_are_a_configuration_error(tmp_path: Path) -> None:
    """Not a traceback."""
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not TOML"):
        read_file(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With the system's own reason."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        read_file(tmp_path / "nowhere.toml")


def test_a_file_that_is_too_large_is_refused_with_the_limit(tmp_path: Path) -> None:
    """A log file given by mistake is not parsed."""
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="at most 4194304"):
        read_file(path)


def test_a_wrong_value_is_named_with_file_table_key_value_and_what_is_allowed() -> None:
    """One line holds all that is needed to mend it."""
    assert fault({"needed": "x", "port": "eighty"}) == (
        "fleet.toml: [service] port = 'eighty': "
        "Input should be a valid integer, unable to parse string as an integer"
    )


def test_an_unknown_key_is_named_with_those_that_are_known() -> None:
    """A misspelt key is never a silent default."""
    assert fault({"needed": "x", "prot": 1}) == (
        "fleet.toml: [service] prot = 1: no such key; allowed are host, port, hold, needed, peers"
    )


def test_a_missing_key_without_a_default_is_named() -> None:
    """There is no value to show."""
    assert fault({}) == "fleet.toml: [service] needed: is missing and has no default"


def test_a_fault_inside_a_nested_table_has_its_whole_path() -> None:
    """Keys join with a dot, as in TOML."""
    assert fault({"needed": "x", "hold": {"secs": 1}}) == ("fleet.toml: [service] hold.secs = 1: no such key")


def test_every_fault_has_its_own_line() -> None:
    """All can be mended at once."""
    lines = fault({"port": "x", "hold": {"requests": "y"}}).splitlines()
    assert len(lines) == 3
    assert [line.split("]")[1].split()[0].rstrip(":") for line in lines] == [
        "port",
        "hold.requests",
        "needed",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_no_values(value: float) -> None:
    """TOML knows both; no setting of ours means anything with them."""
    assert "hold.seconds" in fault({"needed": "x", "hold": {"seconds": value}})


def test_the_environment_goes_over_the_file() -> None:
    """Values are TOML; what is not one is taken as a string; nested keys join with two underscores."""
    environment = {
        "HERON_SERVICE_PORT": "9001",
        "HERON_SERVICE_HOST": "10.0.0.7",
        "HERON_SERVICE_NEEDED": "plain words",
        "HERON_SERVICE_HOLD__SECONDS": "2.5",
        "HERON_OTHER_PORT": "1",
        "PATH": "/bin",
    }
    made = built({"port": 8000, "hold": {"requests": 7}}, environment)
    assert (made.port, made.host, made.needed) == (9001, "10.0.0.7", "plain words")
    assert (made.hold.seconds, made.hold.requests) == (2.5, 7)


def test_the_file_is_left_as_it_was_by_the_environment() -> None:
    """Several services are built from one reading of it."""
    values = {"needed": "x", "hold": {"requests": 7}}
    built(values, {"HERON_SERVICE_HOLD__REQUESTS": "9", "HERON_SERVICE_PORT": "1"})
    assert values == {"needed": "x", "hold": {"requests": 7}}


def test_a_fault_in_the_environment_names_the_variable() -> None:
    """Nobody should look for it in the file."""
    assert fault({"needed": "x"}, {"HERON_SERVICE_PORT": "eighty"}).startswith(
        "environment HERON_SERVICE_PORT: [service] port = 'eighty': "
    )
    assert fault({"needed": "x"}, {"HERON_SERVICE_PROT": "1"}).startswith(
        "environment HERON_SERVICE_PROT: [service] prot = 1: no such key"
    )


def test_without_a_prefix_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that many share have no variables of their own."""
    monkeypatch.setenv("HERON_SERVICE_PORT", "9001")
    assert build(Service, {"needed": "x"}, table="service", source="f").port == 8000


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is given."""
    monkeypatch.setenv("HERON_FLEET_NAME", "from-outside")
    assert load_fleet({}, "fleet.toml").name == "from-outside"


def test_a_configuration_cannot_be_changed() -> None:
    """It is shared by everything in a process."""
    with pytest.raises(ValueError, match="frozen"):
        setattr(built({"needed": "x"}), "port", 1)  # noqa: B010  # mypy would refuse the plain form


def test_a_fleet_has_defaults_for_everything() -> None:
    """The token is needed only beyond loopback."""
    assert load_fleet({}, "fleet.toml", {}) == FleetConfig(
        name="default",
        redis_url="redis://127.0.0.1:6379/0",
        site_token=None,
        max_clock_skew_seconds=30.0,
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "a:b"), ("name", ""), ("redis_url", "http://x"), ("max_clock_skew_seconds", 0)],
)
def test_a_fleet_setting_that_cannot_work_is_refused(key: str, value: Any) -> None:
    """The message holds table, key and value."""
    with pytest.raises(ConfigError) as caught:
        load_fleet({"fleet": {key: value}}, "fleet.toml", {})
    assert str(caught.value).startswith(f"fleet.toml: [fleet] {key} = {value!r}: ")


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h:1/0", "unix:///run/redis.sock"])
def test_redis_may_be_reached_over_tcp_tls_or_a_socket(url: str) -> None:
    """The three kinds of URL that the client knows."""
    assert load_fleet({"fleet": {"redis_url": url}}, "fleet.toml", {}).redis_url == url


def test_the_site_token_is_not_shown() -> None:
    """A configuration that is logged or printed gives no secret away."""
    fleet = load_fleet({"fleet": {"site_token": "s3cret"}}, "fleet.toml", {})
    assert isinstance(fleet.site_token, SecretStr)
    assert "s3cret" not in repr(fleet)
    assert fleet.site_token.get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fleet = 3", "[fleet] must be a table"),
        ("[[router]]\nport = 1", "[router] must be a table"),
        ("sites = 3", "sites must be tables: [[sites]]"),
        ("[sites]\nsite_id = 'north'", "sites must be tables: [[sites]]"),
        ("sites = [1]", "sites must be tables: [[sites]]"),
    ],
)
def test_a_table_of_the_wrong_kind_is_named_with_how_to_write_it(
    tmp_path: Path, text: str, said: str
) -> None:
    """Not a traceback from whoever reads it next."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert str(caught.value) == f"{path}: {said}"


def of_fleet(values: dict[str, Any], environment: dict[str, str] | None = None) -> FleetConfig:
    return load_fleet({"fleet": values}, "fleet.toml", environment or {})


@pytest.mark.parametrize("value", [12345, ["hunter2"], {"a": "hunter2"}])
def test_a_faulty_secret_is_not_shown(value: Any) -> None:
    """An error goes to logs and tickets."""
    with pytest.raises(ConfigError) as caught:
        of_fleet({"site_token": value})
    assert str(caught.value) == "fleet.toml: [fleet] site_token = (not shown): Input should be a valid string"


def test_a_password_in_a_faulty_url_is_not_shown() -> None:
    """The rest of it is, for that is what is wrong."""
    with pytest.raises(ConfigError) as caught:
        of_fleet({"redis_url": "redis://user:hunter2@host:port"})
    assert "hunter2" not in str(caught.value)
    assert "redis_url = 'redis://…@host:port'" in str(caught.value)
    assert "the port must be a number from 0 to 65535" in str(caught.value)


def test_a_long_faulty_value_is_cut() -> None:
    """The message stays one line that can be read."""
    assert len(fault({"needed": "x", "port": "9" * 10_000})) < 500


@pytest.mark.parametrize("text", ["12345", "1e5", "0123", "true", "2026-01-01", '"12345"', "[1]"])
def test_text_in_the_environment_needs_no_quotes_where_text_is_wanted(text: str) -> None:
    """A token may look like anything; quotes are TOML's and go."""
    token = of_fleet({}, {"HERON_FLEET_SITE_TOKEN": text}).site_token
    assert token is not None
    assert token.get_secret_value() == text.strip('"')


def test_a_number_in_the_environment_stays_one_where_a_number_is_wanted() -> None:
    """Only a key that wants text takes the text."""
    made = built({"needed": 1}, {"HERON_SERVICE_NEEDED": "7", "HERON_SERVICE_PORT": "81"})
    assert (made.needed, made.port) == ("7", 81)


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ({"kind": "remot"}, ".kind = 'remot': allowed are 'local', 'remote'"),
        ({}, ".kind: is missing and has no default"),
        ({"kind": "remote", "api_key": 7}, ".remote.api_key = (not shown): Input should be a valid string"),
        ({"kind": "remote", "api_ky": "hunter2"}, ".remote.api_ky = (not shown): no such key"),
        ({"kind": "remote", "speed": {"a": 2}}, ".remote.speed: Input should be a valid number"),
    ],
)
def test_a_secret_is_not_shown_wherever_in_a_table_it_stands(link: dict[str, Any], says: str) -> None:
    """Neither by its own fault nor by one beside it; and a list is not told that it is empty."""
    values = {"needed": "x", "peers": [{"watts": 1, "link": {"api_key": "hunter2"} | link}]}
    assert fault(values) == f"fleet.toml: [service] peers.0.link{says}"


def test_a_fault_of_an_entry_is_said_once() -> None:
    """Its list is not told besides that it is empty."""
    assert fault({"needed": "x", "peers": [{"watts": -1}]}) == (
        "fleet.toml: [service] peers.0.watts = -1: Input should be greater than 0"
    )
    assert "at least 1 item" in fault({"needed": "x", "peers": []})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://…@h:1/0"),
        ("rediss://user:p/w@x@h:1/0", "rediss://…@h:1/0"),
        ("redis://h:1/0?db=1&password=pw&x=1", "redis://h:1/0?db=1&password=…&x=1"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    """User and password go together; what is needed to find the server stays."""
    assert without_password(url) == shown
