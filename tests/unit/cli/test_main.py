"""The `heron` command line: what it lists, what it imports, how it fails."""

from __future__ import annotations

import errno
import os
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
    assert capsys.readouterr().err == "this needs numpy: pip install '.[simulate]' in a checkout of Heron\n"


def heron_into(output: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`heron` with its standard output there, which is closed here."""
    command = [sys.executable, "-m", "cli.main", *words]
    try:
        return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(output)


@pytest.mark.parametrize("words", [("data", "list", "--json"), ("profile", "check", "--json")])
def test_a_reader_that_goes_away_is_no_error(words: tuple[str, ...]) -> None:
    """As `| head` does: no word, and the exit code of a program that SIGPIPE ended."""
    reading, writing = os.pipe()
    os.close(reading)
    done = heron_into(writing, *words)
    assert (done.returncode, done.stderr) == (exit_codes.NOT_READ, "")


def test_a_full_disk_is_said() -> None:
    """Neither a traceback nor silence."""
    done = heron_into(os.open("/dev/full", os.O_WRONLY), "data", "list", "--json")
    assert (done.returncode, done.stderr) == (
        exit_codes.BAD_RUN,
        "the output: cannot be written: No space left on device\n",
    )


def test_another_error_of_the_system_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is known to be of the output is told in a line."""

    def failing(_name: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(command_line, "import_module", failing)
    with pytest.raises(PermissionError):
        command_line.main(["data", "list"])


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
