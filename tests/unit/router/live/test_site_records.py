"""What is remembered of one site from report to report."""

from __future__ import annotations

from collections.abc import Iterable

from support.views import info

from fleet.records import MAX_SITE_MODELS, ConfigurationInfo, ModelReport, SiteReport, SiteState
from router.live.site_records import SiteRecords
from router.policy.snapshot import view_of


class Site:
    """Writes reports, and says what the router then knows of."""

    def __init__(self) -> None:
        self.kept = SiteRecords("a")
        self.sequence = 0

    def known_after(self, state: SiteState, models: Iterable[str]) -> list[str]:
        """The models of the site's view after one more report."""
        self.sequence += 1
        report = SiteReport(
            agent_id="agent",
            sequence=self.sequence,
            site_id="a",
            observed_at_unix_seconds=1000.0,
            ingress_url="http://127.0.0.1:1",
            state=state,
            models=tuple(ModelReport(model=model) for model in models),
        )
        assert self.kept.take_report(b"", report, "event", now=1000.0, unix_now=1000.0) is None
        view = view_of(
            report,
            self.kept.info,
            arrived_at=1000.0,
            is_confirmed=True,
            known_models=self.kept.known_models(),
        )
        return [model.model for model in view.models]


def test_a_site_that_does_not_serve_is_known_for_what_it_served_last_and_lists_now() -> None:
    """What it listed in between is forgotten: names must not pile up for as long as it is dark."""
    site = Site()
    assert site.known_after("serving", ["old"]) == ["old"]
    assert site.known_after("serving", ["m", "n"]) == ["m", "n"]
    for number in range(100):
        assert site.known_after("dark", [f"x{number}"]) == [f"x{number}", "m", "n"]
    assert site.known_after("dark", []) == ["m", "n"]
    assert site.known_after("serving", ["m"]) == ["m"]
    assert site.known_after("draining", []) == ["m"]


def test_a_site_that_never_served_is_known_for_the_first_that_it_listed() -> None:
    """The router began while the site was draining; then it is dark and lists none."""
    site = Site()
    assert site.known_after("draining", ["m"]) == ["m"]
    assert site.known_after("dark", []) == ["m"]
    assert site.known_after("serving", ["n"]) == ["n"]
    assert site.known_after("dark", []) == ["n"]


def test_the_models_that_a_site_is_known_for_are_bounded() -> None:
    """What it lists comes first, then what it served, then what it says that it could run."""
    site = Site()
    served = [f"served{number}" for number in range(MAX_SITE_MODELS - 1)]
    configurations = tuple(
        ConfigurationInfo(model=f"configured{number}", tensor_parallel_degree=1) for number in range(9)
    )
    site.kept.info = info("a", configurations=configurations)
    site.known_after("serving", served)
    assert set(site.known_after("dark", [])) == {*served, "configured0"}
    assert set(site.known_after("dark", ["x"])) == {"x", *served}
