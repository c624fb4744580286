"""`python -m router.live.solver_child PARENT_PID`: the process that solves. It ends with its parent.

It reads problems from its standard input and writes plans to what was its standard output; what libraries
print goes to standard error instead.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import sys
from typing import BinaryIO

from fleet.parent import die_with_parent

NICENESS = 10
"""Forwarding goes first."""
MAX_MEMORY_BYTES = 4 << 30
"""Address space. A plan of 500 sites takes about 0.2 GiB; the rest is what numpy's threads reserve."""


def main(arguments: list[str]) -> int:
    """Solve until the parent closes the pipe."""
    parent = int(arguments[0])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent's affair: it ends us by the pipe, or by SIGKILL
    if not die_with_parent(parent):
        return 1
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _serve(sys.stdin.buffer, answers)
    return 0


def _serve(problems: BinaryIO, answers: BinaryIO) -> None:
    from router.live.solver_process import HEAD
    from router.policy.planner.fast import solve_fast
    from router.policy.planner.plan_maker import Task
    from router.policy.planner.problem import Planned, ProblemError
    from router.policy.planner.slow import solve_slow

    while len(head := problems.read(HEAD.size)) == HEAD.size:
        task = pickle.loads(problems.read(HEAD.unpack(head)[0]))  # noqa: S301 - our own parent's word
        assert isinstance(task, Task)
        found: Planned | str
        try:
            found = (
                solve_slow(task.problem) if task.kind == "slow" else solve_fast(task.problem, task.instances)
            )
        except ProblemError as error:
            found = f"the problem cannot be meant: {error}"
        except MemoryError:
            found = f"the solver needs more than {MAX_MEMORY_BYTES >> 20} MiB"
        body = pickle.dumps(found)
        answers.write(HEAD.pack(len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
