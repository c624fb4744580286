"""`heron cordon` on a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.redis_server import RedisServer

from cli.main import main
from fleet.records import Cordon

Captured = pytest.CaptureFixture[str]
KEY = "heron:default:cordon:north"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path)
    made.start()
    monkeypatch.setenv("HERON_FLEET_REDIS_URL", made.url)
    monkeypatch.delenv("HERON_CONFIG", raising=False)
    made.client().zadd("heron:default:sites", {"north": 1.0, "coast": 2.0})
    yield made
    made.stop()


def test_a_site_is_cordoned_and_back_again(server: RedisServer, capsys: Captured) -> None:
    """The record says since when and why; the list shows it."""
    assert main(["cordon", "north", "--reason", "new fans"]) == 0
    assert "north is cordoned until heron cordon north --lift" in capsys.readouterr().out
    record = Cordon.from_json(server.client().get(KEY))
    assert record.reason == "new fans"
    assert record.since_unix_seconds > 1.7e9
    assert server.client().ttl(KEY) == -1
    assert main(["cordon"]) == 0
    assert capsys.readouterr().out.startswith("north  since 20")
    assert main(["cordon", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["site_id"], row["reason"]) == ("north", "new fans")
    assert main(["cordon", "north", "--lift"]) == 0
    assert "cordoned no more" in capsys.readouterr().out
    lifted = Cordon.from_json(server.client().get(KEY))
    assert lifted.lifted_at_unix_seconds is not None
    assert lifted.since_unix_seconds == record.since_unix_seconds
    assert main(["cordon", "north", "--lift"]) == 0
    assert "was not cordoned" in capsys.readouterr().out
    assert main(["cordon"]) == 0
    assert "No site is cordoned" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1d", 86_400), ("90s", 90)])
def test_it_may_end_by_itself(server: RedisServer, capsys: Captured, text: str, seconds: int) -> None:
    """Redis lets the record go, and the record says when, for the case that Redis loses it before."""
    assert main(["cordon", "north", "--for", text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == seconds
    assert seconds - 5 <= server.client().ttl(KEY) <= seconds
    record = Cordon.from_json(server.client().get(KEY))
    assert record.until_unix_seconds == record.since_unix_seconds + seconds
    assert main(["cordon"]) == 0
    assert " UTC  until 20" in capsys.readouterr().out


def test_what_redis_has_lost_can_be_lifted(server: RedisServer, capsys: Captured) -> None:
    """Routers may know of it still."""
    assert main(["cordon", "north", "--lift"]) == 0
    assert "was not cordoned" in capsys.readouterr().out
    assert Cordon.from_json(server.client().get(KEY)).lifted_at_unix_seconds is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cordon", "nort"], "there is no site 'nort' in this fleet; known: coast, north"),
        (["cordon", "north", "--for", "soon"], "such as 30m, 2h or 1d"),
        (["cordon", "north", "--for", "0s"], "such as 30m, 2h or 1d"),
        (["cordon", "north", "--for", "999999d"], "a year at most"),
        (["cordon", "north", "--reason", "x" * 600], "reason"),
        (["cordon", "../north", "--lift"], "is no site's name"),
        (["cordon", "--lift"], "--lift takes the SITE alone"),
        (["cordon", "--for", "1h"], "which SITE?"),
        (["cordon", "--reason", "north"], "which SITE?"),
        (["cordon", "north", "--lift", "--for", "1h"], "--lift takes the SITE alone"),
    ],
)
def test_mistakes_are_said_and_nothing_is_written(
    server: RedisServer, capsys: Captured, words: list[str], said: str
) -> None:
    """Exit 2."""
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert server.client().get(KEY) is None


def test_what_cannot_be_read_is_shown_as_such(server: RedisServer, capsys: Captured) -> None:
    """Routers pass it over, and so the list says that it does not count."""
    server.client().set(KEY, b"nonsense")
    assert main(["cordon"]) == 0
    assert "unreadable, so it does not count" in capsys.readouterr().out


def test_without_redis_it_says_so(server: RedisServer, capsys: Captured) -> None:
    """Exit 1."""
    server.stop()
    assert main(["cordon", "north"]) == 1
    assert "does Redis run?" in capsys.readouterr().err
