"""Cuts streams of real vLLM engines at random bytes, kills engines, compares what the client got.

Two engines (the tiny random model, greedy with `repetition_penalty` 1.3 so that a wrong token shows) behind
two `CuttingSite`s, a real Redis and a real router process. Each case is one prompt asked twice: unbroken, and
broken.

  exact     must be *the same*: text, one id, one role, the same finish and usage, one `[DONE]`
  stop      the same, of an answer that ends by a stop string: half of them with the stop string in the text,
            chats half of the time without `max_tokens`
  faithful  sampling with a seed, frequency and presence penalties: the words may be others; what must hold is
            `Told.breaks_a_promise`
  text      an engine without token ids: as faithful; how often the words are the same is counted, and no goal
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.resume.cases import (
    FAITHFUL_KINDS,
    KINDS,
    STOP_KINDS,
    Case,
    cut_rule,
    draw_stop,
    faithful,
    stop_rule,
    text_in,
)
from benchmarks.resume.cutting_site import CutRule
from benchmarks.resume.fleet import EngineSetting, Fleet, running
from benchmarks.resume.told import Told, ask

MAX_DRAWS = 10
"""Of one case, until its stream is cut before it ends."""
IDS = b'"token_ids":['
"""In what an engine says that was asked for them."""
BY_TEXT = "by text"
KILLED = "engine killed"

Group = Literal["exact", "killed", "stop", "faithful", "text", "parsed"]
KINDS_OF: dict[Group, tuple[str, ...]] = {
    "exact": KINDS,
    "killed": (KILLED,),
    "stop": STOP_KINDS,
    "faithful": FAITHFUL_KINDS,
    "text": (BY_TEXT,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One case."""

    group: Group
    kind: str
    path: str
    difference: str
    """What was not as it must be in its group; "" if nothing."""
    is_same_text: bool
    """As in the unbroken stream."""
    methods: str
    """How it went on, by the router's count: "ids", "text", "parsed", "none" (no site was asked); "" where
    there was nothing to continue: asked anew, or cut behind its end."""


@dataclass(slots=True)
class Broken:
    """A stream that was cut."""

    told: Told
    sent: str = ""
    """The text in the events that the first site had sent whole."""
    methods: Counter[str] = field(default_factory=Counter)

    def result(self, group: Group, kind: str, case: Case, whole: Told, difference: str) -> Result:
        return Result(
            group=group,
            kind=kind,
            path=case.path,
            difference=difference,
            is_same_text=(self.told.text, self.told.reasoning, self.told.calls)
            == (whole.text, whole.reasoning, whole.calls),
            methods=" ".join(sorted(self.methods.elements())),
        )


async def ask_whole(fleet: Fleet, case: Case) -> tuple[Told, bytes]:
    """What a client is told, and what its site said."""
    said = [b""]

    def listen(body: bytes) -> int | None:
        said[0] = body
        return None

    for site in fleet.sites.values():
        site.rule = listen
    told = await ask(fleet.client, case.path, case.body)
    for site in fleet.sites.values():
        site.rule = None
    return told, said[0]


async def ask_broken(fleet: Fleet, case: Case, rule: CutRule) -> Broken | None:
    """The same, cut once; None where the stream ended before its place came.

    An engine that runs behind puts several tokens into one event, and the next stream is shorter.
    """
    struck: list[bytes] = []

    def once(body: bytes) -> int | None:
        at = None if struck else rule(body)
        if at is not None:
            struck.append(body[:at])
        return at

    before = await fleet.resumes()
    for site in fleet.sites.values():
        site.rule = once
    told = await ask(fleet.client, case.path, case.body)
    for site in fleet.sites.values():
        site.rule = None
        await site.announce()
    if not struck:
        return None
    return Broken(told, text_in(struck[0]), await fleet.resumes() - before)


async def run_cut(fleet: Fleet, kind: str, rng: random.Random) -> Result | None:
    """One cut of a greedy stream; None where the stream ended before its place came."""
    case = Case.draw(rng)
    whole, said = await ask_whole(fleet, case)
    broken = await ask_broken(fleet, case, cut_rule(kind, rng, len(said)))
    return broken and broken.result("exact", kind, case, whole, broken.told.differs_from(whole))


async def run_stop(fleet: Fleet, kind: str, rng: random.Random) -> Result | None:
    """One cut of a stream that ends by a stop string, taken from what the engine says without one."""
    case = Case.draw(rng)
    case = case.changed(max_tokens=max(80, case.limit_tokens))
    plain, said = await ask_whole(fleet, case)
    stop = draw_stop(said, rng)
    if stop is None:
        return None
    keeps = rng.random() < 0.5
    case = case.changed(stop=[stop.text], include_stop_str_in_output=keeps or None)
    if case.path.endswith("chat/completions") and rng.random() < 0.5:
        case = case.changed(max_tokens=None)
    whole, _ = await ask_whole(fleet, case)
    end = plain.text.index(stop.text) + (len(stop.text) if keeps else 0)
    if (whole.text, whole.finish, whole.stop_reasons) != (plain.text[:end], ["stop"], [stop.text]):
        raise RuntimeError(f"the unbroken stream does not end by {stop.text!r}: {whole}")
    broken = await ask_broken(fleet, case, stop_rule(kind, stop, rng))
    return broken and broken.result("stop", kind, case, whole, broken.told.differs_from(whole))


async def run_faithful(fleet: Fleet, kind: str, rng: random.Random) -> Result | None:
    """One cut of a stream that no continuation can give word for word, or of one by text."""
    case = Case.draw(rng)
    is_text = kind == BY_TEXT
    case = case.changed(ignore_eos=True) if is_text else faithful(case, kind, rng)
    whole, said = await ask_whole(fleet, case)
    if is_text and IDS in said:
        raise RuntimeError("the router asks an engine for ids that its site says it does not know")
    broken = await ask_broken(fleet, case, cut_rule(rng.choice(KINDS), rng, len(said)))
    if broken is None:
        return None
    difference = broken.told.breaks_a_promise(
        whole,
        limit_tokens=case.limit_tokens,
        sent=broken.sent,
        knows_prompt=not is_text,
        may_lack_usage=is_text and set(broken.methods) == {"none"},
    )
    return broken.result("text" if is_text else "faithful", kind, case, whole, difference)


async def run_kill(fleet: Fleet, rng: random.Random) -> Result:
    """SIGKILL of the engine that serves the stream; returns once it is up again."""
    case = Case.draw(rng).changed(max_tokens=1000, ignore_eos=True)
    whole, _ = await ask_whole(fleet, case)
    before = await fleet.resumes()
    victim = rng.choice(sorted(fleet.engines))
    await fleet.serve_at(victim)  # the stream begins where the engine is killed
    await asyncio.sleep(0.1)
    begun = asyncio.Event()
    asking = asyncio.create_task(ask(fleet.client, case.path, case.body, begun))
    await begun.wait()
    await fleet.serve_at(*(name for name in fleet.sites if name != victim))
    fleet.engines[victim].kill()
    broken = Broken(await asking, methods=await fleet.resumes() - before)
    fleet.engines[victim].start()
    await fleet.engines[victim].wait_until_ready()
    await fleet.serve_at(*fleet.sites)
    difference = broken.told.differs_from(whole) or ("" if broken.methods else "was not resumed")
    return broken.result("killed", KILLED, case, whole, difference)


async def _forget_ids(fleet: Fleet) -> None:
    """From now on the sites say that their engines know no token ids; returns when the router has read it."""
    for site in fleet.sites.values():
        site.takes_ids = False
        await site.announce()
    case = Case.draw(random.Random(0)).changed(max_tokens=2)
    for name in fleet.sites:
        await fleet.serve_at(name)
        for _ in range(100):
            await asyncio.sleep(0.1)
            if IDS not in (await ask_whole(fleet, case))[1]:
                break
        else:
            raise RuntimeError(f"the router does not see that {name} has no token ids")
    await fleet.serve_at(*fleet.sites)


async def run(
    directory: Path,
    setting: EngineSetting,
    counts: dict[Group, int],
    *,
    seed: int = 1,
    report: Callable[[Result], None] | None = None,
) -> list[Result]:
    """The whole campaign: so many of each group, their kinds in turn; `report` is called with each result.

    Raises:
        RuntimeError: an engine, the router or what they say unbroken is not as it must be for measuring.
    """
    cases = {"exact": run_cut, "stop": run_stop, "faithful": run_faithful, "text": run_faithful}
    results: list[Result] = []
    async with running(directory, setting) as fleet:
        for offset, (group, kinds) in enumerate(KINDS_OF.items()):
            if group == "text" and counts.get(group):
                await _forget_ids(fleet)
            for number in range(counts.get(group, 0)):
                first = seed * 10_000 + number + (5_000 if group == "killed" else offset * 100_000_000)
                result: Result | None
                if group == "killed":
                    result = await run_kill(fleet, random.Random(first))
                for draw in range(0 if group == "killed" else MAX_DRAWS):
                    rng = random.Random(first + draw * 1_000_000)
                    result = await cases[group](fleet, kinds[number % len(kinds)], rng)
                    if result is not None:
                        break
                if result is None:
                    raise RuntimeError(f"{MAX_DRAWS} streams in a row ended before they were cut")
                results.append(result)
                if report is not None:
                    report(result)
    return results
