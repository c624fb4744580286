"""What scripts/compile takes must also run when only a part of the packages is compiled."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "fleet",
    "gateway",
    "router",
    "site_agent",
    "power_feed",
    "simulator",
    "replay",
    "cli",
    "benchmarks",
)
ORDINARY = {"Enum", "StrEnum", "IntEnum", "NamedTuple", "Protocol", "TypedDict"}
"""What mypyc leaves as Python has it."""
LIST = ROOT / "scripts" / "compiled-modules.txt"


def compiled() -> list[str]:
    return [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]


def classes(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, its bases) of each class in a file; a base that is imported has its module before its name."""
    tree = ast.parse(path.read_text())
    origins = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
            yield f"{own}.{node.name}", [origins.get(base, f"{own}.{base}") for base in bases]


def test_each_listed_module_is_there_once_and_in_order() -> None:
    """A module that was moved would be left out in silence."""
    names = compiled()
    assert names == sorted(set(names))
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_no_interpreted_class_has_a_compiled_base() -> None:
    """Python refuses to make an object of such a class, at run time only. Compile the subclass too."""
    names = set(compiled())
    native = {
        name
        for module in names
        for name, bases in classes(ROOT / module)
        if not ORDINARY.intersection(base.rpartition(".")[2] for base in bases)
    }
    faults = [
        f"{name} is a {base}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if str(path.relative_to(ROOT)) not in names
        for name, bases in classes(path)
        for base in native.intersection(bases)
    ]
    assert faults == []


def test_a_copy_of_a_part_of_the_benchmarks_does_not_hide_the_rest(tmp_path: Path) -> None:
    """`build/compiled` has the governor's alone, and stands first on the path."""
    copied = tmp_path / "benchmarks"
    shutil.copytree(ROOT / "benchmarks" / "governor", copied / "governor")
    shutil.copy(ROOT / "benchmarks" / "__init__.py", copied)
    names = ("benchmarks.governor", "benchmarks.experiments")
    code = "".join(f"import {name} as one; print(one.__file__)\n" for name in names)
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [copied / "governor" / "__init__.py", ROOT / "benchmarks" / "experiments" / "__init__.py"]
    assert found.stdout.splitlines() == [str(path) for path in expected]
