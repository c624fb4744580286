"""HiGHS behind one function: a linear or mixed-integer problem in, numbers out. Nothing else calls it.

Rule: one thread, one seed, and it stops on gap or node count, never on the wall clock: the same problem
gives the same answer on every machine. Who cannot wait for it kills the process that it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import highspy
import numpy as np
from highspy import _core
from numpy.typing import NDArray

SolveStatus = Literal["optimal", "gap", "infeasible", "failed"]
INFINITY = float(highspy.kHighsInf)
Floats = NDArray[np.float64]
MIN_GAP = 1e-6
"""HiGHS's own default."""


@dataclass(slots=True)
class LinearProblem:
    """Minimise costs · x, rows between bounds. Built column by column and row by row."""

    costs: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    is_integer: list[bool] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    _starts: list[int] = field(default_factory=lambda: [0])
    _columns: list[int] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)

    def column(
        self, *, cost: float = 0.0, lower: float = 0.0, upper: float = INFINITY, is_integer: bool = False
    ) -> int:
        """Add a variable; returns its index."""
        self.costs.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.is_integer.append(is_integer)
        return len(self.costs) - 1

    def row(
        self, terms: list[tuple[int, float]], *, lower: float = -INFINITY, upper: float = INFINITY
    ) -> int:
        """Add a constraint; returns its index."""
        for column, value in terms:
            self._columns.append(column)
            self._values.append(value)
        self._starts.append(len(self._columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        return len(self.row_lower) - 1

    def to_highs(self, *, is_relaxed: bool) -> highspy.HighsLp:
        """The problem as HiGHS takes it; relaxed: without the integrality."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.costs), len(self.row_lower)
        lp.col_cost_ = np.array(self.costs)
        lp.col_lower_ = np.array(self.lower)
        lp.col_upper_ = np.array(self.upper)
        lp.row_lower_ = np.array(self.row_lower)
        lp.row_upper_ = np.array(self.row_upper)
        matrix = lp.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        matrix.start_ = np.array(self._starts, dtype=np.int32)
        matrix.index_ = np.array(self._columns, dtype=np.int32)
        matrix.value_ = np.array(self._values)
        if not is_relaxed and any(self.is_integer):
            kinds = {True: highspy.HighsVarType.kInteger, False: highspy.HighsVarType.kContinuous}
            lp.integrality_ = [kinds[flag] for flag in self.is_integer]
        return lp


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What was found."""

    status: SolveStatus
    """`gap`: feasible, but stopped by the node limit before the gap was reached."""
    values: Floats
    """Empty where nothing feasible was found."""
    objective: float
    bound: float
    """No solution is cheaper."""
    gap_ratio: float
    nodes: int
    row_duals: Floats
    """Of an LP; empty for a mixed-integer problem."""
    explanation: str = ""


def solve(
    problem: LinearProblem, *, gap: float = 0.0, max_nodes: int = 1 << 30, is_relaxed: bool = False
) -> Solution:
    """Solve on one thread. Never raises for what the problem is: the status says it.

    `gap`: how far from the cheapest solution it may end, in the objective's own unit.
    """
    highs = _core._Highs()  # highspy.Highs prints a banner on stdout before any option can be set
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("random_seed", 1),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", max(gap, MIN_GAP)),
        ("mip_max_nodes", max_nodes),
    ):
        highs.setOptionValue(name, value)
    is_integer = not is_relaxed and any(problem.is_integer)
    if highs.passModel(problem.to_highs(is_relaxed=is_relaxed)) == highspy.HighsStatus.kError:
        return _nothing("failed", "HiGHS refuses the problem")
    highs.run()
    status, info = highs.getModelStatus(), highs.getInfo()
    found = highs.getSolution()
    kinds = highspy.HighsModelStatus
    if status == kinds.kModelEmpty:
        return Solution(
            status="optimal",
            values=np.zeros(len(problem.costs)),
            objective=0.0,
            bound=0.0,
            gap_ratio=0.0,
            nodes=0,
            row_duals=np.zeros(0),
        )
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return _nothing("infeasible", "no plan keeps every constraint")
    is_feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if not is_feasible or not found.value_valid:
        return _nothing("failed", f"HiGHS: {highs.modelStatusToString(status)}")
    objective = float(info.objective_function_value)
    bound = float(info.mip_dual_bound) if is_integer else objective
    missing = max(0.0, objective - bound)
    is_done = status == kinds.kOptimal
    return Solution(
        status="optimal" if is_done else "gap",
        values=np.array(found.col_value),
        objective=objective,
        bound=bound,
        gap_ratio=missing / abs(objective) if objective else missing,
        nodes=int(info.mip_node_count) if is_integer else 0,
        row_duals=np.array(found.row_dual) if found.dual_valid and not is_integer else np.zeros(0),
        explanation="" if is_done else f"HiGHS: {highs.modelStatusToString(status)}",
    )


def _nothing(status: SolveStatus, explanation: str) -> Solution:
    empty = np.zeros(0)
    return Solution(
        status=status,
        values=empty,
        objective=INFINITY,
        bound=-INFINITY,
        gap_ratio=INFINITY,
        nodes=0,
        row_duals=empty,
        explanation=explanation,
    )
