"""`heron replay`: send a trace to any OpenAI endpoint and report what came back."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import uvloop
from rich.console import Console
from rich.status import Status

from cli.data import resolve
from cli.files import check_writable
from fleet.config import ConfigError
from fleet.profile import PerformanceProfile
from fleet.profile_file import find_profile, is_file, read_document
from fleet.profiles.document import ProfileDocumentError
from fleet.profiles.measured import fit_profile
from replay.client import ClientLimits, Endpoint
from replay.load import Load, open_load
from replay.outcome import OUTCOMES
from replay.progress import Progress
from replay.prompts import PromptSource, TokenIdPrompts, WordPrompts
from replay.report import duration, reasons, summary, table
from replay.results import Results, Slo
from replay.runner import DEFAULT_MAX_IN_FLIGHT, ReplayPlan, allow_open_files
from replay.runner import run as replay
from replay.schedule import ScheduleRule
from replay.synthetic import SHAPES, SyntheticSpec
from replay.trace import TraceError

DEFAULT_SYNTHETIC_SECONDS = 60.0
MODELS_TIMEOUT_SECONDS = 10.0
EXIT_BAD_RUN = 1
EXIT_INTERRUPTED = 130
API_KEY_VARIABLE = "OPENAI_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments, in four groups."""
    parser.add_argument(
        "--base-url",
        "--url",
        default="http://127.0.0.1:8000",
        help="root of the API, with or without /v1 (default %(default)s)",
    )
    parser.add_argument("--model", help="default: the one model that the endpoint lists")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    parser.add_argument("--quiet", action="store_true", help="no live line and no table")

    load = parser.add_argument_group("load")
    load.add_argument(
        "--trace", type=Path, metavar="FILE", help="an Azure LLM trace, or its name in `heron data`"
    )
    load.add_argument("--speed", type=float, default=1.0, help="trace seconds per second (default 1)")
    load.add_argument("--start-seconds", type=float, default=0.0, help="trace time to begin at")
    load.add_argument(
        "--seconds",
        type=float,
        help=f"how long to send (default: the whole trace; a synthetic one {DEFAULT_SYNTHETIC_SECONDS:g} s)",
    )
    load.add_argument("--keep-ratio", type=float, default=1.0, help="share of the requests to send")
    load.add_argument("--cancel-ratio", type=float, default=0.0, help="share whose client leaves early")
    load.add_argument("--seed", type=int, default=0)

    synthetic = parser.add_argument_group("synthetic load (without --trace)")
    synthetic.add_argument("--shape", choices=sorted(SHAPES), help="statistics of which trace (default conv)")
    synthetic.add_argument("--rate", type=float, help="requests per second (default: as published)")
    synthetic.add_argument("--arrivals", choices=("bursty", "poisson"), help="default bursty")
    synthetic.add_argument("--mean-prompt-tokens", type=float)
    synthetic.add_argument("--mean-output-tokens", type=float)

    requests = parser.add_argument_group("requests")
    requests.add_argument(
        "--prompt",
        choices=("words", "ids"),
        default="words",
        help="words: chats of N words; ids: completions of N token ids with ignore_eos, exact on vLLM",
    )
    requests.add_argument("--vocabulary-size", type=int, help="of the model; needed with --prompt ids")
    requests.add_argument("--max-model-len", type=int, help="longer requests are cut to it, and counted")
    requests.add_argument("--max-output-tokens", type=int, help="longer answers are cut to it, and counted")
    requests.add_argument("--no-stream", action="store_true", help="ask for whole answers")
    requests.add_argument(
        "--verify", action="store_true", help="the engines are Heron's emulated ones: check every word"
    )
    requests.add_argument(
        "--profile",
        help="performance profile of the engines, by name or file; the SLO is 5 times a request alone on it",
    )
    requests.add_argument("--max-in-flight", type=_positive_whole, default=DEFAULT_MAX_IN_FLIGHT)
    requests.add_argument(
        "--timeout-seconds", type=_positive, help="for one request, from sending to its end"
    )
    requests.add_argument(
        "--grace-seconds", type=_positive, help="wait after the last send; default: time-out"
    )
    parser.epilog = (parser.epilog or "") + (
        f"\n\nThe API key is taken from {API_KEY_VARIABLE}. Exit code 1: something was lost or corrupted, or "
        "nothing\ncompleted."
    )


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def _positive_whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be 1 or more")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Replay and report.

    Raises:
        ConfigError: an argument, the trace file or the endpoint cannot be used.
    """
    check_writable("--json", arguments.json)
    with _refusing(ProfileDocumentError):
        profile = None if arguments.profile is None else _profile(arguments.profile)
    with _refusing(ValueError):
        source, rule = _load_of(arguments)
        Endpoint.parse(arguments.base_url)
        prompts = _prompts(arguments, arguments.model or _only_model(arguments.base_url))
    console = Console(stderr=True, quiet=arguments.quiet)
    with _refusing(TraceError), open_load(source, rule, seed=arguments.seed) as load:
        console.print(f"trace: {load.description}", highlight=False)
        warning = allow_open_files(arguments.max_in_flight)
        if warning is not None:
            console.print(f"[yellow]{warning}[/yellow]", highlight=False)
        plan = _plan(arguments, load, prompts, profile)
        results, is_interrupted = uvloop.run(_replay(plan, arguments.base_url, console))
    if not (load.counts.scheduled or load.counts.thinned or is_interrupted) and rule.start_seconds > 0:
        within = "" if rule.max_seconds is None else f" within {rule.max_seconds:g} s"
        raise ConfigError(
            f"heron replay: no request of the trace lies after --start-seconds {rule.start_seconds:g}{within}"
        )
    values = summary(results, inputs=_inputs(arguments, load), schedule=load.counts)
    _report(arguments, values, load)
    if is_interrupted:
        return EXIT_INTERRUPTED
    is_bad = results.corrupted > 0 or values["lost"] > 0 or values["completed"] == 0
    return EXIT_BAD_RUN if is_bad else 0


def _profile(reference: str) -> PerformanceProfile:
    """By name or file; a file without watts will do, as an SLO is made of times alone."""
    if is_file(reference):
        return fit_profile(read_document(Path(reference)), name=reference)
    return find_profile(reference)


@contextmanager
def _refusing(kind: type[ValueError]) -> Iterator[None]:
    try:
        yield
    except kind as error:
        raise ConfigError(f"heron replay: {error}") from None


def _load_of(arguments: argparse.Namespace) -> tuple[Path | SyntheticSpec, ScheduleRule]:
    """Where requests come from and when they are sent; ValueError names what does not fit together."""
    seconds = arguments.seconds
    source: Path | SyntheticSpec
    if arguments.trace is not None:
        for name in ("shape", "rate", "arrivals", "mean_prompt_tokens", "mean_output_tokens"):
            if getattr(arguments, name) is not None:
                option = "--" + name.replace("_", "-")
                raise ValueError(
                    f"{option} is for a synthetic load; with --trace use --speed and --keep-ratio"
                )
        source = resolve(arguments.trace)
    else:
        source = SyntheticSpec(
            shape=arguments.shape or "conv",
            requests_per_second=arguments.rate,
            arrivals=arguments.arrivals or "bursty",
            mean_prompt_tokens=arguments.mean_prompt_tokens,
            mean_output_tokens=arguments.mean_output_tokens,
        )
        seconds = DEFAULT_SYNTHETIC_SECONDS if seconds is None else seconds
    rule = ScheduleRule(
        speed=arguments.speed,
        start_seconds=arguments.start_seconds,
        max_seconds=seconds,
        keep_ratio=arguments.keep_ratio,
        max_output_tokens=arguments.max_output_tokens,
        max_total_tokens=arguments.max_model_len,
        cancel_ratio=arguments.cancel_ratio,
    )
    return source, rule


def _prompts(arguments: argparse.Namespace, model: str) -> PromptSource:
    if arguments.prompt == "words":
        if arguments.vocabulary_size is not None:
            raise ValueError("--vocabulary-size is for --prompt ids: words need none")
        return WordPrompts(model, seed=arguments.seed, is_exact=arguments.verify)
    if arguments.vocabulary_size is None:
        raise ValueError("--prompt ids needs --vocabulary-size, the number of token ids of the model")
    return TokenIdPrompts(model, vocabulary_size=arguments.vocabulary_size, seed=arguments.seed)


def _only_model(base_url: str) -> str:
    """The model that the endpoint lists; ValueError when there is not exactly one."""
    endpoint = Endpoint.parse(base_url)
    url = f"{endpoint.origin}{endpoint.root}/models"
    try:
        answer = httpx.get(url, headers=_authorization(), timeout=MODELS_TIMEOUT_SECONDS)
        answer.raise_for_status()
        models = [str(model["id"]) for model in answer.json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{url} gave no list of models ({error}); name one with --model") from None
    if len(models) != 1:
        raise ValueError(f"{url} lists {models or 'no model'}; name one with --model")
    return models[0]


def _authorization() -> dict[str, str]:
    key = os.environ.get(API_KEY_VARIABLE)
    return {} if key is None else {"authorization": f"Bearer {key}"}


def _plan(
    arguments: argparse.Namespace, load: Load, prompts: PromptSource, profile: PerformanceProfile | None
) -> ReplayPlan:
    limits = ClientLimits()
    if arguments.timeout_seconds is not None:
        seconds = arguments.timeout_seconds
        limits = ClientLimits(
            connect_timeout_seconds=min(seconds, limits.connect_timeout_seconds),
            first_byte_timeout_seconds=seconds,
            stall_timeout_seconds=seconds,
            request_timeout_seconds=seconds,
        )
    return ReplayPlan(
        requests=load.requests,
        prompts=prompts,
        slo=None if profile is None else Slo.from_profile(profile),
        limits=limits,
        api_key=os.environ.get(API_KEY_VARIABLE),
        stream=not arguments.no_stream,
        is_verifying=arguments.verify,
        max_in_flight=arguments.max_in_flight,
        grace_seconds=arguments.grace_seconds,
    )


async def _replay(plan: ReplayPlan, base_url: str, console: Console) -> tuple[Results, bool]:
    """The results, and whether Ctrl-C ended the run."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with Status("sending", console=console) as status:

        def show(progress: Progress) -> None:
            status.update(progress_line(progress))

        results = await replay(plan, base_url, stop=stop, on_progress=show)
    return results, stop.is_set()


def progress_line(progress: Progress) -> str:
    """One line that says how a run stands."""
    ended = ", ".join(f"{progress.outcomes[name]:,} {name}" for name in OUTCOMES if progress.outcomes[name])
    return (
        f"{progress.elapsed_seconds:.0f} s: {progress.sent:,} sent ({progress.sent_per_second:.1f}/s), "
        f"{progress.in_flight} in flight, TTFT p50 {duration(progress.ttft_seconds_p50)}, "
        f"ITL p50 {duration(progress.itl_seconds_p50)}; {ended or 'none ended yet'}"
    )


def _inputs(arguments: argparse.Namespace, load: Load) -> dict[str, Any]:
    return {
        "wind": None,
        "trace": load.description,
        "engine": arguments.base_url,
        "speed": arguments.speed,
        "seed": arguments.seed,
    }


def _report(arguments: argparse.Namespace, values: dict[str, Any], load: Load) -> None:
    faults = [] if load.report is None else load.report.lines()
    values["load_generator"]["trace_faults"] = faults
    for line in faults:
        print(line, file=sys.stderr)
    if arguments.json is not None:
        arguments.json.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")
    if not arguments.quiet:
        Console().print(table(values))
        for line in reasons(values):
            print(line)
