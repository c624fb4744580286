"""`heron profile check`: how well a performance profile fits the measurements it was made from.

Of the shipped profile those that were published, of a file of `heron profile run` its own rows.

`heron profile run` measures an engine; it is in `cli.profile_run`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli import exit_codes
from cli import profile_run as running
from cli.profile_files import ProfileFileError, read_published
from fleet import profile_file
from fleet.performance import PerformanceProfile, ProfileRow
from fleet.profiles import measured
from fleet.profiles.check import SHIPPED, FitError, PublishedFigures, fit_errors, summary
from fleet.profiles.document import ProfileDocumentError

MAX_TRANSCRIPTION_RATIO = 0.01
"""A shipped figure further from its file than this is wrong, not rounded."""
SHIPPED_NOTE = (
    "No public table resolves clocks for a 70B model on H100: everything below the full clock is modelled "
    "(docs/profiles.md)."
)
FILE_NOTE = (
    "Watts are those of the highest row of a batch and of the highest ratio of a clock, so that the profile "
    "errs upwards (docs/decisions/0019)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron profile`."""
    actions = parser.add_subparsers(dest="action", metavar="check | run", required=True)
    checking = actions.add_parser(
        "check", help="print the error of a profile's fit on every row that it was made from"
    )
    checking.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE.json",
        help="of `heron profile run`; left out: the default profile, and the published figures",
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
        ProfileFileError: `--files` leads to no official file, or to one of another shape; FILE.json is no
            file of `heron profile run`, or its rows do not make a profile.
    """
    if arguments.action == "run":
        return running.run(arguments)
    if arguments.file is not None:
        if arguments.files is not None:
            raise ProfileFileError("heron profile check: FILE.json or --files, not both")
        return _check_file(arguments.file, as_json=arguments.json)
    published = SHIPPED if arguments.files is None else read_published(arguments.files)
    errors = fit_errors(published)
    wrong = [] if arguments.files is None else _wrong_figures(published)
    if arguments.json:
        print(json.dumps(_document(errors, wrong), indent=2))
    else:
        source = "shipped figures" if arguments.files is None else arguments.files
        _print_tables(errors, wrong, source=source, figures="published", note=SHIPPED_NOTE)
    return exit_codes.BAD_RUN if wrong else exit_codes.DONE


def _check_file(path: Path, *, as_json: bool) -> int:
    """The profile that a file's rows make, and its error on each of them."""
    try:
        document = profile_file.read_document(path)
        profile = measured.fit_profile(document, name=str(path))
        errors = measured.fit_errors(profile, document, name=str(path))
    except ProfileDocumentError as error:
        raise ProfileFileError(str(error)) from None
    if as_json:
        described = {"profile": asdict(profile), **_document(errors, [])}
        print(json.dumps(described, indent=2))
        return exit_codes.DONE
    print("\n".join(_description(profile)))
    _print_tables(errors, [], source=path, figures="measured", note=FILE_NOTE)
    return exit_codes.DONE


def _description(profile: PerformanceProfile) -> list[str]:
    """What it is of, and where each part comes from."""
    prefill = profile.prefill_watts_at_full_clock
    context = f"context {1e9 * profile.kv_seconds_per_token:.2f} ns a token"
    return [
        f"{profile.profile_id}: {profile.model} on {profile.tensor_parallel_degree} × {profile.gpu_model}",
        measured.told_clocks(profile),
        f"empty {profile.idle_watts:.0f} W, stopped {profile.stopped_watts:.0f} W ({profile.idle_source})",
        f"prefill {profile.prefill_tokens_per_second:.0f} tokens/s ({profile.prefill_source})"
        + ("" if prefill is None else f", at up to {prefill:.0f} W"),
        f"{context}; KV cache {profile.kv_tokens} tokens ({profile.kv_source})",
        *(_row(row) for row in profile.rows),
    ]


def _row(row: ProfileRow) -> str:
    speed = f"batch {row.running_requests}: {1000 * row.itl_seconds:.2f} ms ({row.source})"
    return f"{speed}, {row.watts:.0f} W ({row.watts_source})"


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


def _print_tables(
    errors: list[FitError], wrong: list[str], *, source: object, figures: str, note: str
) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = Table(title=f"Every row ({source})", title_justify="left")
    for name, justify in (("figure", "left"), ("at", "right"), (figures, "right"), ("model", "right")):
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
    console.print(f"[dim]Not fitted: the coefficients did not see the row. {note}[/dim]")
    for line in wrong:
        console.print(f"[red]figure is wrong:[/red] {line}")
