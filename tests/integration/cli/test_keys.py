"""`heron keys` on a real Redis."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer

from cli.main import main
from fleet.api_key import key_id
from fleet.records import ApiKey

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    monkeypatch.setenv("HERON_FLEET_REDIS_URL", made.url)
    monkeypatch.delenv("HERON_CONFIG", raising=False)
    yield made
    made.stop()


def add(capsys: Captured, *words: str) -> str:
    """Make a key; returns it."""
    assert main(["keys", "add", *words]) == 0
    return capsys.readouterr().out.strip()


def stored(server: RedisServer, key: str) -> ApiKey:
    return ApiKey.from_hash(server.client().hgetall(f"heron:default:key:{key_id(key.encode())}"))


def test_a_new_key_is_the_only_thing_on_standard_output(server: RedisServer, capsys: Captured) -> None:
    """So that KEY=$(heron keys add …) works; what is kept is its SHA-256."""
    assert main(["keys", "add", "--tenant", "acme"]) == 0
    captured = capsys.readouterr()
    assert re.fullmatch(r"hk-[\w-]{43}\n", captured.out)
    key = captured.out.strip()
    assert key not in captured.err
    record = stored(server, key)
    assert (record.tenant, record.tiers, record.requests_per_minute) == ("acme", ("default",), None)
    assert record.created_at_unix_seconds is not None
    assert not any(key.encode() in value for value in _everything(server))


@pytest.mark.parametrize(
    ("text", "environment", "is_warned"),
    [
        ('[router]\nauth = "open"\n', {}, True),
        ("[router]\nport = 8000\n", {}, True),
        ('[router]\nauth = "keys"\n', {}, False),
        ("[router]\n", {"HERON_ROUTER_AUTH": "keys"}, False),
        ("[fleet]\n", {}, False),
    ],
)
def test_a_key_for_a_router_that_asks_for_none_is_warned_of(
    text: str,
    environment: dict[str, str],
    is_warned: bool,
    server: RedisServer,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Where the file is known to have such a router; the key is made all the same."""
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["keys", "add", "--tenant", "acme", "--config", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("hk-")
    assert ('[router] auth is "open"' in captured.err) is is_warned


def _everything(server: RedisServer) -> list[bytes]:
    client = server.client()
    names = client.keys()
    return [*names, *(value for name in names for value in client.hvals(name))]


def test_what_a_key_may_do_is_kept_with_it(server: RedisServer, capsys: Captured) -> None:
    """Tiers, quotas, expiry, name."""
    words = ("--tenant", "acme", "--name", "batch jobs", "--tier", "flex", "--tier", "default")
    quotas = ("--requests-per-minute", "60", "--tokens-per-minute", "9000", "--concurrent-requests", "4")
    record = stored(server, add(capsys, *words, *quotas, "--expires-days", "1.5"))
    assert (record.name, record.tiers) == ("batch jobs", ("flex", "default"))
    limits = (record.requests_per_minute, record.tokens_per_minute, record.concurrent_requests)
    assert limits == (60, 9000, 4)
    assert record.expires_at_unix_seconds is not None
    assert record.created_at_unix_seconds is not None
    assert record.expires_at_unix_seconds - record.created_at_unix_seconds in (129_600, 129_601)


def test_the_list_shows_everything_but_the_keys(server: RedisServer, capsys: Captured) -> None:
    """As text and as JSON; one that cannot be read is there too."""
    key = add(capsys, "--tenant", "acme", "--tokens-per-minute", "9000")
    server.client().hset("heron:default:key:" + "0" * 64, "tenant", "no version")
    assert main(["keys", "list"]) == 0
    text = capsys.readouterr().out
    assert key not in text
    header, bad, good = text.splitlines()
    assert header.split()[:3] == ["ID", "TENANT", "NAME"]
    assert good.split() == [key_id(key.encode())[:12], "acme", "–", "default", "–", "9000", "–", "–", "valid"]
    assert bad.startswith("0" * 12)
    assert "unreadable: ApiKey: tenant" in bad
    assert main(["keys", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["unreadable", "valid"]
    assert rows[1]["id"] == key_id(key.encode())
    assert "key" not in rows[1]


def test_an_empty_list_says_how_to_make_a_key(server: RedisServer, capsys: Captured) -> None:
    """On standard error; JSON is an empty list."""
    assert main(["keys", "list"]) == 0
    assert "heron keys add" in capsys.readouterr().err
    assert main(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_json_gives_the_key_and_its_record(server: RedisServer, capsys: Captured) -> None:
    """For scripts."""
    made = json.loads(add(capsys, "--tenant", "acme", "--json"))
    assert key_id(made["key"].encode()) == made["id"]
    assert (made["tenant"], made["state"]) == ("acme", "valid")


@pytest.mark.parametrize("how", ["id", "key"])
def test_a_key_is_revoked_by_its_id_or_by_itself(server: RedisServer, capsys: Captured, how: str) -> None:
    """A leaked key is often all that one has; the record stays and says when."""
    key = add(capsys, "--tenant", "acme")
    add(capsys, "--tenant", "acme")
    assert main(["keys", "revoke", key if how == "key" else key_id(key.encode())[:12]]) == 0
    assert key not in capsys.readouterr().out
    record = stored(server, key)
    assert record.revoked_at_unix_seconds is not None
    assert record.tenant == "acme"
    assert main(["keys", "list", "--json"]) == 0
    assert sorted(row["state"] for row in json.loads(capsys.readouterr().out)) == ["revoked", "valid"]


def test_what_redis_lost_is_restored(server: RedisServer, capsys: Captured, tmp_path: Path) -> None:
    """From what `list --json` printed; what is there stays as it is, what could not be read is left out."""
    keys = [add(capsys, "--tenant", name, "--tier", "priority", "--tokens-per-minute", "9") for name in "ab"]
    server.client().hset("heron:default:key:" + "0" * 64, "tenant", "no version")
    before = [stored(server, key) for key in keys]
    assert main(["keys", "list", "--json"]) == 0
    backup = tmp_path / "keys.json"
    backup.write_text(capsys.readouterr().out)
    assert main(["keys", "revoke", keys[1]]) == 0
    server.client().delete(f"heron:default:key:{key_id(keys[0].encode())}", "heron:default:key:" + "0" * 64)
    capsys.readouterr()
    assert main(["keys", "restore", str(backup)]) == 0
    assert "1 keys are restored, 1 were there already" in capsys.readouterr().out
    assert stored(server, keys[0]) == before[0]
    assert stored(server, keys[1]).revoked_at_unix_seconds is not None
    assert len(server.client().keys()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "line 1"),
        ("{}", "not a list"),
        ('[{"tenant": "a"}]', "key 1 has no id"),
        ('[{"id": "' + "a" * 64 + '", "tenant": "has space"}]', "key 1: tenant"),
    ],
)
def test_a_backup_that_is_none_restores_nothing(
    server: RedisServer, capsys: Captured, tmp_path: Path, text: str | None, said: str
) -> None:
    """All of it, or nothing."""
    backup = tmp_path / "keys.json"
    if text is not None:
        backup.write_text(text)
    assert main(["keys", "restore", str(backup)]) == 2
    assert said in capsys.readouterr().err
    assert server.client().keys() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "--tenant", "has space"], "tenant"),
        (["add", "--tenant", "a", "--requests-per-minute", "-1"], "requests_per_minute"),
        (["add", "--tenant", "a", "--expires-days", "0"], "more than 0"),
        (["add", "--tenant", "a", "--expires-days", "nan"], "more than 0"),
        (["add", "--tenant", "a", "--expires-days", "inf"], "at most"),
        (["revoke", "abc"], "at least 6"),
        (["revoke", "abcdef012345"], "no such key"),
        (["revoke", "hk-never-made"], "no such key"),
        (["list", "--config", "/nowhere.toml"], "/nowhere.toml"),
    ],
)
def test_a_mistake_is_said_and_exits_2(
    server: RedisServer, capsys: Captured, words: list[str], said: str
) -> None:
    """And nothing is written."""
    assert main(["keys", *words]) == 2
    assert said in capsys.readouterr().err
    assert server.client().keys() == []


def test_an_id_that_two_keys_begin_with_revokes_neither(server: RedisServer, capsys: Captured) -> None:
    """It asks for more digits."""
    client = server.client()
    for end in "01":
        client.hset("heron:default:key:" + "a" * 63 + end, mapping={"schema_version": "1.1", "tenant": "t"})
    assert main(["keys", "revoke", "a" * 12]) == 2
    assert "2 keys begin so" in capsys.readouterr().err


def test_without_redis_it_says_so_and_exits_1(server: RedisServer, capsys: Captured) -> None:
    """With the address that was tried."""
    server.stop()
    assert main(["keys", "list"]) == 1
    assert str(server.port) in capsys.readouterr().err
