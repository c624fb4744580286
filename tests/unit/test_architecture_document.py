"""docs/architecture.md names only what exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
NAME = re.compile(r"`((?:fleet|gateway|router|site_agent|power_feed|replay|cli)(?:\.\w+)+)`")


def _names() -> list[str]:
    return sorted(set(NAME.findall(PAGE.read_text(encoding="utf-8"))))


def _find(name: str) -> object:
    """A module, or something inside one."""
    found: object = importlib.import_module(name.partition(".")[0])
    path = found.__name__  # type: ignore[attr-defined]
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        if not hasattr(found, part):
            importlib.import_module(path)
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", _names())
def test_what_the_page_names_exists(name: str) -> None:
    """Each name in code on the page can be imported."""
    assert _find(name) is not None


def test_every_step_names_a_function() -> None:
    """No step of the three lives goes without the name of what does it."""
    steps = re.split(r"^(?=\d+\. \*\*|#|\*\*)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lives = [step for step in steps if re.match(r"\d+\. \*\*", step)][3:]  # the first three are the rules
    assert len(lives) == 28
    assert [step for step in lives if not NAME.search(step)] == []


def test_a_name_that_does_not_exist_is_found() -> None:
    """A name that is no longer there fails the test above."""
    with pytest.raises(ModuleNotFoundError):
        _find("router.policy.dispatch.no_such_function")
