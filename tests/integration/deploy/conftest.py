"""One fleet and one Prometheus for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.scraped_fleet import Scraped, scraped_fleet


@pytest.fixture(scope="session")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Started once: these tests only look."""
    with scraped_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running
