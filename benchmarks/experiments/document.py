"""Puts the experiments' own tables into docs/results.md, so that no figure there is copied by hand.

A place is marked by two lines, `<!-- results: STEM -->` and `<!-- end -->`, STEM being a file of the results
folder without its ending. What is between them becomes that file's `summary`; of a paper table, `table: STEM`
takes its main table alone, and `losses: STEM` says where its requests are lost. A file that does not exist
leaves its place alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.experiments import losses

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results.md"
_KEYS = {"results": "summary", "table": "table"}
_PLACE = re.compile(r"<!-- (?P<kind>results|table|losses): (?P<stem>\S+) -->\n.*?<!-- end -->\n", re.DOTALL)


def fill(folder: Path, path: Path = DOCUMENT) -> list[str]:
    """Fill all places; returns the stems that were filled, and prints what was not."""
    filled: list[str] = []

    def replaced(place: re.Match[str]) -> str:
        kind, stem = place["kind"], place["stem"]
        file = folder / f"{stem}.json"
        if not file.exists():
            print(f"{stem}: no {file}; its place stays as it is")
            return place[0]
        found = json.loads(file.read_text())
        summary = losses.table(found["rows"]) if kind == "losses" else found.get(_KEYS[kind])
        if summary is None:
            print(f"{stem}: {file} was made by an older form; its place stays as it is")
            return place[0]
        filled.append(stem)
        return f"<!-- {kind}: {stem} -->\n{summary.strip()}\n<!-- end -->\n"

    path.write_text(_PLACE.sub(replaced, path.read_text()))
    print(f"{path}: filled {', '.join(filled) or 'nothing'}")
    return filled
