"""`heron batch`: a file of requests, in OpenAI's Batch format, through a router; by default on surplus wind.

Run again with the same output it goes on with what is missing there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli import exit_codes
from cli.duration import seconds_of
from cli.files import check_writable
from cli.signals import signals_held, stop_request
from fleet.config import ConfigError
from replay.batch.files import (
    MAX_SHOWN_FAULTS,
    BatchFileError,
    Checked,
    RecordFile,
    check,
    open_input,
    remaining,
)
from replay.batch.ids import IdSet
from replay.batch.records import Outcome
from replay.batch.run import BatchPlan, BatchRun, KeyRefusedError, Tally, UnreachableError
from replay.client import Endpoint
from replay.runner import allow_open_files

KEY_VARIABLES = ("HERON_API_KEY", "OPENAI_API_KEY")
"""The first that is set."""
MAX_KEY_BYTES = 4096
DEFAULT_CONCURRENCY = 64
MAX_CONCURRENCY = 4096
MOST_DAYS = 30
STANDARD = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `heron batch`."""
    parser.add_argument("file", metavar="FILE", help="requests, one JSON object a line; -: standard input")
    parser.add_argument("--out", required=True, metavar="FILE", help="answers; -: standard output")
    parser.add_argument("--errors", metavar="FILE", help="what was not answered goes there (default: --out)")
    parser.add_argument(
        "--base-url",
        default="http://127.0.0.1:8000/v1",
        metavar="URL",
        help="root of the API (default %(default)s)",
    )
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help=f"default: the key in {' or '.join(KEY_VARIABLES)}"
    )
    parser.add_argument(
        "--tier",
        choices=("flex", "default"),
        default="flex",
        help="of lines that name none: flex runs on surplus wind (default flex)",
    )
    parser.add_argument(
        "--concurrency",
        type=_concurrency,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help="at once, at the most (default %(default)s); fewer while the router refuses",
    )
    parser.add_argument(
        "--within", default="24h", metavar="TIME", help="what is not done by then has expired (default 24h)"
    )
    parser.add_argument(
        "--timeout",
        default="1h",
        metavar="TIME",
        help="for one answer, waiting at the router included (default 1h)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.epilog = (parser.epilog or "") + (
        "\n\nRun again with the same --out, it goes on with what has no final answer there: after Ctrl-C, a"
        "\ncrash, or when requests failed or expired. Exit code 1: some did; 130: it was stopped."
    )


def _concurrency(text: str) -> int:
    value = int(text)
    if not 1 <= value <= MAX_CONCURRENCY:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to {MAX_CONCURRENCY}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Check the input, send, tell.

    Raises:
        ConfigError: an argument, a file or the key cannot be used.
    """
    plan = _plan(arguments)
    _check_files(arguments)
    console = Console(stderr=True)
    done = IdSet()
    with ExitStack() as stack, _refusing():
        source = stack.enter_context(open_input(None if arguments.file == STANDARD else Path(arguments.file)))
        write = _outputs(arguments, done, stack)
        with console.status("checking") if console.is_terminal else nullcontext():
            checked = check(source, done)
        if checked.bad_lines:
            _tell_bad_lines(arguments.file, checked)
            return exit_codes.CONFIGURATION
        source.seek(0)
        left = checked.lines - checked.kept
        if (warning := allow_open_files(plan.concurrency)) is not None:
            print(warning, file=sys.stderr)
        with signals_held(), _progress(console, checked) as show:
            sending = _send(plan, remaining(source, checked.lines, done), write, show)
            try:
                tally, is_stopped = uvloop.run(sending)
            except KeyRefusedError as error:
                raise ConfigError(f"heron batch: {error}") from None
            except UnreachableError as error:
                print(f"heron batch: {error}", file=sys.stderr)
                return exit_codes.BAD_RUN
    values = summary(tally, checked)
    is_out_standard = arguments.out == STANDARD
    if arguments.json:
        print(json.dumps(values))
    else:
        print("\n".join(as_text(values)), file=sys.stderr if is_out_standard else sys.stdout)
    if is_stopped and tally.done < left:
        how = "" if is_out_standard else ": run the same command again to go on"
        print(f"stopped with {left - tally.done:,} not done{how}", file=sys.stderr)
        return exit_codes.INTERRUPTED
    return exit_codes.BAD_RUN if tally.failed or tally.expired else exit_codes.DONE


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except BatchFileError as error:
        raise ConfigError(f"heron batch: {error}") from None


def _plan(arguments: argparse.Namespace) -> BatchPlan:
    try:
        endpoint = Endpoint.parse(arguments.base_url)
    except ValueError as error:
        raise ConfigError(f"heron batch: --base-url {error}") from None
    if not endpoint.root.endswith("/v1"):
        raise ConfigError(
            f"heron batch: --base-url {arguments.base_url}: must end in /v1, as the requests' urls begin so"
        )
    return BatchPlan(
        endpoint=endpoint,
        tier=arguments.tier,
        concurrency=arguments.concurrency,
        within_seconds=seconds_of("heron batch: --within", arguments.within, most_days=MOST_DAYS),
        timeout_seconds=seconds_of("heron batch: --timeout", arguments.timeout, most_days=MOST_DAYS),
        api_key=_api_key(arguments.api_key_file),
    )


def _api_key(path: Path | None) -> str | None:
    """From the file, else from the environment; never repeated in a message."""
    if path is None:
        where = next((name for name in KEY_VARIABLES if name in os.environ), "")
        key = os.environ.get(where, "").strip()
        if not key:
            return None
    else:
        where = f"--api-key-file {path}"
        try:
            with path.open("rb") as stream:
                key = stream.read(MAX_KEY_BYTES + 1).strip().decode("utf-8", "replace")
        except OSError as error:
            raise ConfigError(f"heron batch: {where}: cannot be read: {error.strerror}") from None
    if not key or len(key) > MAX_KEY_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"heron batch: {where}: is no API key: one word of plain ASCII is")
    return key


def _check_files(arguments: argparse.Namespace) -> None:
    """What cannot be meant, before anything is opened."""
    outputs = {"--out": arguments.out, "--errors": arguments.errors}
    written = {option: Path(name) for option, name in outputs.items() if name not in (None, STANDARD)}
    for option, path in written.items():
        check_writable(option, path)
    read = [] if arguments.file == STANDARD else [Path(arguments.file)]
    files = [path.resolve() for path in (*read, *written.values())]
    if len(set(files)) < len(files):
        raise ConfigError("heron batch: FILE, --out and --errors must be different files")
    if arguments.errors == STANDARD:
        raise ConfigError(
            "heron batch: --errors must be a file; what was not answered is in --out without it"
        )
    if arguments.json and arguments.out == STANDARD:
        raise ConfigError("heron batch: --json prints to standard output, where the answers go: name a file")


def _outputs(arguments: argparse.Namespace, done: IdSet, stack: ExitStack) -> Callable[[Outcome], None]:
    """Opens and locks what is written to; `done` gets what is answered there already."""
    out = _standard_output if arguments.out == STANDARD else _open(arguments.out, done, stack)
    errors = out if arguments.errors is None else _open(arguments.errors, done, stack)

    def write(outcome: Outcome) -> None:
        (out if outcome.is_good else errors)(outcome.line)

    return write


def _open(name: str, done: IdSet, stack: ExitStack) -> Callable[[bytes], None]:
    return stack.enter_context(closing(RecordFile(Path(name), done))).write


def _standard_output(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _tell_bad_lines(name: str, checked: Checked) -> None:
    for fault in checked.faults:
        print(f"{name}: {fault}", file=sys.stderr)
    more = checked.bad_lines - len(checked.faults)
    if more:
        print(f"{name}: … and {more:,} more; the first {MAX_SHOWN_FAULTS} are shown", file=sys.stderr)
    print(
        f"heron batch: {checked.bad_lines:,} of {checked.lines:,} lines cannot be sent; nothing was",
        file=sys.stderr,
    )


@contextmanager
def _progress(console: Console, checked: Checked) -> Iterator[Callable[[Tally], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[how]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("sending", total=checked.lines, completed=checked.kept, how="")

        def show(tally: Tally) -> None:
            progress.update(task, completed=checked.kept + tally.done, how=how_it_goes(tally))

        yield show


def how_it_goes(tally: Tally) -> str:
    """Beside the bar."""
    parts = [f"{tally.in_flight} under way"]
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    if tally.waiting_for:
        parts.append(f"waiting: {tally.waiting_for}")
    return ", ".join(parts)


async def _send(
    plan: BatchPlan,
    source: Iterator[Any],
    write: Callable[[Outcome], None],
    show: Callable[[Tally], None] | None,
) -> tuple[Tally, bool]:
    """What became of it, and whether a signal ended it."""
    with stop_request() as stop:
        sending = BatchRun(plan, source, write, rng=Random(), on_change=show)
        tally = await sending.run(stop.requested, stop.is_urgent)
        return tally, stop.requested.is_set()


def summary(tally: Tally, checked: Checked) -> dict[str, Any]:
    """What `--json` prints. Tokens and seconds are this run's."""
    return {
        "requests": checked.lines,
        "kept": checked.kept,
        "completed": tally.completed,
        "failed": tally.failed,
        "expired": tally.expired,
        "not_done": checked.lines - checked.kept - tally.done,
        "retries": tally.retries,
        "prompt_tokens": tally.prompt_tokens,
        "output_tokens": tally.output_tokens,
        "seconds": round(tally.seconds, 3),
        "waited_seconds": {reason: round(seconds, 3) for reason, seconds in tally.waited_seconds.items()},
    }


def as_text(values: dict[str, Any]) -> list[str]:
    """The same for a person."""
    kept = f", {values['kept']:,} answered before" if values["kept"] else ""
    waited = ", ".join(f"{seconds:.1f} s {reason}" for reason, seconds in values["waited_seconds"].items())
    outcome = (
        f"{values['requests']:,} requests: {values['completed']:,} answered, {values['failed']:,} failed,"
        f" {values['expired']:,} expired{kept}"
    )
    return [
        outcome,
        f"{values['prompt_tokens']:,} tokens in, {values['output_tokens']:,} out, {values['seconds']:.1f} s",
        f"nothing sent for: {waited or 'no time'}; sent again: {values['retries']:,}",
    ]
