"""replay.runner: open files for as many connections as may be in flight (runs: tests/integration/replay)."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from replay.runner import allow_open_files


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """A low soft limit, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowered = (min(512, before[1]) if before[1] != resource.RLIM_INFINITY else 512, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, lowered)
    yield lowered
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_enough_is_left_alone(limits: tuple[int, int]) -> None:
    """Few connections fit already."""
    assert allow_open_files(100) is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_the_soft_limit_is_raised(limits: tuple[int, int]) -> None:
    """As far as needed, and no further."""
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 700:
        pytest.skip(f"the hard limit on open files here is {limits[1]}")
    assert allow_open_files(600) is None
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 664


def test_a_low_hard_limit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both numbers and what to do; as much as allowed is taken."""
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: taken.append(both))
    message = allow_open_files(4096)
    assert message is not None
    assert "4160 open files, the hard limit is 1024" in message
    assert taken == [(1024, 1024)]
