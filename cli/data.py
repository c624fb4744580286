"""`heron data list | fetch`: the official wind and trace files, and where they lie on this machine.

`--wind` and `--trace` take a file's name in the catalogue as well as a path: `resolve` turns either into a
path. Nothing is fetched unless it is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cli.catalogue import BY_NAME, CATALOGUE, DataFile
from fleet.config import ConfigError

EXAMPLES = (
    "heron data list",
    "heron data fetch azure-2023-conv fts-213-wind",
    "heron data fetch rts-gmlc-wind --mirror https://mirror.example/heron --to ./data",
)


class DataError(ConfigError):
    """A name or path that leads to no file; says what to run. The command line prints it and exits 2."""


def default_directory(environment: Mapping[str, str] | None = None) -> Path:
    """`$HERON_DATA`, else `${XDG_DATA_HOME:-~/.local/share}/heron/data`."""
    environment = os.environ if environment is None else environment
    if own := environment.get("HERON_DATA"):
        return Path(own).expanduser()
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "heron" / "data"


def resolve(name_or_path: str | Path, environment: Mapping[str, str] | None = None) -> Path:
    """The file that a name of the catalogue or a path means.

    Raises:
        DataError: there is no such file, or it was not fetched yet.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    known = BY_NAME.get(str(name_or_path))
    if known is None:
        names = ", ".join(file.name for file in CATALOGUE if file.kind != "profile")
        what = "is a directory, no file" if path.is_dir() else "no such file"
        raise DataError(f"{name_or_path}: {what}, and no data set of that name; known are {names}")
    fetched = default_directory(environment) / known.file
    if not fetched.is_file():
        raise DataError(f"{known.name}: not on this machine yet: run `heron data fetch {known.name}`")
    return fetched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron data`."""
    actions = parser.add_subparsers(dest="action", metavar="list|fetch", required=True)
    listing = actions.add_parser("list", help="show what there is, its licence, and what was fetched")
    listing.add_argument("--json", action="store_true", help="print JSON instead of text")
    fetching = actions.add_parser("fetch", help="download files and check their SHA-256")
    fetching.add_argument("names", metavar="NAME", nargs="+", help="as `heron data list` shows them")
    fetching.add_argument("--mirror", metavar="DIR|URL", help="take them from there")
    fetching.add_argument(
        "--no-verify", action="store_true", help="take files whose checksum is not known, and print it"
    )
    for action in (listing, fetching):
        action.add_argument(
            "--to",
            metavar="DIR",
            type=Path,
            default=None,
            help="where they lie (default: $HERON_DATA or ~/.local/share/heron/data)",
        )


def run(arguments: argparse.Namespace) -> int:
    """Run `heron data`; 1 if a file could not be fetched.

    Raises:
        DataError: a name that is not in the catalogue.
    """
    directory: Path = arguments.to or default_directory()
    if arguments.action == "list":
        print(_as_json(directory) if arguments.json else _as_text(directory))
        return 0
    from cli.fetch import FetchError

    files = [_file(name) for name in arguments.names]
    failures = 0
    for file in files:
        try:
            _fetch(file, directory, arguments.mirror, verify=not arguments.no_verify)
        except FetchError as error:
            failures += 1
            print(error, file=sys.stderr)
    return 1 if failures else 0


def _file(name: str) -> DataFile:
    if name not in BY_NAME:
        raise DataError(f"{name}: no such data set; known are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def _fetch(file: DataFile, directory: Path, mirror: str | None, *, verify: bool) -> None:
    from cli.fetch import fetch

    progress = _Progress(file.name) if sys.stderr.isatty() else None
    fetched = fetch(
        file,
        directory,
        mirror=mirror,
        verify=verify,
        on_progress=progress,
    )
    if progress is not None:
        progress.finish()
    state = "is there already" if fetched.was_there else "fetched"
    checked = "SHA-256 verified" if fetched.is_verified else f"not verified, SHA-256 {fetched.sha256}"
    print(f"{file.name}: {state}, {checked}: {fetched.path}")
    print(f"  licence: {file.licence}")


class _Progress:
    """One line on a terminal, rewritten at each megabyte."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_shown = False

    def __call__(self, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{self._name}: {done / 1e6:.1f}{of} MB", end="", file=sys.stderr, flush=True)
        self._is_shown = True

    def finish(self) -> None:
        if self._is_shown:
            print(file=sys.stderr)


def _as_json(directory: Path) -> str:
    entries = [
        {
            "name": file.name,
            "kind": file.kind,
            "title": file.title,
            "file": file.file,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            "licence": file.licence,
            "urls": file.urls,
            "path": str(directory / file.file) if (directory / file.file).is_file() else None,
        }
        for file in CATALOGUE
    ]
    return json.dumps({"directory": str(directory), "files": entries}, indent=2)


def _as_text(directory: Path) -> str:
    lines = [f"Data directory: {directory}"]
    for kind, heading in (("trace", "Traces"), ("wind", "Wind"), ("profile", "Profiles")):
        lines += ["", heading]
        for file in CATALOGUE:
            if file.kind != kind:
                continue
            size = "size unknown" if file.size_bytes is None else f"{file.size_bytes / 1e6:.1f} MB"
            here = "here" if (directory / file.file).is_file() else "not fetched"
            lines += [
                f"  {file.name}  ({size}, {here})",
                f"    {file.title}",
                f"    licence: {file.licence}",
                f"    SHA-256: {file.sha256 or 'no checksum known: needs --no-verify'}",
                f"    from:    {file.urls[0]}",
            ]
    lines += ["", "Fetch with: heron data fetch NAME …"]
    return "\n".join(lines)
