"""`heron batch` as its own process, through a real router."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from support.heron_command import HERON
from support.router_fleet import CHAT, RouterFleet, chat, put_key, router_fleet
from support.stub_site import Behaviour
from support.wait import until

QUICK: dict[str, Any] = {"flex_requests_per_second": 1000}


def requests(path: Path, count: int, **changes: Any) -> Path:
    """A file of so many chats, whose `user` is their custom_id."""
    lines = [request(f"r-{number}", chat(user=f"r-{number}")) | changes for number in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def request(custom_id: str, body: Any, url: str = "/v1/chat/completions") -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


async def start(fleet: RouterFleet, *words: str | Path, key: str | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*HERON, "batch", *map(str, words), "--base-url", f"{fleet.url}/v1"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=None if key is None else {"HERON_API_KEY": key},
    )


async def heron_batch(
    fleet: RouterFleet, *words: str | Path, key: str | None = None
) -> tuple[int | None, str, str]:
    process = await start(fleet, *words, key=key)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines that are there now."""
    text = path.read_bytes() if path.exists() else b""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def ids(path: Path) -> list[str]:
    return sorted(line["custom_id"] for line in read(path))


@contextlib.asynccontextmanager
async def reporting(fleet: RouterFleet) -> AsyncIterator[None]:
    """The sites report again and again: flex goes only where a report is fresh."""

    async def report() -> None:
        while True:
            await fleet.announce()
            await asyncio.sleep(0.2)

    task = asyncio.create_task(report())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_file_waits_for_surplus_wind_and_is_answered(store: Any, tmp_path: Path):
    """Refused while the site is busy, all back off together; a line's own tier is its own affair."""
    file, out = requests(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    with file.open("a") as stream:
        stream.write(json.dumps(request("own", chat(user="own", service_tier="default"))) + "\n")
        stream.write(json.dumps(request("vector", {"model": "m", "input": "hi"}, "/v1/embeddings")))
    async with router_fleet(store, "a", flex_hold_seconds=0.1, **QUICK) as fleet, reporting(fleet):
        fleet.site("a").headroom = 12  # of 40: room for default, and no surplus
        await fleet.announce()
        process = await start(fleet, file, "--out", out, "--json")
        await until(lambda: fleet.totals["shed"] >= 1, what="a refusal")
        fleet.site("a").headroom = 40
        printed, err = await process.communicate()
        await fleet.settled()
        tiers = Counter(seen.fields["service_tier"] for seen in fleet.site("a").inference)
    summary = json.loads(printed)
    assert (process.returncode, err.decode()) == (0, "")
    assert tiers == {"flex": 21, "default": 1}
    assert (summary["requests"], summary["completed"], summary["failed"]) == (22, 22, 0)
    assert summary["waited_seconds"]["no_surplus"] >= 1
    assert summary["output_tokens"] >= 20 * CHAT["max_tokens"]
    lines = {line["custom_id"]: line for line in read(out)}
    assert len(lines) == 22
    for custom_id, line in lines.items():
        kind = CreateEmbeddingResponse if custom_id == "vector" else ChatCompletion
        kind.model_validate(line["response"]["body"])
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"]
        assert line["error"] is None


async def test_after_kill_9_it_goes_on_with_what_is_missing(store: Any, tmp_path: Path):
    """Each request is answered once, and none that was written is asked again; a torn line is cut off."""
    file, out = requests(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl"
    async with router_fleet(store, "a", **QUICK) as fleet, reporting(fleet):
        fleet.site("a").default = Behaviour(delay_seconds=0.05)
        process = await start(fleet, file, "--out", out, "--concurrency", "4")
        await until(lambda: len(read(out)) >= 6, what="some answers")
        process.kill()
        await process.communicate()
        written = ids(out)
        with out.open("ab") as stream:
            stream.write(b'{"id":"batch_req_00","custom_id":"r-39","resp')
        code, printed, _ = await heron_batch(fleet, file, "--out", out)
        asked = Counter(seen.fields["user"] for seen in fleet.site("a").inference)
    assert code == 0
    assert 6 <= len(written) < 40
    assert f"{40 - len(written)} answered, 0 failed, 0 expired, {len(written)} answered before" in printed
    assert ids(out) == sorted(f"r-{number}" for number in range(40))
    assert [asked[custom_id] for custom_id in written] == [1] * len(written)


async def test_sigterm_writes_what_is_done_and_says_how_to_go_on(store: Any, tmp_path: Path):
    """Meanwhile a second run on the same file is refused; what is under way is given up."""
    file, out = requests(tmp_path / "in.jsonl", 10), tmp_path / "out.jsonl"
    async with router_fleet(store, "a", **QUICK) as fleet, reporting(fleet):
        site = fleet.site("a")
        site.script.extend([Behaviour()] * 3)
        site.default = Behaviour(hang=True)
        process = await start(fleet, file, "--out", out)
        await until(lambda: len(read(out)) == 3 and site.running == 7, what="three answers, seven under way")
        code, _, err = await heron_batch(fleet, file, "--out", out)
        assert (code, err) == (2, f"heron batch: {out}: another heron batch writes to it now\n")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)  # the second does not wait for what is under way
        _, told = await process.communicate()
        assert process.returncode == 130
        assert told.decode() == "stopped with 7 not done: run the same command again to go on\n"
        assert len(read(out)) == 3
        await until(lambda: site.running == 0, what="the router was told")


async def test_what_is_not_done_within_the_time_has_expired(store: Any, tmp_path: Path):
    """In OpenAI's words, among the errors; a refusal of one request stands, and a later run does the rest."""
    file, out, errors = requests(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
    words = (file, "--out", out, "--errors", errors, "--concurrency", "3")
    async with router_fleet(store, "a", **QUICK) as fleet, reporting(fleet):
        site = fleet.site("a")
        site.script.extend([Behaviour(), Behaviour(status=400)])
        site.default = Behaviour(hang=True)
        code, printed, _ = await heron_batch(fleet, *words, "--within", "0.8s")
        assert code == 1
        assert printed.startswith("4 requests: 1 answered, 1 failed, 2 expired\n")
        kinds = {line["custom_id"]: (line["error"] or {}).get("code") for line in read(errors)}
        assert sorted(kinds.values(), key=str) == [None, "batch_expired", "batch_expired"]
        refused = [line for line in read(errors) if line["error"] is None]
        assert refused[0]["response"]["status_code"] == 400
        assert refused[0]["response"]["body"]["error"]["message"] == "as scripted"
        site.default = Behaviour()
        code, printed, _ = await heron_batch(fleet, *words)
    assert code == 0
    assert printed.startswith("4 requests: 2 answered, 0 failed, 0 expired, 2 answered before\n")
    assert read(errors) == refused
    assert sorted(ids(out) + ids(errors)) == [f"r-{number}" for number in range(4)]


async def test_a_bad_file_is_told_line_by_line_and_nothing_is_sent(store: Any, tmp_path: Path):
    """Nor is anything written."""
    file, out = requests(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    with file.open("a") as stream:
        stream.write('{"custom_id": "r-0"\n')
        stream.write(json.dumps(request("r-1", chat())) + "\n")
    async with router_fleet(store, "a") as fleet:
        code, printed, err = await heron_batch(fleet, file, "--out", out)
        assert fleet.site("a").inference == []
    assert (code, printed) == (2, "")
    first, second, last = err.splitlines()
    assert first.startswith(f"{file}: line 3: not JSON: ")
    assert second == f"{file}: line 4: custom_id 'r-1' is that of an earlier line"
    assert last == "heron batch: 2 of 4 lines cannot be sent; nothing was"
    assert read(out) == []


async def test_a_key_that_is_refused_ends_it(store: Any, tmp_path: Path):
    """No line gets that as its answer: with another key, or another tier, the same command goes on."""
    file, out = requests(tmp_path / "in.jsonl", 5), tmp_path / "out.jsonl"
    file_of_key = tmp_path / "key"
    file_of_key.write_text("hk-good\n")
    words = (file, "--out", out)
    await put_key(store, "hk-good")
    async with router_fleet(store, "a", auth="keys", **QUICK) as fleet, reporting(fleet):
        (wrong, flex) = await asyncio.gather(
            heron_batch(fleet, *words, key="hk-wrong"),
            heron_batch(fleet, file, "--out", tmp_path / "flex.jsonl", key="hk-good"),
        )
        assert (wrong[0], flex[0], read(out), read(tmp_path / "flex.jsonl")) == (2, 2, [], [])
        assert "(401 invalid_api_key): This API key is not known here." in wrong[2]
        assert "(403 tier_not_allowed): This API key may not ask for the service tier 'flex'." in flex[2]
        assert "hk-" not in wrong[2] + flex[2]
        given = ("--tier", "default", "--api-key-file", file_of_key)
        code, _, err = await heron_batch(fleet, *words, *given, key="hk-wrong")
    assert (code, err) == (0, "")
    assert len(read(out)) == 5


async def test_standard_input_and_output_will_do(store: Any, tmp_path: Path):
    """As a part of a pipeline; what it says of itself stays out of it."""
    file = requests(tmp_path / "in.jsonl", 3)
    async with router_fleet(store, "a", **QUICK) as fleet, reporting(fleet):
        process = await asyncio.create_subprocess_shell(
            f"cat {file} | {HERON[0]} -m cli.main batch - --out - --base-url {fleet.url}/v1 | cat",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, err = await process.communicate()
    assert sorted(json.loads(line)["custom_id"] for line in printed.splitlines()) == ["r-0", "r-1", "r-2"]
    assert err.decode().startswith("3 requests: 3 answered")
