"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MAX_LINES = 400
"""Of a Python file outside tests: what is longer holds two ideas."""

MACHINE_PATHS = re.compile(r"(?<![\w.])/" + r"(?:work|root)/")
REGISTRY_HOSTS = re.compile(
    r"files\.pythonhosted|pypi\.org/simple|registry\.npmjs|proxy\.golang|\bartifactory\b|\bnexus\.|"
    r"(?:extra-)?index-url\s*[=\s]\s*https?:|trusted-host\s*[=\s]",
    re.IGNORECASE,
)
PRIVATE_KEYS = re.compile(
    "-----BEGIN" + r" [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bsk-[A-Za-z0-9]{40,}|"
    r"\bhf_[A-Za-z]{34}\b"
)


@cache
def tracked() -> tuple[Path, ...]:
    """Files under version control that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return tuple(path for name in listed.split("\0") if name and (path := REPOSITORY / name).is_file())


@cache
def text_of(path: Path) -> str:
    """What is no text reads as nothing that a rule looks for."""
    return path.read_bytes().decode("utf-8", "replace")


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """`file:line` of every match in the tracked files, this one left out: it names what it looks for."""
    return [
        f"{name_of(path)}:{number}"
        for path in tracked()
        if path != Path(__file__).resolve()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if pattern.search(line)
    ]


def test_the_rules_are_applied_to_something() -> None:
    """A checkout without its files would pass every rule below."""
    names = {name_of(path) for path in tracked()}
    assert {"pyproject.toml", "fleet/records.py", "requirements.lock"} <= names


def test_every_test_says_in_a_sentence_what_it_shows() -> None:
    """Every test function has a docstring that ends as a sentence does."""
    silent = []
    for path in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith(
                "test_"
            ):
                continue
            said = (ast.get_docstring(node) or "").strip()
            if not said.endswith((".", "!", "?", ")")):
                silent.append(f"{name_of(path)}:{node.lineno} {node.name}")
    assert silent == []


def test_no_python_file_outside_tests_is_too_long() -> None:
    """About 300 lines are meant, 400 are the limit."""
    long = {
        name_of(path): count
        for path in tracked()
        if path.suffix == ".py"
        and not name_of(path).startswith("tests/")
        and (count := len(text_of(path).splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_file_holds_a_path_of_the_machine_it_was_written_on() -> None:
    """It would work nowhere else."""
    assert lines_with(MACHINE_PATHS) == []


def test_no_file_holds_the_address_of_a_package_registry() -> None:
    """Which index is used is the affair of whoever installs."""
    assert lines_with(REGISTRY_HOSTS) == []


def test_no_file_holds_a_private_key() -> None:
    """Nor a token of the well-known shapes."""
    assert lines_with(PRIVATE_KEYS) == []


def test_lock_files_hold_versions_and_hashes_and_no_address() -> None:
    """The same locks install from any index."""
    locks = [path for path in tracked() if path.suffix == ".lock"]
    assert locks
    assert [name_of(path) for path in locks if "://" in text_of(path)] == []
