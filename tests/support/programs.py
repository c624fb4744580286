"""Programs of the system that some tests need: Prometheus, docker-compose."""

from __future__ import annotations

import os
import shutil

import pytest


def need(program: str, package: str) -> str:
    """Its path. Without it the test skips and says what to install; in CI (`CI=true`) it fails."""
    found = shutil.which(program)
    if found is not None:
        return found
    message = f"{program} is not installed: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
