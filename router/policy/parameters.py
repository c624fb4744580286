"""Parameters of policies: one schema for the configuration file, the operator's surface and the simulator.

A parameter table is keyed by policy: `[router.policy_parameters.power_weighted]` in the fleet's file, or
`[power_weighted]` in a file of its own; unknown keys are errors that name the allowed ones.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

MAX_VALUE_CHARACTERS = 100


class PolicyParameterError(ValueError):
    """What is wrong with a policy's name or parameters, one line a fault."""


class PolicyParameters(BaseModel):
    """Base of every policy's parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NoParameters(PolicyParameters):
    """A policy that has none."""


def describe(name: str, model: type[PolicyParameters], error: ValidationError) -> str:
    """One line a fault: policy, key, value, what is allowed."""
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            allowed = f"no such parameter; allowed are {', '.join(model.model_fields) or 'none at all'}"
        else:
            allowed = str(fault["msg"])
        lines.append(f"{name}.{key} = {repr(fault['input'])[:MAX_VALUE_CHARACTERS]}: {allowed}")
    return "\n".join(lines)
