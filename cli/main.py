"""The `heron` command: one subcommand for each thing a person does.

Rule: nothing is imported before it is known which subcommand runs, so `heron --help` answers at once and a
router never loads the load generator. A subcommand's module exposes `add_arguments(parser)` and
`run(arguments) -> int`.

Exit codes: 0 done, 1 the work ended badly (the message says how), 2 the arguments or the configuration are
wrong, 130 interrupted by Ctrl-C, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cli import exit_codes
from fleet.config import ConfigError
from fleet.version import extra_hint, installed_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand. Every example parses as it stands, which a test checks."""

    module: str
    help: str
    examples: tuple[str, ...]


COMMANDS: dict[str, Command] = {
    "demo": Command(
        module="cli.demo",
        help="run a whole fleet here, send traffic through it, show what happens",
        examples=(
            "heron demo",
            "heron demo --scenario sudden-drop --seconds 60",
            "heron demo --headless --seconds 30 --scenario site-crash --json out.json",
        ),
    ),
    "up": Command(
        module="cli.up",
        help="run a whole fleet from one configuration file, and keep it up",
        examples=("heron up --example > fleet.toml", "heron up --config fleet.toml"),
    ),
    "router": Command(
        module="cli.services",
        help="run the router: OpenAI's API in front of all sites",
        examples=("heron router --config fleet.toml", "HERON_ROUTER_PORT=9000 heron router"),
    ),
    "site-agent": Command(
        module="cli.services",
        help="run one site: its engines, under its power cap",
        examples=("heron site-agent --config fleet.toml --site north",),
    ),
    "power-feed": Command(
        module="cli.power_feed",
        help="run the power feed: what the wind gives, to every site; or test its sources",
        examples=(
            "heron power-feed --config fleet.toml",
            "heron power-feed test --config fleet.toml --farm coast-farm --seconds 30",
            "heron power-feed backtest --wind fts-213-wind",
        ),
    ),
    "replay": Command(
        module="cli.replay",
        help="send a trace to any OpenAI endpoint and report what came back",
        examples=("heron replay --url http://127.0.0.1:8000 --seconds 10 --rate 5",),
    ),
    "batch": Command(
        module="cli.batch",
        help="put a file of requests through a router, on surplus wind",
        examples=(
            "heron batch requests.jsonl --out answers.jsonl",
            "heron batch requests.jsonl --out answers.jsonl --errors errors.jsonl --within 8h --json",
            "heron batch - --out - --tier default --base-url http://127.0.0.1:8000/v1",
        ),
    ),
    "profile": Command(
        module="cli.profile",
        help="measure an engine; how well a profile fits what was measured",
        examples=(
            "heron profile check",
            "heron profile check llama.json",
            "heron profile run --url http://127.0.0.1:8000 --out llama.json --batches 1,8,64",
        ),
    ),
    "doctor": Command(
        module="cli.doctor",
        help="check one site: what is wrong, and what to do about it",
        examples=(
            "heron doctor --config fleet.toml --site north",
            "heron doctor --config fleet.toml --site north --json",
        ),
    ),
    "bound": Command(
        module="cli.bound",
        help="how much of a load could be served at all, and by fluid baselines",
        examples=(
            "heron bound --wind fts-213-wind --trace conv-2024",
            "heron bound --days 1:7 --load 0.5 --json bound.json",
        ),
    ),
    "simulate": Command(
        module="cli.simulate",
        help="run policies on wind and load on a virtual clock, and compare them",
        examples=(
            "heron simulate --policy heron,least_loaded --days 1:1 --sample 12h:5m:2m",
            "heron simulate --wind fts-213-wind --days fts-127 --trace conv-2024 --report out.html",
        ),
    ),
    "size": Command(
        module="cli.size",
        help="size clusters at wind farms, and cost their GPU-hours",
        examples=(
            "heron size --wind fts-213-wind --farm-mw 200 --gpu h100",
            "heron size --wind wind.csv --percentiles 20,40 --plot size.png --json size.json",
        ),
    ),
    "keys": Command(
        module="cli.keys",
        help='make, list and revoke API keys for a router with auth = "keys"',
        examples=(
            "heron keys add --tenant acme --tier default --tier flex --requests-per-minute 600",
            "heron keys list --config fleet.toml",
            "heron keys revoke 4fd1c02a9b3e",
        ),
    ),
    "cordon": Command(
        module="cli.cordon",
        help="take a site out of service: no new work, what runs there goes on",
        examples=(
            "heron cordon north --reason 'new fans' --for 2h",
            "heron cordon north --lift",
            "heron cordon",
        ),
    ),
    "data": Command(
        module="cli.data",
        help="list and fetch the official wind and trace files",
        examples=("heron data list",),
    ),
}


OF_EXTRA_SIMULATE = frozenset({"highspy", "matplotlib", "numpy"})
"""Packages that a service can do without. (A router that should plan says itself that it cannot.)"""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Of a file that could be opened and not be written to its end."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)
        self._action_max_length = 16  # argparse forgets the indent of subcommands, and would wrap the longest

    def _format_action(self, action: argparse.Action) -> str:
        """Of the subcommands' list without its own line, which only repeats the title above it."""
        if isinstance(action, argparse._SubParsersAction):
            return self._join_parts(
                [self._format_action(one) for one in self._iter_indented_subactions(action)]
            )
        return super()._format_action(action)


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of the whole command line; only `chosen`'s module is imported, for its arguments."""
    parser = argparse.ArgumentParser(
        prog="heron",
        description="LLM inference on wind power. Start with: heron demo. Each COMMAND has --help.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"heron {installed_version()}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
            formatter_class=_Formatter,
        )
        if name == chosen:
            import_module(command.module).add_arguments(subparser)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; argparse's own errors exit 2."""
    chosen = next((word for word in argv if not word.startswith("-")), None)
    return build_parser(chosen if chosen in COMMANDS else None).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. An unexpected error is a traceback, never swallowed."""
    try:
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            run: Any = import_module(COMMANDS[arguments.command].module).run
            return int(run(arguments))
        finally:
            sys.stdout.flush()  # what cannot be written any more shows here, not when the interpreter ends
    except BrokenPipeError:
        _drop_output()
        return exit_codes.NOT_READ
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        _drop_output()
        print(f"{error.filename or 'the output'}: cannot be written: {error.strerror}", file=sys.stderr)
        return exit_codes.BAD_RUN
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exit_codes.CONFIGURATION
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OF_EXTRA_SIMULATE:
            raise
        print(f"this needs {package}: {extra_hint('simulate')}", file=sys.stderr)
        return exit_codes.CONFIGURATION
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _drop_output() -> None:
    """What is still buffered goes nowhere, without a word from the interpreter when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
