"""Who holds which response: bounded, and for a time."""

from __future__ import annotations

import pytest
from support.recorded_site import recorded

from gateway.response_homes import ResponseHomes, find_response_id


@pytest.mark.parametrize("name", ["responses.json", "responses.sse", "responses_bg.json"])
def test_the_id_is_found_where_vllm_writes_it(name: str):
    """In the beginning, whole or streamed."""
    found = find_response_id(recorded(name))
    assert found is not None
    assert found.startswith("resp_")
    assert f'"id":"{found}"'.encode() in recorded(name)


@pytest.mark.parametrize(
    "data", [b"", b'{"id":"chatcmpl-1"}', b'{"id":5}', b" " * 70_000 + b'{"id":"resp_1"}']
)
def test_no_id_is_found_where_there_is_none(data: bytes):
    """Nor far behind the beginning."""
    assert find_response_id(data) is None


def test_a_home_is_known_for_a_time():
    """And for longer when it is seen again; it can be forgotten."""
    homes = ResponseHomes(seconds=10.0)
    homes.learn_from(b'{"id": "resp_1"}', "a", 100.0)
    assert homes.find("resp_1", 109.9) == "a"
    homes.learn("resp_1", "b", 105.0)
    assert homes.find("resp_1", 114.9) == "b"
    assert homes.find("resp_1", 115.0) is None
    assert len(homes) == 0
    homes.learn("resp_2", "a", 0.0)
    homes.forget("resp_2")
    homes.forget("resp_3")
    assert homes.find("resp_2", 0.0) is None


def test_the_oldest_goes_first():
    """What was seen again is not the oldest."""
    homes = ResponseHomes(max_homes=2)
    for name in ("resp_1", "resp_2", "resp_1", "resp_3"):
        homes.learn(name, "a", 0.0)
    assert [homes.find(f"resp_{number}", 0.0) for number in (1, 2, 3)] == ["a", None, "a"]


def test_whose_a_response_is_stays_known_however_it_is_seen_again():
    """Who reads an id that nobody knows does not own it by that."""
    homes = ResponseHomes()
    homes.learn_from(b'{"id": "resp_1"}', "a", 0.0, owner="acme")
    homes.learn("resp_1", "b", 1.0)
    assert [homes.is_of_another("resp_1", tenant) for tenant in ("acme", "other")] == [False, True]
    homes.learn("resp_2", "a", 0.0)
    assert not homes.is_of_another("resp_2", "other")
    assert not homes.is_of_another("resp_3", "other")
