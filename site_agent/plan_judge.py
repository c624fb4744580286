"""Which plan this site follows: its own targets out of a plan that is valid. Pure (DESIGN §4, §6).

Rules: a plan is judged as every record (`fleet.intake`: fenced by its epoch), holds for `valid_for_seconds`
from its arrival here, and says only what this site's model should run; a plan without this site says nothing.
One that lay in Redis before this agent looked may be long over: it counts only where its own clock says that
it is not. What does not fit the cap or the GPUs is the governor's to refuse.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleet.intake import MAX_CLOCK_SKEW_SECONDS, RecordJudge
from fleet.records import Plan
from fleet.signing import BELIEVES_ALL, RecordTrust
from fleet.wire import RecordError
from site_agent.situation import Target


@dataclass(slots=True, kw_only=True)
class PlanJudge:
    """Takes plans, and knows the targets that hold now."""

    site_id: str
    model: str
    max_clock_skew_seconds: float = MAX_CLOCK_SKEW_SECONDS
    trust: RecordTrust = BELIEVES_ALL
    refused: Counter[str] = field(default_factory=Counter)
    plans_taken: int = 0
    epoch: int | None = None
    """Of the last plan taken."""
    _valid_until_at: float = float("-inf")
    _targets: tuple[Target, ...] | None = None
    _records: RecordJudge = field(init=False)

    def __post_init__(self) -> None:
        self._records = RecordJudge(max_clock_skew_seconds=self.max_clock_skew_seconds)

    def take(self, raw: bytes, *, now: float, unix_now: float, is_left_over: bool = False) -> str | None:
        """Use it if it may be used; else why not, in words worth a log line. None: used, or a mere repeat."""
        try:
            plan = self.trust.read(Plan, raw, unix_now=unix_now)
        except RecordError as error:
            self.refused[error.reason] += 1
            return str(error)
        return self.use(plan, now=now, unix_now=unix_now, is_left_over=is_left_over)

    def use(self, plan: Plan, *, now: float, unix_now: float, is_left_over: bool = False) -> str | None:
        """The same of a plan that is parsed already."""
        if is_left_over:
            age_seconds = unix_now - plan.solved_at_unix_seconds
            if not -self.max_clock_skew_seconds <= age_seconds <= plan.valid_for_seconds:
                return None  # over; not refused, as its successor may have any sequence
        refusal = self._records.judge(plan, now=now, unix_now=unix_now)
        if refusal is not None:
            if not refusal.is_worth_saying:
                return None
            self.refused[refusal.reason] += 1
            return refusal.message
        self.plans_taken += 1
        self.epoch = plan.epoch
        self._valid_until_at = now + plan.valid_for_seconds
        mine = plan.targets.get(self.site_id)
        self._targets = (
            None
            if mine is None
            else tuple(
                Target(
                    tensor_parallel_degree=one.tensor_parallel_degree,
                    instances=one.instances,
                    gpu_clock_mhz=one.gpu_clock_mhz,
                )
                for one in mine
                if one.model == self.model
            )
        )
        return None

    def targets(self, now: float) -> tuple[Target, ...] | None:
        """What the plan wants of this site; None: no plan holds, or it does not say."""
        return self._targets if now <= self._valid_until_at else None
