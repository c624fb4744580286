"""Days that one run of the governor's benchmark keeps must be found by the next, compiled or not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.governor import __main__ as command
from benchmarks.governor import site


def test_a_compiled_module_stands_for_the_source_beside_it() -> None:
    """What it was made of; a source is itself."""
    made = Path("build/compiled/site_agent/governor.cpython-311-x86_64-linux-gnu.so")
    assert command.source_of(made) == Path("build/compiled/site_agent/governor.py")
    assert command.source_of(Path("site_agent/governor.py")) == Path("site_agent/governor.py")


def test_the_state_of_the_code_is_that_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where a module was loaded from its library, and another where one more is loaded."""
    plain = command.loaded_state()
    source = Path(str(site.__file__))
    monkeypatch.setattr(site, "__file__", str(source.with_name("site.cpython-311-x86_64-linux-gnu.so")))
    assert command.loaded_state() == plain
    other = ModuleType("other")
    other.__file__ = str(source.with_name("RESULTS.md"))
    monkeypatch.setitem(sys.modules, "other", other)
    assert command.loaded_state() != plain
