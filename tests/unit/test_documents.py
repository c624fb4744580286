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


def _broken(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        is_inside = target.is_relative_to(ROOT)
        if (
            not is_inside
            or not target.exists()
            or (anchor and target.suffix == ".md" and anchor not in _headings(target))
        ):
            broken.append(link)
    return broken


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {page.name for page in _pages()}


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in _pages()])
def test_links_lead_somewhere(page: str) -> None:
    assert _broken(ROOT / page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[one](missing.md), [two](https://example.org/x)", encoding="utf-8")
    assert _broken(page) == ["missing.md"]
