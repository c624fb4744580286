"""The end of a demo: its summary as plain values, and whether the run can be believed. Pure.

A run is sound when nothing was lost or corrupted, the router's ledger and the load generator counted the
same, and no service ended by itself. What the run *found* (requests shed or broken, a cap exceeded) is a
result, shown whatever it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.judge import PowerVerdict

COMPARED = ("completed", "shed", "client_cancelled", "broken", "failed")
"""Outcomes that the ledger and the load generator both count; to the latter a client's mistake has failed."""


def disagreements(counts: Mapping[str, int], ledger: Mapping[str, int]) -> list[str]:
    """Where the router's ledger contradicts the load generator's counts; empty when they agree.

    Other clients may have used the router while it ran (the demo invites them to), so the ledger may have
    more of an outcome, never less, and no more in all than those other requests. An answer whose last bytes
    were under way when the client left (Ctrl-C) is cancelled for the client and completed for the router.
    """
    ledger = {**ledger, "failed": ledger["failed"] + ledger["client_error"]}
    crossed = min(
        max(0, counts["client_cancelled"] - ledger["client_cancelled"]),
        max(0, ledger["completed"] - counts["completed"]),
    )
    faults = [
        f"{name}: the load generator counted {counts[name]}, the router {ledger[name]}"
        for name in ("requests", *COMPARED)
        if ledger[name] + (crossed if name == "client_cancelled" else 0) < counts[name]
    ]
    if ledger["in_flight"]:
        faults.append(f"the router still has {ledger['in_flight']} requests in flight")
    if ledger["lost"]:
        faults.append(f"the router lost count of {ledger['lost']} requests")
    surplus = sum(ledger[name] - counts[name] for name in COMPARED)
    if not faults and surplus != others_requests(counts, ledger):
        faults.append(
            f"the router's outcomes exceed the load generator's by {surplus}, "
            f"its requests by {others_requests(counts, ledger)}"
        )
    return faults


def others_requests(counts: Mapping[str, int], ledger: Mapping[str, int]) -> int:
    """Requests of other clients than the load generator."""
    return ledger["requests"] - counts["requests"]


def power_values(verdicts: Mapping[str, PowerVerdict | None]) -> dict[str, dict[str, Any]]:
    """Per site what the judge found; None where there is no power log, which is unknown and not 0."""
    names = PowerVerdict.__dataclass_fields__
    return {
        site_id: {name: None if verdict is None else getattr(verdict, name) for name in names}
        for site_id, verdict in verdicts.items()
    }


def total(values: Mapping[str, Mapping[str, Any]], name: str) -> float | None:
    """The sum over the sites; None when any of them is unknown, or there is none."""
    parts = [site[name] for site in values.values()]
    return None if not parts or None in parts else float(sum(parts))


def problems(values: Mapping[str, Any], *, faults: Sequence[str]) -> list[str]:
    """Why a summary cannot be believed, one sentence each; `faults` are those found elsewhere."""
    generator = values["load_generator"]
    found = list(faults)
    if values["lost"]:
        reasons = "; ".join(
            f"{count} × {reason}"
            for reason, count in generator["reasons"].items()
            if reason.startswith("lost")
        )
        found.append(f"{values['lost']} requests were lost: neither an answer nor a stated error ({reasons})")
    unreached = sum(
        count for reason, count in generator["reasons"].items() if reason.startswith("failed: connection")
    )
    if unreached:
        found.append(f"{unreached} requests found no connection to the router")
    if generator["corrupted"]:
        examples = "; ".join(generator["corruptions"][:3])
        found.append(f"{generator['corrupted']} answers had a lost, repeated or foreign token ({examples})")
    if generator["unsent"]:
        found.append(f"{generator['unsent']} requests were not sent: too many were in flight")
    if not values["completed"]:
        found.append("not one request completed")
    return found
