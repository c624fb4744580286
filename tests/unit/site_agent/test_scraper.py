"""What the scraper says of an engine that another has followed."""

from __future__ import annotations

import pytest
from support.fake_drivers import specs

from fleet.instance import InstanceState
from gateway.upstream import Origin, UpstreamPool
from site_agent.instance import Instance
from site_agent.scraper import Scraper


async def test_an_engine_is_not_taken_for_the_one_before_it_that_hung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Back half a second later it has not been read yet, and has not stalled: else it is given up again."""

    async def read(_self: Scraper, _origin: Origin) -> str:
        return "vllm:num_requests_running 1\nvllm:prompt_tokens_total 5\nvllm:generation_tokens_total 5\n"

    monkeypatch.setattr(Scraper, "_read", read)
    instance = Instance(spec=specs(1)[0], origin=Origin.parse("http://127.0.0.1:9"))
    scraper = Scraper(instances=(instance,), upstream=UpstreamPool(connect_timeout_seconds=1.0))
    instance.move(InstanceState.STARTING, 1.0)
    instance.move(InstanceState.READY, 2.0)
    await scraper._scrape(instance)
    scraper.progress["i0"]._since -= 119.0  # type: ignore[operator]
    await scraper._scrape(instance)
    assert scraper.stalled_seconds("i0") > 118
    instance.move(InstanceState.DRAINING, 3.0)
    instance.move(InstanceState.STOPPED, 3.0)
    instance.move(InstanceState.STARTING, 3.5)
    instance.origin = Origin.parse("http://127.0.0.1:9")
    instance.move(InstanceState.READY, 3.5)
    assert scraper.stalled_seconds("i0") == 0.0
