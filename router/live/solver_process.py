"""The planner's solver in a process of its own, with low priority and a limit on its memory.

Rule: whatever the solver does — it crashes, it hangs, it eats memory — costs one plan and nothing else. The
solver itself never looks at a clock (its stops are gap and node count); who waits for it does, and kills it.
The process is started with the first problem and kept for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import struct
import sys

from router.policy.planner.plan_maker import Task
from router.policy.planner.problem import Planned

MAX_ANSWER_BYTES = 64 << 20
HEAD = struct.Struct(">Q")


class SolverFailedError(Exception):
    """No plan came; the text says whether it died, hung or refused."""


class SolverProcess:
    """One process at most; `solve` one at a time."""

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        """`command` is for tests: another program in the solver's place."""
        self._command = command or (sys.executable, "-m", "router.live.solver_child", str(os.getpid()))
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return None if self._process is None else self._process.pid

    async def solve(self, task: Task, *, timeout_seconds: float) -> Planned:
        """The plan.

        Raises:
            SolverFailedError: the process died, took longer than it may (it is killed), or refused.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._ask(task)
        except TimeoutError:
            await self.close()
            raise SolverFailedError(f"no plan within {timeout_seconds:g} s: the solver was ended") from None
        except asyncio.CancelledError:
            await self.close()
            raise
        except Exception as error:  # uvloop says RuntimeError of a pipe that is closed, pickle anything
            await self.close()
            raise SolverFailedError(f"the solver died ({error!r})") from error
        if isinstance(answer, str):
            raise SolverFailedError(answer)
        return answer

    async def _ask(self, task: Task) -> Planned | str:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
        assert process.stdin is not None
        assert process.stdout is not None
        body = pickle.dumps(task)
        process.stdin.write(HEAD.pack(len(body)) + body)
        await process.stdin.drain()
        (size,) = HEAD.unpack(await process.stdout.readexactly(HEAD.size))
        if size > MAX_ANSWER_BYTES:
            raise EOFError(f"an answer of {size} bytes")
        found = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 - our own child's word
        return found if isinstance(found, Planned | str) else "the solver's answer is no plan"

    async def close(self) -> None:
        """End it now."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
