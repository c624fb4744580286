"""`heron up`: its example works as it stands, its mistakes are said."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from cli import main, up
from cli.topology import build_topology
from cli.up import EXAMPLE
from fleet.config import ConfigError

REPOSITORY = Path(__file__).parents[3]


def test_the_example_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`heron up --example` prints the file and ends with 0."""
    assert main.main(["up", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE.read_text()


def test_the_example_is_what_deploy_has() -> None:
    """deploy/examples/fleet.toml is the same text."""
    assert (REPOSITORY / "deploy" / "examples" / "fleet.toml").read_text() == EXAMPLE.read_text()


def test_every_service_accepts_the_example() -> None:
    """Router, feed and three agents read it; what is firm covers what stopped engines draw."""
    topology = build_topology(EXAMPLE, {}, redis=None)
    assert [site.site_id for site in topology.sites] == ["north", "coast", "ridge"]
    assert all(site.safe_floor_watts >= site.site_model().server_idle_watts for site in topology.sites)


def test_without_a_file_it_says_how_to_get_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No --config: exit 2, and the example is named."""
    monkeypatch.delenv("HERON_CONFIG", raising=False)
    assert main.main(["up"]) == 2
    assert "heron up --example" in capsys.readouterr().err


def test_a_redis_that_may_not_be_started_is_missed(tmp_path: Path) -> None:
    """With --no-redis and none at the URL: the URL is named, before anything starts."""
    path = tmp_path / "fleet.toml"
    path.write_text(EXAMPLE.read_text().replace(":6379/0", ":1/0"))
    with pytest.raises(ConfigError, match=r"redis_url = 'redis://127\.0\.0\.1:1/0': no Redis answers"):
        up.run(main.parse(["up", "--config", str(path), "--no-redis"]))


def test_a_log_directory_that_cannot_be_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a place where none can be made, and one that is another user's."""
    monkeypatch.setattr(Redis, "ping", lambda _self: True)

    def refusal(directory: Path) -> str:
        with pytest.raises(ConfigError) as refused:
            up.run(main.parse(["up", "--config", str(EXAMPLE), "--log-dir", str(directory)]))
        return str(refused.value)

    (tmp_path / "file").touch()
    said = f"heron up: logs cannot be written to {tmp_path}"
    assert refusal(tmp_path / "file") == f"{said}/file: File exists; choose with --log-dir"
    assert refusal(tmp_path / "file" / "in") == f"{said}/file/in: Not a directory; choose with --log-dir"
    monkeypatch.setattr(up.os, "access", lambda *_: False)
    assert refusal(tmp_path / "not mine") == f"{said}/not mine: permission denied; choose with --log-dir"


def test_the_password_of_a_redis_that_is_missed_is_not_shown(tmp_path: Path) -> None:
    """The message goes to logs and tickets."""
    path = tmp_path / "fleet.toml"
    path.write_text(EXAMPLE.read_text().replace("127.0.0.1:6379/0", ":s3cretpw@127.0.0.1:1/0"))
    with pytest.raises(ConfigError, match=r"redis_url = 'redis://…@127\.0\.0\.1:1/0'") as refused:
        up.run(main.parse(["up", "--config", str(path), "--no-redis"]))
    assert "s3cretpw" not in str(refused.value)


def test_the_password_of_the_redis_that_is_used_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said at every start of a fleet whose Redis runs already."""
    monkeypatch.setattr(Redis, "ping", lambda _self: True)
    path = tmp_path / "fleet.toml"
    path.write_text(EXAMPLE.read_text().replace("127.0.0.1:6379/0", ":s3cretpw@10.0.0.7:6379/0"))
    assert up._redis(path, tmp_path, may_start_redis=True) is None
    assert capsys.readouterr().err == "using the Redis that answers at redis://…@10.0.0.7:6379/0\n"
