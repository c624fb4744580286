"""What an operator's commands write where records are signed, on a real Redis."""

from __future__ import annotations

import json
import re
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
    assert main(["keys", "list", "--json"]) == 0
    listed = tmp_path / "keys.json"
    listed.write_text(capsys.readouterr().out)
    server.client().hset(f"heron:default:key:{key_id(key.encode())}", "tiers", "priority")
    sign = ["keys", "sign", str(listed)]
    assert main([*sign, "--config", config(tmp_path, is_asked=False)]) == 0
    captured = capsys.readouterr()
    assert captured.out == "1 keys are signed.\n"
    assert "so not signed: cdcdcdcdcdcd" in captured.err
    record = record_of(server, key)
    assert record[b"tiers"] == b"default", "what was looked over, not what stands there now"
    assert opens(ring_with((key, record)), key) == "old"
    assert main(["keys", "revoke", key, "--config", config(tmp_path)]) == 0
    capsys.readouterr()
    assert main([*sign, "--json", "--config", config(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] == [key_id(key.encode())]
    assert opens(ring_with((key, record_of(server, key))), key) == "revoked"
    assert main(sign) == 2
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
    assert "cordoned" in cordons.take(cordoned, "north", time.time())
    assert main(["cordon", "--config", path]) == 0
    assert "blades" in capsys.readouterr().out
    time.sleep(0.01)
    assert main(["cordon", "north", "--lift", "--config", path]) == 0
    lifted = server.client().get(CORDON)
    assert isinstance(lifted, bytes)
    assert cordons.take(lifted, "north", time.time()) == "north is cordoned no more"
    for _ in range(2):
        with pytest.raises(ValueError, match="signed before the one in use: a replay"):
            cordons.take(cordoned, "north", time.time())
        assert cordons.of("north") is None
        cordons.take(b"", "north", time.time())  # also once Redis has lost the lift
    forged = Cordon(reason="mine", since_unix_seconds=1.0).to_json()
    server.client().set(CORDON, forged)
    capsys.readouterr()
    assert main(["cordon", "--config", path]) == 0
    said = capsys.readouterr().out
    assert "does not count: Cordon: not signed" in said
    assert "operator_key_file" in said


def test_a_cordon_is_over_when_it_says(server: RedisServer, capsys: Captured, tmp_path: Path) -> None:
    """Though its key in Redis was put back without an end."""
    path = config(tmp_path)
    assert main(["cordon", "north", "--for", "1h", "--config", path]) == 0
    raw = server.client().get(CORDON)
    assert isinstance(raw, bytes)
    cordons, now = Cordons(trust_of(FLEET)), time.time()
    assert "cordoned" in cordons.take(raw, "north", now)
    assert cordons.take(raw, "north", now + 3590) == ""
    assert cordons.take(raw, "north", now + 3601) == "north is cordoned no more"
    assert cordons.of("north") is None
    assert cordons.lost("north", now + 3601) is None
    late = Cordons(trust_of(FLEET))
    assert late.take(raw, "north", now + 9e6) == ""
    assert late.of("north") is None


def test_an_operators_clock_that_was_ahead_does_not_stand_in_the_way(
    server: RedisServer, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Routers wait until the time has come; what comes after is signed after, and said to be."""
    path = config(tmp_path)
    now = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: now + 3600)
        assert main(["cordon", "north", "--config", path]) == 0
        assert main(["keys", "add", "--tenant", "acme", "--config", path]) == 0
    key = capsys.readouterr().out.strip().splitlines()[-1]
    raw = server.client().get(CORDON)
    assert isinstance(raw, bytes)
    cordons = Cordons(trust_of(FLEET))
    with pytest.raises(ValueError, match="signed 3600 s from now: a clock is off"):
        cordons.take(raw, "north", now)
    assert "cordoned" in cordons.take(raw, "north", now + 3600)
    assert main(["cordon", "north", "--lift", "--config", path]) == 0
    assert re.search(r"was signed 3[56]\d\d s from now, by a clock that was ahead", capsys.readouterr().err)
    lifted = server.client().get(CORDON)
    assert isinstance(lifted, bytes)
    assert cordons.take(lifted, "north", now + 3600) == "north is cordoned no more"
    ring, early = KeyRing(trust_of(FLEET)), record_of(server, key)
    [(_, error)] = ring.take({key_id(key.encode()): early}, 0.0, now)
    assert error.reason == "signed_ahead"
    assert ring.take({key_id(key.encode()): early}, 0.0, now) == [], "told once"
    assert ring.take({key_id(key.encode()): early}, 0.0, now + 3600) == []
    ring.note_read(0.0)
    assert opens(ring, key) == "acme"
    assert main(["keys", "revoke", key, "--config", path]) == 0
    ring.take({key_id(key.encode()): record_of(server, key)}, 0.0, now + 3600)
    assert opens(ring, key) == "revoked"


def test_a_key_is_revoked_whatever_stands_in_redis(
    server: RedisServer, capsys: Captured, tmp_path: Path
) -> None:
    """Its record is garbled, or gone: a signed word needs none."""
    path = config(tmp_path)
    for spoil in (
        lambda name: server.client().hset(name, "tiers", "?"),
        lambda name: server.client().delete(name),
    ):
        assert main(["keys", "add", "--tenant", "acme", "--config", path]) == 0
        key = capsys.readouterr().out.strip()
        ring = ring_with((key, record_of(server, key)))
        time.sleep(0.01)
        spoil(f"heron:default:key:{key_id(key.encode())}")
        assert main(["keys", "revoke", key, "--config", path]) == 0
        capsys.readouterr()
        assert opens(ring_with((key, record_of(server, key)), ring=ring), key) == "revoked"


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
