"""Which sites are cordoned."""

from __future__ import annotations

import pytest

from fleet.records import Cordon
from fleet.wire import RecordError
from router.live import cordons as module
from router.live.cordons import Cordons

NOW = 2.0
RECORD = Cordon(reason="fans", since_unix_seconds=1.0).to_json()


def test_the_newest_word_counts() -> None:
    """A repeat is no change, and so is nothing where there was nothing."""
    cordons = Cordons()
    assert cordons.take(b"", "a", NOW) == ""
    assert "is cordoned" in cordons.take(RECORD, "a", NOW)
    assert cordons.take(RECORD, "a", NOW) == ""
    assert (cordons.of("a") is not None, cordons.raw_of("a"), cordons.of("b")) == (True, RECORD, None)
    assert "no more" in cordons.take(b"", "a", NOW)
    assert (cordons.of("a"), cordons.raw_of("a")) == (None, b"")


def test_one_that_is_lifted_holds_no_more() -> None:
    """Of a site that is not known to be cordoned it is no news."""
    lifted = Cordon(since_unix_seconds=1.0, lifted_at_unix_seconds=2.0).to_json()
    cordons = Cordons()
    assert cordons.take(lifted, "b", NOW) == ""
    cordons.take(RECORD, "a", NOW)
    assert cordons.take(lifted, "a", NOW) == "a is cordoned no more"
    assert (cordons.of("a"), cordons.raw_of("a"), cordons.lost("a", 5.0)) == (None, lifted, None)
    assert cordons.take(b"", "a", NOW) == ""
    assert "is cordoned" in cordons.take(RECORD, "a", NOW)


def test_a_record_that_is_gone_before_its_end_is_lost() -> None:
    """After it, it is over."""
    cordons = Cordons()
    assert cordons.lost("a", 5.0) is None
    cordons.take(RECORD, "a", NOW)
    assert cordons.lost("a", 1e10) == (RECORD, None)
    ending = Cordon(since_unix_seconds=1.0, until_unix_seconds=60.0).to_json()
    cordons.take(ending, "a", NOW)
    assert cordons.lost("a", 50.0) == (ending, 10.0)
    assert cordons.lost("a", 60.0) is None


def test_there_are_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that there are may change, and go."""
    monkeypatch.setattr(module, "MAX_CORDONS", 1)
    cordons = Cordons()
    cordons.take(RECORD, "a", NOW)
    with pytest.raises(RecordError, match="more than 1 sites"):
        cordons.take(RECORD, "b", NOW)
    assert cordons.take(Cordon(reason="again", since_unix_seconds=2.0).to_json(), "a", NOW)
    assert cordons.take(b"", "a", NOW)
    assert cordons.take(RECORD, "b", NOW)
