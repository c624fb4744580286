"""What this build of vLLM understands: the flags of its own `--help`, kept, since asking takes it seconds.

An argument that the build does not have is said before an engine is started, with the nearest it does have. A
build whose help cannot be read is not checked: vLLM itself refuses what it does not know, only later.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import hashlib
import json
import logging
import os
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

TESTED_VERSIONS = ((0, 30), (0, 33))
"""From the first to the last minor version whose command line this was written for (run: 0.32)."""
HELP_SECONDS = 120.0
"""9 s of CPU with 0.32: importing torch."""
MAX_HELP_BYTES = 4 << 20
_FLAG = re.compile(r"(?:^|[\s,\[])(--?[A-Za-z][\w-]*)", re.MULTILINE)
_VERSION = re.compile(r"vllm-(\d+)\.(\d+)[^/]*\.dist-info$")


def parse_flags(text: str) -> frozenset[str]:
    """Every flag that a help text names."""
    return frozenset(_FLAG.findall(text))


def unknown_arguments(arguments: Iterable[str], flags: frozenset[str]) -> list[str]:
    """What the build does not have, with what is nearest. `_` stands for `-`; flags may be cut short."""
    problems = []
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name = argument.partition("=")[0].partition(".")[0].replace("_", "-")
        if any(flag.startswith(name) for flag in flags):
            continue
        near = difflib.get_close_matches(name, sorted(flags), n=1)
        problems.append(name + (f" (did you mean {near[0]}?)" if near else ""))
    return problems


def find_version(command: str) -> tuple[int, int] | None:
    """(major, minor) of the vLLM whose `vllm` command this is, by what pip noted beside it; None: unknown."""
    libraries = Path(command).parent.parent / "lib"
    for path in sorted(libraries.glob("python*/site-packages/vllm-*.dist-info")):
        if found := _VERSION.search(str(path)):
            return int(found[1]), int(found[2])
    return None


async def read_flags(
    command: tuple[str, ...], resolved: str, environment: Mapping[str, str], cache_dir: Path
) -> frozenset[str] | None:
    """The flags of `command`, from the cache or by asking; None: it does not say.

    `resolved` is where the command is: the cache holds for that file as it is now.
    """
    try:
        status = os.stat(resolved)  # noqa: PTH116 -- once, of a local file
    except OSError:
        return None
    key = json.dumps([command, resolved, status.st_mtime_ns, status.st_size, find_version(resolved)])
    path = cache_dir / f"vllm-help-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return frozenset(map(str, json.loads(path.read_text())["flags"]))
    flags = parse_flags(await _ask(command, environment))
    if "--served-model-name" not in flags:  # whatever this was, it was not the help of `vllm serve`
        logger.warning("vLLM did not show its options; its arguments are not checked")
        return None
    with contextlib.suppress(OSError):  # a cache only
        _keep(path, {"command": command, "flags": sorted(flags)})
    return flags


def _keep(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(value))
    partial.replace(path)


async def _ask(command: tuple[str, ...], environment: Mapping[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        *("serve", "--help=all"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(HELP_SECONDS):
            output = b""
            while len(output) < MAX_HELP_BYTES and (piece := await process.stdout.read(1 << 16)):
                output += piece
            return output.decode(errors="replace")
    except TimeoutError:
        return ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
