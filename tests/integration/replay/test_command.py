"""`heron replay` as its own process against a server on a real socket."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from support.openai_stub import serving
from support.wait import until

TRACE = b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n" + b"".join(
    b"2023-11-16 18:17:%02d.5000000,%d,%d\r\n" % (second, 10 * second + 1, second % 7 + 1)
    for second in range(30)
)


async def start(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "replay", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def heron_replay(*words: str) -> tuple[int, str, str]:
    process = await start(*words)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_tiny_trace(tmp_path: Path) -> None:
    """Counts and token sums are exactly the trace's; the broken row is reported."""
    trace, summary = tmp_path / "tiny trace.csv", tmp_path / "out.json"
    trace.write_bytes(TRACE + b"broken row\r\n")
    async with serving(lambda _: "complete") as stub:
        code, out, err = await heron_replay(
            *("--trace", str(trace), "--base-url", stub.url, "--model", "m", "--speed", "100"),
            *("--verify", "--json", str(summary), "--profile", "llama-3.1-70b/h100/tp4"),
        )
    assert (code, stub.behaviours["complete"]) == (0, 30)
    values = json.loads(summary.read_bytes())
    assert (values["requests"], values["completed"], values["lost"]) == (30, 30, 0)
    generator = values["load_generator"]
    assert generator["prompt_tokens"] == sum(10 * second + 1 for second in range(30))
    assert generator["output_tokens"] == sum(second % 7 + 1 for second in range(30))
    assert (generator["corrupted"], generator["schedule"]["scheduled"]) == (0, 30)
    assert values["slo_attainment_ratio"] is not None
    assert values["inputs"]["trace"] == "tiny trace.csv"
    assert values["sites"]["north"]["completed"] == 30
    assert "line 32: 1 columns instead of 3" in err
    assert "completed" in out


async def test_a_synthetic_load_says_so(tmp_path: Path) -> None:
    """In the terminal and in the JSON."""
    summary = tmp_path / "out.json"
    async with serving(lambda _: "complete") as stub:
        code, out, err = await heron_replay(
            *(
                "--url",
                stub.url,
                "--model",
                "m",
                "--seconds",
                "1",
                "--rate",
                "40",
                "--mean-output-tokens",
                "5",
            ),
            *("--json", str(summary)),
        )
    values = json.loads(summary.read_bytes())
    assert code == 0
    assert values["requests"] > 5
    assert values["inputs"]["trace"].startswith("synthetic trace")
    assert "synthetic trace" in out
    assert "synthetic trace" in err


async def test_loss_is_a_bad_run() -> None:
    """Exit code 1, as is corruption."""
    load = ("--model", "m", "--seconds", "0.3", "--rate", "30", "--arrivals", "poisson", "--quiet")
    async with serving(lambda _: "cut") as stub:
        lost, _, _ = await heron_replay("--url", stub.url, *load)
    async with serving(lambda _: "token_lost") as stub:
        corrupted, out, err = await heron_replay("--url", stub.url, "--verify", *load)
    assert (lost, corrupted) == (1, 1)
    assert (out, err) == ("", "")


async def test_why_requests_failed_is_told_below_the_table() -> None:
    """The reasons are not in the JSON alone."""
    load = ("--model", "m", "--seconds", "0.3", "--rate", "30", "--arrivals", "poisson")
    async with serving(lambda _: "status_400") as stub:
        code, out, _ = await heron_replay("--url", stub.url, *load)
    assert code == 1
    assert out.splitlines()[-1] == f"{stub.behaviours['status_400']} × failed: HTTP 400 c400"


async def test_an_endpoint_without_a_list_of_models() -> None:
    """Without --model it says what it asked and what to do."""
    async with serving(lambda _: "status_400") as stub:
        code, _, err = await heron_replay("--url", stub.url, "--seconds", "1")
    assert code == 2
    assert "/v1/models gave no list of models" in err
    assert "--model" in err


async def test_ctrl_c_ends_with_a_summary(tmp_path: Path) -> None:
    """What was in flight counts as cancelled; exit code 130."""
    summary = tmp_path / "out.json"
    async with serving(lambda _: "hang") as stub:
        process = await start(
            *("--url", stub.url, "--model", "m", "--seconds", "600", "--rate", "50", "--json", str(summary))
        )
        await until(lambda: stub.behaviours["hang"] >= 3)
        process.send_signal(signal.SIGINT)
        await process.communicate()
    values = json.loads(summary.read_bytes())
    assert process.returncode == 130
    assert values["requests"] == values["client_cancelled"] >= 3
