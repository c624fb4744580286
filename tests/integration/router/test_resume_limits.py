"""Where a stream is given up: bounds of docs/resume.md, each with its stated error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.router_fleet import chat, router_fleet
from support.stub_site import Behaviour, stop_after
from support.wait import until

from router.live import relay, resume

BODY = chat(stream=True)
LOST = b'"code":"stream_lost"'


async def test_sites_that_give_no_token_one_after_the_other_are_tried_so_often(
    store: Any, monkeypatch: pytest.MonkeyPatch
):
    """Long before `resume_wait_seconds`, and with sites left to ask: a stream may kill whatever takes it."""
    monkeypatch.setattr(resume, "MAX_FRUITLESS_RESUMES", 3)
    async with router_fleet(store, *"abcdefgh", resume_wait_seconds=60) as fleet:
        for site in fleet.sites:
            site.default = stop_after(0)
        fleet.sites[0].script.append(stop_after(5))
        for site in fleet.sites[1:]:
            site.script = fleet.sites[0].script
        status, data = await fleet.stream(BODY)
        assert (status, data.count(LOST), data.count(b"[DONE]")) == (200, 1, 1)
        assert data.endswith(b"data: [DONE]\n\n")
        assert sum(len(site.inference) for site in fleet.sites) == 1 + 4
        await fleet.settled(broken=1)


async def test_a_token_in_between_starts_the_count_anew(store: Any, monkeypatch: pytest.MonkeyPatch):
    """Six breaks, no more than one in a row without a token: it goes on to its end."""
    monkeypatch.setattr(resume, "MAX_FRUITLESS_RESUMES", 1)
    async with router_fleet(store, *"abcdefgh") as fleet:
        fleet.sites[0].script.extend([stop_after(5), *[stop_after(0), stop_after(3)] * 3])
        for site in fleet.sites[1:]:
            site.script = fleet.sites[0].script
        status, data = await fleet.stream(BODY)
        assert (status, LOST in data) == (200, False)
        assert b'"finish_reason":"length"' in data
        assert sum(len(site.inference) for site in fleet.sites) == 1 + 6 + 1
        await fleet.settled(completed=1)


async def test_much_without_text_begins_all_the_same_and_is_not_continued(
    store: Any, monkeypatch: pytest.MonkeyPatch
):
    """More than is held back for a first output: its ids may be reasoning, so a break is told."""
    monkeypatch.setattr(relay, "MAX_HELD_BYTES", 16)
    async with router_fleet(store, "a", "b") as fleet:
        for site in fleet.sites:
            site.default = Behaviour(events=1, then="hang")
        asking = asyncio.create_task(fleet.stream(BODY))
        await until(lambda: any(x.is_committed for x in fleet.router.forwarder.active), what="it has begun")
        for site in fleet.sites:
            site.cut()
        status, data = await asking
        assert (status, data.count(b'"role"'), data.count(LOST)) == (200, 1, 1)
        assert data.endswith(b"data: [DONE]\n\n")
        assert sum(len(site.inference) for site in fleet.sites) == 1
        await fleet.settled(broken=1)
