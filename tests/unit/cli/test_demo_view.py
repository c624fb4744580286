"""What the demo shows: every figure where it belongs, and an unknown one as unknown."""

from __future__ import annotations

import io

from rich.console import Console

from cli.demo_view import EventView, RunView, SiteView, headless_line, screen

VIEW = RunView(
    title="heron demo",
    elapsed_seconds=21.0,
    total_seconds=60.0,
    sites=[
        SiteView(
            site_id="north",
            state="serving",
            wind_watts=15_600.0,
            cap_watts=7300.0,
            draw_watts=5150.0,
            headroom_watts=2150.0,
            in_flight=12,
            age_seconds=0.4,
        ),
        SiteView(site_id="coast"),
    ],
    counts={"completed": 812, "shed": 0, "lost": 0},
    in_flight=19,
    requests_per_second=44.7,
    ttft_seconds=(0.0312, 0.12),
    itl_seconds=(0.018, None),
    events=[
        EventView(seconds=-2.0, site_id=None, text="the router is ready"),
        EventView(seconds=20.3, site_id="coast", text="the cap fell to 1.7 kW"),
    ],
    hints=["curl http://127.0.0.1:8000/v1/models"],
)


def shown(view: RunView, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen(view))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_screen_has_every_figure() -> None:
    """Sites with wind, cap, draw, headroom and in-flight; rates; TTFT and ITL; events; the lines to paste."""
    text = shown(VIEW)
    for part in ("north", "serving", "15.6", "7.3", "5.2", "2.1", "44.7 requests/s", "19 in flight"):
        assert part in text, part
    for part in ("TTFT p50 31 ms, p99 120 ms", "ITL p50 18 ms, p99 – ms", "completed 812", "curl http"):
        assert part in text, part
    assert "20.3 s  coast: the cap fell to 1.7 kW" in text


def test_what_is_unknown_is_not_zero() -> None:
    """A site that has not reported shows dashes and no number."""
    line = next(line for line in shown(VIEW).splitlines() if "coast" in line and "kW" not in line)
    assert "–" in line
    assert not any(character.isdigit() for character in line)


def test_screen_fits_a_narrow_terminal() -> None:
    """On 80 columns nothing breaks and the sites are all there."""
    text = shown(VIEW, width=80)
    assert "north" in text
    assert "coast" in text
    assert max(map(len, text.splitlines())) <= 80


def test_headless_line_is_one_line_with_the_outcomes_that_happened() -> None:
    """Outcomes without a request are left out; an unknown draw is a dash."""
    line = headless_line(VIEW)
    assert "\n" not in line
    assert "north serving 5.2/7.3 kW" in line or "north serving 5.1/7.3 kW" in line
    assert "coast – –/– kW" in line
    assert line.endswith("completed 812")


def test_a_run_without_an_end_says_how_to_end_it() -> None:
    """Without a planned end the screen names Ctrl-C."""
    assert "until Ctrl-C" in shown(
        RunView(
            title="heron demo",
            elapsed_seconds=3.0,
            total_seconds=None,
            sites=[],
            counts={},
            in_flight=0,
            requests_per_second=0.0,
            ttft_seconds=(None, None),
            itl_seconds=(None, None),
            events=[],
            hints=[],
        )
    )
