"""A real engine at the defaults' ladder: a ride-through of five seconds, a watchdog of three."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import openai
import pytest
from support.vllm_fleet import VllmFleet, vllm_fleet
from support.vllm_stream import Stream

from site_agent import leftovers
from site_agent.config import SiteConfig
from tests.vllm.conftest import vllm_and_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]

SITE = "north"
DEFAULTS = {
    "ride_through_seconds": SiteConfig.model_fields["ride_through_seconds"].default,
    "watchdog_seconds": SiteConfig.model_fields["watchdog_seconds"].default,
    "governor": {},
}


def read_on(stream: Stream) -> None:
    """To its end, or to its stated error."""
    try:
        stream.read()
    except openai.APIError:
        return


def falls(fleet: VllmFleet) -> float | None:
    return fleet.metric(SITE, "heron_site_ride_through_episodes_total")


def test_a_fall_to_nothing_stops_a_busy_engine_within_the_ride_through(tmp_path: Path) -> None:
    """No time above the cap beyond it; the engine is gone, nothing is lost, and it comes back."""
    with (
        vllm_fleet(tmp_path, *vllm_and_model(), sites=(SITE,), changes=DEFAULTS) as fleet,
        openai.OpenAI(base_url=fleet.base_url, api_key="none", max_retries=0, timeout=180) as client,
    ):
        assert falls(fleet) == 0.0
        group = fleet.engine_group(SITE)
        streams = [Stream(client, f"Tell me about wind, {number}.", 6000).read(1) for number in range(4)]
        threads = [threading.Thread(target=read_on, args=(one,)) for one in streams]
        for thread in threads:
            thread.start()
        fleet.set_wind({SITE: 0.0})
        fleet.wait_for_engine(SITE, "stopped")
        assert leftovers.group_members(group) == []
        assert falls(fleet) == 1.0, "the draw was above the new cap: else this shows nothing"
        assert fleet.metric(SITE, "heron_site_cap_exceeded_seconds_total") == 0.0
        fleet.set_wind({SITE: 1.0})
        fleet.wait_for_engine(SITE, "ready")
        for thread in threads:
            thread.join()
        assert Stream(client, "Who is there?", 8).read().finish_reason == "length"
        assert fleet.json(f"{fleet.router_operations}/heron/v1/ledger")["lost"] == 0
