"""A real engine at the defaults' ladder: a ride-through of five seconds.

The watchdog is the other tests', which is patient: the default's three seconds end engines here for nothing.
"""

from __future__ import annotations

import os
import threading
import time
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
    "governor": {},
}


STANDSTILL_SECONDS = 1.0
"""A machine of two cores with a busy engine may let nothing else run for longer than a ride-through: what an
agent does in that time says nothing of it."""
ATTEMPTS = 5


class Standstill:
    """How long this process was not let run, at the most, while in the `with`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        before = time.monotonic()
        while not self._is_over.wait(0.05):
            now = time.monotonic()
            self.seconds = max(self.seconds, now - before)
            before = now

    def __enter__(self) -> Standstill:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def read_on(stream: Stream) -> None:
    """To its end, or to its stated error."""
    try:
        stream.read()
    except openai.APIError:
        return


def falls(fleet: VllmFleet) -> float:
    return fleet.metric(SITE, "heron_site_ride_through_episodes_total") or 0.0


def exceeded(fleet: VllmFleet) -> float:
    return fleet.metric(SITE, "heron_site_cap_exceeded_seconds_total") or 0.0


def test_a_fall_to_nothing_stops_a_busy_engine_within_the_ride_through(tmp_path: Path) -> None:
    """No time above the cap beyond it; the engine is gone, nothing is lost, and it comes back."""
    with (
        vllm_fleet(tmp_path, *vllm_and_model(), sites=(SITE,), changes=DEFAULTS) as fleet,
        openai.OpenAI(base_url=fleet.base_url, api_key="none", max_retries=0, timeout=180) as client,
    ):
        for _ in range(ATTEMPTS):
            before = falls(fleet), exceeded(fleet)
            group = fleet.engine_group(SITE)
            streams = [Stream(client, f"Tell me about wind, {number}.", 6000).read(1) for number in range(4)]
            threads = [threading.Thread(target=read_on, args=(one,)) for one in streams]
            for thread in threads:
                thread.start()
            with Standstill() as standstill:
                fleet.set_wind({SITE: 0.0})
                fleet.wait_for_engine(SITE, "stopped")
            after = falls(fleet), exceeded(fleet)
            assert leftovers.group_members(group) == []
            fleet.set_wind({SITE: 1.0})
            fleet.wait_for_engine(SITE, "ready")
            for thread in threads:
                thread.join()
            assert Stream(client, "Who is there?", 8).read().finish_reason == "length"
            assert fleet.json(f"{fleet.router_operations}/heron/v1/ledger")["lost"] == 0
            if standstill.seconds < STANDSTILL_SECONDS:
                break
        else:
            pytest.fail(f"this machine stood still for more than {STANDSTILL_SECONDS:g} s each time")
        assert after[0] == before[0] + 1, "the draw was above the new cap: else this shows nothing"
        assert after[1] == before[1]
