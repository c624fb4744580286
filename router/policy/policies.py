"""The routing policies by name, and how one is made.

One registry for the live router and the simulator: `make_policy(name, parameters)`. Parameters are checked
here, at the edge; an error names the key and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from router.policy.baselines import LeastLoaded, PowerWeighted, RoundRobin, StaticWeighted
from router.policy.heron import Heron
from router.policy.interface import Policy
from router.policy.parameters import PolicyParameterError, PolicyParameters, describe
from router.policy.planned import Planned
from router.policy.reactive import Reactive
from router.policy.selective_push import SelectivePush

Kind = type[Any]
"""A class that is made of its parameters, and has their class as `Parameters`."""

KINDS: tuple[Kind, ...] = (
    RoundRobin,
    StaticWeighted,
    PowerWeighted,
    LeastLoaded,
    SelectivePush,
    Reactive,
    Planned,
    Heron,
)
POLICIES: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in KINDS})
DEFAULT_POLICY = "heron"


def check_parameters(name: str, parameters: Mapping[str, Any] | None = None) -> PolicyParameters:
    """One policy's parameters, checked, with the defaults of those not given.

    Raises:
        PolicyParameterError: no such policy, no such key, or a value that is not allowed.
    """
    kind = POLICIES.get(name)
    if kind is None:
        raise PolicyParameterError(f"no policy {name!r}; allowed are {', '.join(sorted(POLICIES))}")
    model: type[PolicyParameters] = kind.Parameters
    try:
        return model.model_validate(dict(parameters or {}))
    except ValidationError as error:
        raise PolicyParameterError(describe(name, model, error)) from None


def check_tables(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parameters by policy, as `[router.policy_parameters.NAME]` or a file's `[NAME]` have them; checked.

    Raises:
        PolicyParameterError: as `check_parameters`, or a value that is no table.
    """
    for name, parameters in tables.items():
        if not isinstance(parameters, Mapping):
            raise PolicyParameterError(f"{name} = {parameters!r}: must be a table of parameters, [NAME]")
        check_parameters(name, parameters)
    return {name: dict(parameters) for name, parameters in tables.items()}


def make_policy(name: str, parameters: Mapping[str, Any] | None = None) -> Policy:
    """A new policy, with state of its own.

    Raises:
        PolicyParameterError: as `check_parameters`.
    """
    checked = check_parameters(name, parameters)
    policy: Policy = POLICIES[name](checked)
    return policy
