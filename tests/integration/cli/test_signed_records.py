"""What an operator's commands write where records are signed, on a real Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer
from support.signing_keys import SigningKeys

from cli.main import main
from cli.toml_text import to_toml
from fleet.api_key import key_id
from fleet.config import FleetConfig
from fleet.records import ApiKey, Cordon
from fleet.signing_keys import trust_of
from router.live.cordons import Cordons
from router.policy.key_ring import KeyRing
from router.workers.key_relay import RelayedKeyRing

Captured = pytest.CaptureFixture[str]
KEYS = SigningKeys()
FLEET = FleetConfig(trusted_keys=KEYS.trusted("north"))
CORDON = "heron:default:cordon:north"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    monkeypatch.setenv("HERON_FLEET_REDIS_URL", made.url)
    monkeypatch.delenv("HERON_CONFIG", raising=False)
    made.client().zadd("heron:default:sites", {"north": time.time()})
    yield made
    made.stop()


def config(directory: Path, *, has_key: bool = True, is_asked: bool = True) -> str:
    """Of an operator with a key, in a fleet that asks for signatures."""
    table = {"trusted_keys": FLEET.trusted_keys.model_dump(mode="json")} if is_asked else {}
    if has_key:
        KEYS.write(directory, "operator")
        table["operator_key_file"] = "operator.pem"
    path = directory / f"fleet-{has_key}-{is_asked}.toml"
    path.write_text(to_toml({"fleet": table}))
    return str(path)


def record_of(server: RedisServer, key: str) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = server.client().hgetall(f"heron:default:key:{key_id(key.encode())}")
    return found


def ring_with(*records: tuple[str, dict[bytes, bytes]], ring: KeyRing | None = None) -> KeyRing:
    made = ring or KeyRing(trust_of(FLEET))
    for key, fields in records:
        made.take({key_id(key.encode()): fields}, 0.0)
    made.note_read(0.0)
    return made


def opens(ring: KeyRing, key: str) -> object:
    found = ring.find(f"Bearer {key}".encode(), time.time())
    return found if isinstance(found, str) else found.tenant


def test_keys_are_signed_and_their_revocation_is(
    server: RedisServer, capsys: Captured, tmp_path: Path
) -> None:
    """A router believes both, and neither what somebody else wrote nor what was there before."""
    path = config(tmp_path)
    assert main(["keys", "add", "--tenant", "acme", "--name", 'Ü "x"', "--config", path]) == 0
    key = capsys.readouterr().out.strip()
    valid = record_of(server, key)
    ring = ring_with((key, valid))
    assert opens(ring, key) == "acme"
    forged = {**valid, b"revoked_at_unix_seconds": b"1.0"}
    assert opens(ring_with((key, forged), ring=ring), key) == "acme", "who cannot sign revokes nothing"
    time.sleep(0.01)
    assert main(["keys", "revoke", key, "--config", path]) == 0
    capsys.readouterr()
    revoked = record_of(server, key)
    assert opens(ring_with((key, revoked), ring=ring), key) == "revoked"
    assert opens(ring_with((key, valid), ring=ring), key) == "revoked", "a replay revives nothing"
    server.client().hset("heron:default:key:" + "ab" * 32, mapping={"schema_version": "1.0", "tenant": "me"})
    assert main(["keys", "list", "--config", config(tmp_path, has_key=False)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("unreadable: ApiKey: not signed" in line for line in lines)
    assert any(line.endswith("revoked") for line in lines)


def test_workers_hear_only_of_what_is_believed(server: RedisServer, capsys: Captured, tmp_path: Path) -> None:
    """They believe all that their parent sends."""
    assert main(["keys", "add", "--tenant", "acme", "--config", config(tmp_path)]) == 0
    key = capsys.readouterr().out.strip()
    told: list[bytes] = []
    ring = RelayedKeyRing(told.append, trust_of(FLEET))
    valid = record_of(server, key)
    ring_with((key, valid), ring=ring)
    count = len(told)
    for forged in ({**valid, b"tiers": b"priority"}, {**valid, b"revoked_at_unix_seconds": b"1.0"}):
        ring.take({key_id(key.encode()): forged}, 0.0)
    assert len(told) == count
    assert not any(b"priority" in frame or b"revoked" in frame for frame in ring.all_frames())


def test_what_was_made_before_is_signed_on_request(
    server: RedisServer, capsys: Captured, tmp_path: Path
) -> None:
    """Going over: keys of an unsigned fleet, and one that holds no record."""
    assert main(["keys", "add", "--tenant", "old"]) == 0
    key = capsys.readouterr().out.strip()
    assert b"signature" not in record_of(server, key)
    assert opens(ring_with((key, record_of(server, key))), key) == "unknown"
    server.client().hset("heron:default:key:" + "cd" * 32, mapping={"tenant": "?"})
    assert main(["keys", "sign", "--config", config(tmp_path, is_asked=False)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "1 keys are signed.\n"
    assert captured.err.startswith("cdcdcdcdcdcd is not: ApiKey: ")
    assert opens(ring_with((key, record_of(server, key))), key) == "old"
    assert main(["keys", "sign", "--json", "--config", config(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] == [key_id(key.encode())]
    assert main(["keys", "sign"]) == 2
    assert "operator_key_file names no key" in capsys.readouterr().err


def test_an_operator_without_a_key_is_told_before_anything_is_written(
    server: RedisServer, capsys: Captured, tmp_path: Path
) -> None:
    """Nobody would believe it; to look is free."""
    path = config(tmp_path, has_key=False)
    for words in (["keys", "add", "--tenant", "a"], ["keys", "revoke", "ab" * 32], ["cordon", "north"]):
        assert main([*words, "--config", path]) == 2
        assert f"{path}: [fleet] operator_key_file: is missing" in capsys.readouterr().err
    assert main(["cordon", "--config", path]) == 0
    assert [key for key in server.client().keys("*") if key != b"heron:default:sites"] == []


def test_cordons_are_signed_for_their_site(server: RedisServer, capsys: Captured, tmp_path: Path) -> None:
    """And a lift is not undone by the cordon that it ended."""
    path = config(tmp_path)
    assert main(["cordon", "north", "--reason", "blades", "--config", path]) == 0
    cordoned = server.client().get(CORDON)
    assert isinstance(cordoned, bytes)
    cordons = Cordons(trust_of(FLEET))
    assert "cordoned" in cordons.take(cordoned, "north")
    assert main(["cordon", "--config", path]) == 0
    assert "blades" in capsys.readouterr().out
    time.sleep(0.01)
    assert main(["cordon", "north", "--lift", "--config", path]) == 0
    lifted = server.client().get(CORDON)
    assert isinstance(lifted, bytes)
    assert cordons.take(lifted, "north") == "north is cordoned no more"
    with pytest.raises(ValueError, match="signed before the one in use: a replay"):
        cordons.take(cordoned, "north")
    assert cordons.of("north") is None
    forged = Cordon(reason="mine", since_unix_seconds=1.0).to_json()
    server.client().set(CORDON, forged)
    capsys.readouterr()
    assert main(["cordon", "--config", path]) == 0
    assert "does not count: Cordon: not signed" in capsys.readouterr().out


def test_a_restored_key_is_signed_anew(server: RedisServer, capsys: Captured, tmp_path: Path) -> None:
    """A backup has no signatures."""
    path = config(tmp_path)
    assert main(["keys", "add", "--tenant", "acme", "--config", path]) == 0
    key = capsys.readouterr().out.strip()
    assert main(["keys", "list", "--json", "--config", path]) == 0
    backup = tmp_path / "keys.json"
    backup.write_text(capsys.readouterr().out)
    server.client().flushall()
    assert main(["keys", "restore", str(backup), "--config", path]) == 0
    assert opens(ring_with((key, record_of(server, key))), key) == "acme"
    assert isinstance(ApiKey.from_hash(record_of(server, key)), ApiKey)
