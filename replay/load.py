"""A trace file or the synthetic generator as one schedule: where a run's requests come from, and its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from replay.schedule import ScheduleCounts, ScheduledRequest, ScheduleRule, schedule
from replay.synthetic import SyntheticSpec, check_count, generate
from replay.trace import TraceError, TraceReader, TraceReport, TraceRequest, check_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send. `counts` and `report` are complete when `requests` is exhausted."""

    requests: Iterable[ScheduledRequest]
    counts: ScheduleCounts
    description: str
    """For every output; begins with "synthetic trace" when no trace file is behind it."""
    report: TraceReport | None
    """What was found in the trace file; None for a synthetic load."""


@contextmanager
def open_load(source: Path | SyntheticSpec, rule: ScheduleRule, *, seed: int) -> Iterator[Load]:
    """Open a trace, or set up the generator, and put the schedule over it.

    Thinning and cancels have a random source of their own, so that they do not change the requests.

    Raises:
        TraceError: the file cannot be opened or is no trace of requests; a synthetic load of too many.
        ValueError: a synthetic load, which has no end, without `rule.max_seconds`.
    """
    counts = ScheduleCounts()
    rng = Random(f"schedule {seed}")
    if isinstance(source, SyntheticSpec):
        if rule.max_seconds is None:
            raise ValueError("a synthetic trace has no end: max_seconds must be given")
        check_count(source, rule.start_seconds + rule.max_seconds * rule.speed)
        requests: Iterable[TraceRequest] = generate(source, Random(f"requests {seed}"))
        description = f"{source.describe()}, seed {seed}"
        yield Load(
            requests=schedule(requests, rule, rng, counts),
            counts=counts,
            description=description,
            report=None,
        )
        return
    check_trace(source)
    try:
        stream = source.open("rb")
    except OSError as error:
        raise TraceError(f"{source}: cannot be read: {error.strerror}") from None
    with stream:
        reader = TraceReader(stream, name=source.name)
        yield Load(
            requests=schedule(reader, rule, rng, counts),
            counts=counts,
            description=source.name,
            report=reader.report,
        )
