"""Relative links in the project's pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _pages() -> list[Path]:
    """All markdown outside hidden folders (.venv, caches) and installed packages."""
    return sorted(
        page
        for page in ROOT.rglob("*.md")
        if not any(
            part.startswith(".") or part in ("node_modules", "site-packages", "build")
            for part in page.relative_to(ROOT).parts
        )
    )


def _headings(page: Path) -> set[str]:
    """The anchors that GitHub makes."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _broken(page: Path, root: Path = ROOT) -> list[str]:
    """Links that lead nowhere, or out of the project."""
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        is_found = target.is_relative_to(root) and target.exists()
        has_anchor = not anchor or target.suffix != ".md" or (is_found and anchor in _headings(target))
        if not is_found or not has_anchor:
            broken.append(link)
    return broken


def test_there_are_pages() -> None:
    """The search below finds the pages that every project has, so it is not empty by mistake."""
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {page.name for page in _pages()}


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in _pages()])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page, with its anchor, leads to something in the project."""
    assert _broken(ROOT / page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A missing file, a missing heading and a way out of the project are each noticed."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](page.md#a-title) [b](missing.md) [c](#other) [d](../..) [e](https://example.org/x)",
        encoding="utf-8",
    )
    assert _broken(page, tmp_path) == ["missing.md", "#other", "../.."]
