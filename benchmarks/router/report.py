"""RESULTS.md: one section per program here, each rewritten by its own command."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.router.programs import HERE
from benchmarks.router.table import Row, with_section

HEADING = """# The router beside its peers

Written by `python -m benchmarks.router` and the commands named in each section: change those, not this page.
"""

METHOD = """Ratios are to vllm-router. Medians over the rounds; all proxies take their turn within each round,
each started anew. The proxy has one core, the upstream and the load generator (`native/`, C) the other.

- Requests: 64 keep-alive connections in closed loop, a JSON body of 214 bytes, an answer of 611.
- CPU: user and system of the proxy's whole process tree, from the kernel's clock of each process.
- Added latency: at one connection, through the proxy less straight to the upstream, one after the other.
- Chunks: paced streams, one vLLM chat chunk each 10 ms and stream, phases spread evenly; 200 streams
  (litellm 5: it cannot carry more). All are open for the whole window.
- Late: how much later than its pace a chunk came, p99 of all. Late chunks come together and cost less, so
  CPU per chunk compares only proxies of like lateness.
- Memory: proportional set size of the tree after the streams.
- Waited: part of the windows (requests, streams) in which the proxy was ready and something else ran on its
  core. Where that is not near zero, requests/s, latency and lateness are the machine's and not the proxy's.
- Every answer is checked (status, every token, `[DONE]`); what fails the check does not count.
- Each proxy balances over five upstream addresses.
- Not here: production-stack's router, of which no package was found.
- Heron runs with everything on: `heron router --config`, five sites whose reports come through its Redis
  each second, choice by room, ledger, metrics, retry and resume. Its streams carry token ids, which it asks
  for, records and cuts out; nobody else asks. Redis and the reports run on the load's core, uncounted.
- heron-compiled is the same sources after `scripts/compile`; not measured where that was not run."""


def section(document: Mapping[str, Any], rows: Sequence[Row], text: str) -> str:
    """The comparison's section."""
    lines = [
        "## Requests, latency, streams",
        "",
        f"`{document['command']}`, {document['date']}, on {document['machine']};",
        f"rounds: {document['rounds']}, windows of {document['seconds']:g} s.",
        f"Heron's router was started with auth = {document['auth']}.",
        "",
        text,
        "",
        *(f"Not measured: {name}: {why.splitlines()[0]}" for name, why in document["not_measured"].items()),
        METHOD,
        "",
        "Versions: " + "; ".join(f"{one.name}: {one.version}" for one in rows) + ".",
    ]
    return "\n".join(lines)


def write_section(name: str, text: str) -> None:
    """Put one section into RESULTS.md."""
    path = HERE / "RESULTS.md"
    before = path.read_text() if path.exists() else HEADING
    path.write_text(with_section(before, name, text))


def write_json(values: Mapping[str, Any]) -> None:
    """Put these keys into results.json, and leave the others."""
    path = HERE / "results.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **values}, indent=1, ensure_ascii=False) + "\n")


def command_line() -> str:
    """As it was typed, less the interpreter's place."""
    spec = sys.modules["__main__"].__spec__
    name = "" if spec is None else spec.name.removesuffix(".__main__")
    return " ".join(["python -m", name, *sys.argv[1:]])


def machine() -> str:
    """CPU, cores, kernel, Python."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line), "?")
    return (
        f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"
    )


def today() -> str:
    """The date in UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
