"""The console in a real browser: what an operator sees when all is well, and when nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.browser import Page, browser_page, find_browser
from support.router_fleet import RouterFleet, chat, router_fleet
from support.stub_site import StubSite

HOSTILE = '<img src=x onerror="document.title=1"><b>bold</b>\u202e'
LEAST_CONTRAST = 4.5
"""WCAG AA, of text."""

CONTRASTS = """
(() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const part = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest(".hidden, option")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < LEAST) poor.push(`${contrast.toFixed(2)} ${walker.currentNode.data.trim()}`);
  }
  return poor;
})()
""".replace("LEAST", str(LEAST_CONTRAST))

SITE_POWER = {"cap_watts": 8000.0, "draw_watts": 5000.0, "headroom_watts": 3000.0, "draw_source": "gpu"}


class PoweredSite(StubSite):
    """With figures of its power, and a model whose name means harm."""

    def report(self, **changes: Any) -> bytes:
        return super().report(power=SITE_POWER, **changes)


def make_site(site_id: str) -> StubSite:
    """`a` is plain, `b` hostile."""
    return PoweredSite(site_id, model=HOSTILE if site_id == "b" else "m")


async def text_of(page: Page, selector: str) -> str:
    """What a person reads there."""
    found: str = await page.value(f"document.querySelector({selector!r}).innerText")
    return found


async def seen(fleet: RouterFleet, page: Page, directory: Path) -> None:
    """Open it and wait for its first row."""
    await page.size(1500, 1000)
    await page.open(f"{fleet.operations_url}/")
    await page.until("document.querySelectorAll('#rows .site').length === 2")


@pytest.fixture(autouse=True)
def _browser() -> None:
    find_browser()


async def test_an_operator_sees_the_fleet_and_what_happens(store: Any, tmp_path: Path) -> None:
    """Rows, figures, a drain with its reason, details by keyboard; texts of records stay texts."""
    async with router_fleet(store, "a", "b", make_site=make_site) as fleet, browser_page(tmp_path) as page:
        for _ in range(3):
            await fleet.post(chat())
        await seen(fleet, page, tmp_path)
        assert "5.0 of 8.0 kW" in await text_of(page, "#rows .site")
        await page.until("document.querySelector('#overall').innerText.includes('well')")
        await fleet.post(b"{")
        tiles = "document.querySelector('#tiles').innerText"
        await page.until(rf"/Clients' mistakes\s+1\s+1 since start/.test({tiles})")
        assert await page.value(rf"/Failed\s+0\s/.test({tiles})"), "it is no fault of the fleet"
        # waited for: where the machine stalls for 3 s both are "late", rightly, until the next report
        await page.until("document.title.includes('2 of 2 sites serve')")

        # by keyboard: the first row's details
        await page.value("document.querySelector('#rows .site:nth-of-type(3) button').focus()")
        await page.press("Enter", 13, "\r")
        await page.until("document.querySelectorAll('#rows .details')[1].checkVisibility()")
        details = await page.value("document.querySelectorAll('#rows .details')[1].innerText")
        assert '<img src=x onerror="document.title=1"><b>bold</b>' in details
        assert await page.value("document.querySelectorAll('main img, main b').length") == 0

        await fleet.set_state("a", "draining")
        await page.until("document.querySelector('#events').innerText.includes('a is draining, was serving')")
        await page.until("document.querySelector('#problems').innerText.includes('takes no new work')")
        assert await page.value("document.querySelectorAll('#rows .details')[1].checkVisibility()"), (
            "still open"
        )
        assert await page.value("document.activeElement.closest('tr')?.innerText.startsWith('b')"), (
            "focus stays"
        )

        await page.value("document.querySelector('#filter-level').click()")
        await page.until("!document.querySelector('#events').innerText.includes('b is serving')")
        assert page.faults == []


async def test_it_can_be_read_in_the_dark_and_on_a_phone(store: Any, tmp_path: Path) -> None:
    """Contrast of every text in both schemes; nothing wider than the screen."""
    async with router_fleet(store, "a", "b", make_site=make_site) as fleet, browser_page(tmp_path) as page:
        await fleet.set_state("b", "faulted")
        await seen(fleet, page, tmp_path)
        await page.value("document.querySelectorAll('#rows button').forEach((button) => button.click())")
        await page.until("document.querySelectorAll('#problems li').length > 0")
        for is_dark in (False, True):
            await page.dark(is_dark)
            assert await page.value(CONTRASTS) == []
        for width in (1500, 1051, 1050, 800, 420, 320):
            await page.size(width, 900)
            assert await page.value("document.documentElement.scrollWidth") <= width, width
        # what is hidden from the eye at this width is still a table to a reader
        assert await page.value("document.querySelectorAll('#rows > [role=row] > [role=cell]').length") > 8


async def test_it_says_when_nothing_is_known_and_since_when(store: Any, tmp_path: Path) -> None:
    """No site; then no router; then another router at the same port: it goes on by itself."""
    async with browser_page(tmp_path) as page:
        async with router_fleet(store) as fleet:
            port = fleet.router.operations_port
            await page.open(f"{fleet.operations_url}/")
            await page.until("document.querySelector('#problems').innerText.includes('No site is known')")
            assert await text_of(page, "#no-sites") == "No site is known yet."
            assert "not ready" in await text_of(page, "#system")
        await page.until("document.querySelector('#lost').innerText.startsWith('No data since')")
        assert await page.value("document.title") == "✖ Heron: no data"
        async with router_fleet(store, "a", "b", make_site=make_site, operations_port=port):
            await page.until("document.querySelectorAll('#rows .site').length === 2")
            await page.until("document.querySelector('#lost').hidden")
            await page.until("document.querySelector('#connection').innerText.startsWith('live')")
