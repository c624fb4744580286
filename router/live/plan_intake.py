"""Plans as they arrive: parsed, checked, fenced by epoch, and turned into what decisions read.

Rule: a plan that breaks an invariant is refused as a whole, whoever wrote it, and the last good one stays in
use until it is over. A plan may name a site that is not known here yet: what was refused is looked at again
when it is read again, and told of once.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet.intake import RecordJudge
from fleet.records import Plan, SiteInfo
from fleet.signing import BELIEVES_ALL, RecordTrust
from fleet.wire import RecordError
from router.policy.plan_view import PlanView, plan_view
from router.policy.planner.check import plan_faults


class PlanRefusedError(Exception):
    """Why a plan is not used. `reason` is short, from a bounded set."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PlanIntake:
    """Mutable, one per process."""

    def __init__(self, trust: RecordTrust = BELIEVES_ALL) -> None:
        self._trust = trust
        self._judge = RecordJudge()
        self.raw = b""
        """Of the plan in use."""
        self.plan: Plan | None = None
        self.arrived_at = 0.0
        """Monotonic, when the plan in use came."""

    @property
    def highest_epoch(self) -> int | None:
        """Of what was taken here; None: nothing was."""
        return None if self.plan is None else self.plan.epoch

    def take(
        self, raw: bytes, infos: Mapping[str, SiteInfo], *, now: float, unix_now: float
    ) -> PlanView | None:
        """Use a plan; None where it is the one in use, or a mere repeat of an older one.

        Raises:
            PlanRefusedError: it may not be used.
        """
        if raw == self.raw and self.plan is not None:
            return None
        try:
            plan = self._trust.read(Plan, raw, unix_now=unix_now)
        except RecordError as error:
            raise PlanRefusedError(error.reason, str(error)) from None
        return self.use(plan, raw, infos, now=now, unix_now=unix_now)

    def use(
        self, plan: Plan, raw: bytes, infos: Mapping[str, SiteInfo], *, now: float, unix_now: float
    ) -> PlanView | None:
        """The same of a plan that is parsed already: `raw` is what it was parsed from.

        Raises:
            PlanRefusedError: it may not be used.
        """
        if self.plan is not None and plan.epoch < self.plan.epoch:
            raise PlanRefusedError("stale_epoch", f"epoch {plan.epoch} after {self.plan.epoch}")
        faults = plan_faults(plan, infos)
        if faults:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise PlanRefusedError("broken_plan", f"{faults[0]}{more}")
        refusal = self._judge.judge(plan, now=now, unix_now=unix_now)
        if refusal is not None:
            if refusal.is_worth_saying:
                raise PlanRefusedError(refusal.reason, refusal.message)
            return None
        self.plan, self.raw, self.arrived_at = plan, raw, now
        return plan_view(plan, arrived_at=now)
