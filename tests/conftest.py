"""Property tests look at the same examples in every run: a red run must mean a change, not a dice throw.

`HYPOTHESIS_PROFILE=search scripts/test …` looks for new ones. No loop of a service may fail in a test, though
the service goes on (docs/decisions/0024), but in those marked `loops_may_fail`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from fleet.loops import Loops

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def _no_loop_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    failed: list[str] = []
    whole = Loops._note

    def note(self: Loops, name: str, error: Exception) -> None:
        failed.append(f"{name}: {error!r}")
        whole(self, name, error)

    Loops._note = note  # type: ignore[method-assign]
    yield
    Loops._note = whole  # type: ignore[method-assign]
    if request.node.get_closest_marker("loops_may_fail") is None:
        assert failed == [], "a service went on, but this is a defect"
