"""A simulated site lets the next request in at once, as the agent does, and keeps its cap."""

from __future__ import annotations

from fleet.records import PowerReading
from fleet.request import RequestFeatures
from simulator.events import Events
from simulator.request import SimRequest
from simulator.settings import SiteSettings
from simulator.site import SimulatedSite
from site_agent.slots import Pushback

FEATURES = RequestFeatures(
    model="m", request_class="SS", prompt_tokens=200, expected_output_tokens=60, stream=True
)


class Rig:
    """A site of one instance that is told its power every second, and one client who asks again at once."""

    def __init__(self, granted_watts: float) -> None:
        self.events = Events()
        self.refused: list[str] = []
        self.served = 0
        self.is_asking = False
        self.site = SimulatedSite(
            SiteSettings(site_id="s0", wind="s0", instances=1, start_seconds=5.0),
            events=self.events,
            seed="1",
            send_report=lambda _report: None,
            on_first_token=lambda _request, _now: None,
            on_finish=lambda _request, _now: self._answered(),
            on_break=lambda _request, _tokens: None,
        )
        for second in range(120):
            self.events.at(float(second), self._read, (second, granted_watts))

    def _read(self, given: tuple[int, float]) -> None:
        second, watts = given
        self.site.take_reading(
            PowerReading(
                feed_id="feed",
                sequence=second,
                site_id="s0",
                farm_id="farm",
                observed_at_unix_seconds=float(second),
                period_seconds=1.0,
                available_power_watts=watts,
                granted_power_watts=watts,
                nameplate_capacity_watts=watts,
                quality="good",
                source="test",
            )
        )

    def _answered(self) -> None:
        self.served += 1
        if self.is_asking:
            self.ask()

    def ask(self, output_tokens: int = 60) -> Pushback | None:
        request = SimRequest(
            index=0,
            arrived_at=self.events.now,
            prompt_tokens=200,
            output_tokens=output_tokens,
            features=FEATURES,
            hold_until=0.0,
        )
        pushback = self.site.arrive(request)
        if pushback is not None:
            self.refused.append(pushback.reason)
        return pushback


def test_a_request_may_follow_another_at_once() -> None:
    """One instance whose cap is what one request draws: as at the agent, none of the requests that come when
    the one before has just ended is refused (the old rule refused the second), and the cap holds."""
    model = Rig(0.0).site.model
    rig = Rig(model.modelled_watts([1], model.full_clock_mhz) / 0.95)
    rig.events.run(40.5)
    rig.is_asking = True
    assert rig.ask() is None
    rig.events.run(100.0)
    assert rig.refused == []
    assert rig.served > 50
    assert rig.site.exceeded_seconds == 0


def test_what_leaves_between_two_turns_was_seen() -> None:
    """A request that came and went between two readings: its watts are known to be gone."""
    model = Rig(0.0).site.model
    rig = Rig(model.modelled_watts([1], model.full_clock_mhz) / 0.95)
    rig.events.run(40.05)
    rig.is_asking = True
    assert rig.ask(output_tokens=30) is None
    rig.events.run(40.95)
    assert (rig.served, rig.refused) == (1, [])
