"""`heron profile check`: how well the shipped performance profile fits the measurements it was made from.

`heron profile run` measures an engine; it is in `cli.profile_run`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cli import exit_codes
from cli import profile_run as running
from cli.profile_files import read_published
from fleet.profiles.check import SHIPPED, FitError, PublishedFigures, fit_errors, summary

MAX_TRANSCRIPTION_RATIO = 0.01
"""A shipped figure further from its file than this is wrong, not rounded."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron profile`."""
    actions = parser.add_subparsers(dest="action", metavar="check | run", required=True)
    checking = actions.add_parser(
        "check", help="print the error of the default profile's fit on every published row"
    )
    checking.add_argument(
        "--files", metavar="DIR", type=Path, help="against the official files in DIR, not the shipped figures"
    )
    checking.add_argument("--json", action="store_true", help="print JSON instead of tables")
    measuring = actions.add_parser("run", help="measure an engine: batch × prompt length × clock")
    running.add_arguments(measuring)


def run(arguments: argparse.Namespace) -> int:
    """Run `heron profile run`, or `check`: 1 if a shipped figure is not what its file says.

    Raises:
        ProfileFileError: `--files` leads to no official file, or to one of another shape.
    """
    if arguments.action == "run":
        return running.run(arguments)
    published = SHIPPED if arguments.files is None else read_published(arguments.files)
    errors = fit_errors(published)
    wrong = [] if arguments.files is None else _wrong_figures(published)
    if arguments.json:
        print(json.dumps(_document(errors, wrong), indent=2))
    else:
        _print_tables(errors, wrong, source="shipped figures" if arguments.files is None else arguments.files)
    return exit_codes.BAD_RUN if wrong else exit_codes.DONE


def _wrong_figures(published: PublishedFigures) -> list[str]:
    """Shipped figures that differ from their files by more than rounding."""
    theirs = {(one.group, index): one for index, one in enumerate(fit_errors(published))}
    wrong = []
    for index, ours in enumerate(fit_errors(SHIPPED)):
        other = theirs.get((ours.group, index))
        if other is None:
            wrong.append(f"{ours.group}, {ours.row}: not in the file")
        elif abs(ours.published / other.published - 1) > MAX_TRANSCRIPTION_RATIO:
            wrong.append(f"{ours.group}, {ours.row}: shipped {ours.published:g}, file {other.published:g}")
    return wrong


def _document(errors: list[FitError], wrong: list[str]) -> dict[str, Any]:
    return {
        "rows": [
            {
                "group": one.group,
                "row": one.row,
                "unit": one.unit,
                "published": round(one.published, 3),
                "modelled": round(one.modelled, 3),
                "error_ratio": round(one.error_ratio, 4),
                "is_fitted": one.is_fitted,
            }
            for one in errors
        ],
        "groups": [
            {
                "group": one.group,
                "is_fitted": one.is_fitted,
                "rows": one.rows,
                "mean_error_ratio": round(one.mean_error_ratio, 4),
                "max_error_ratio": round(one.max_error_ratio, 4),
            }
            for one in summary(errors)
        ],
        "wrong_figures": wrong,
    }


def _print_tables(errors: list[FitError], wrong: list[str], *, source: object) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = Table(title=f"Every row ({source})", title_justify="left")
    for name, justify in (("figure", "left"), ("at", "right"), ("published", "right"), ("model", "right")):
        rows.add_column(name, justify=justify)  # type: ignore[arg-type]
    rows.add_column("error", justify="right")
    rows.add_column("")
    group = None
    for one in errors:
        if one.group != group:
            rows.add_section()
        rows.add_row(
            one.group if one.group != group else "",
            one.row,
            f"{one.published:,.1f} {one.unit}",
            f"{one.modelled:,.1f} {one.unit}",
            f"{one.error_ratio:+.1%}",
            "" if one.is_fitted else "not fitted",
        )
        group = one.group
    console.print(rows)
    groups = Table(title="Together", title_justify="left")
    groups.add_column("figure")
    for name in ("rows", "mean |error|", "largest"):
        groups.add_column(name, justify="right")
    groups.add_column("")
    for total in summary(errors):
        groups.add_row(
            total.group,
            str(total.rows),
            f"{total.mean_error_ratio:.1%}",
            f"{total.max_error_ratio:.1%}",
            "" if total.is_fitted else "not fitted",
        )
    console.print(groups)
    console.print(
        "[dim]Not fitted: the coefficients did not see the row. No public table resolves clocks for a 70B"
        " model on H100: everything below the full clock is modelled (docs/profiles.md).[/dim]"
    )
    for line in wrong:
        console.print(f"[red]figure is wrong:[/red] {line}")
