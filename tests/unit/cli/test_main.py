"""The `heron` command line: what it lists, what it imports, how it fails."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from cli import exit_codes
from cli import main as command_line

EXAMPLES = [
    (name, example) for name, command in command_line.COMMANDS.items() for example in command.examples
]


def arguments_of(example: str) -> list[str]:
    """The words after `heron`, without environment assignments before it and a redirection after it."""
    words = shlex.split(example)
    words = words[words.index("heron") + 1 :]
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_every_example_in_the_help_parses(name: str, example: str) -> None:
    """Every example that a subcommand's help shows is accepted as it stands."""
    assert command_line.parse(arguments_of(example)).command == name


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_help_of_each_command_shows_its_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`heron COMMAND --help` exits 0 and shows each example."""
    with pytest.raises(SystemExit) as stopped:
        command_line.parse([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(example in shown for example in command_line.COMMANDS[name].examples)


def test_help_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """`heron --help` is at most 24 lines of 100 columns and names every command."""
    with pytest.raises(SystemExit) as stopped:
        command_line.parse(["--help"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    assert all(any(name in line for line in lines) for name in command_line.COMMANDS)


def test_help_imports_no_service() -> None:
    """`heron --help` loads neither a service nor the load generator, so that it answers at once."""
    code = (
        "import sys, cli.main\n"
        "try: cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('LOADED', [n for n in sys.modules if n.split('.')[0] in "
        "('router', 'site_agent', 'power_feed', 'replay', 'rich', 'httpx', 'redis', 'fastapi')])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("command", ["bound", "simulate"])
def test_an_absent_extra_is_said(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what to install."""

    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy.linalg")

    monkeypatch.setattr(command_line, "import_module", absent)
    assert command_line.main([command, "--days", "1:1"]) == exit_codes.CONFIGURATION
    assert capsys.readouterr().err == "this needs numpy: pip install 'heron-router[simulate]'\n"


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`heron --version` prints the name and a version and exits 0."""
    with pytest.raises(SystemExit) as stopped:
        command_line.parse(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("heron ")


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["demo", "--no-such-flag"], ["demo", "--seconds", "x"]])
def test_wrong_arguments_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A missing or unknown command or flag is refused with usage on stderr and exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        command_line.parse(argv)
    assert stopped.value.code == 2
    assert "usage: heron" in capsys.readouterr().err
