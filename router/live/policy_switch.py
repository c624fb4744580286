"""Which policy routes now, and another one at an operator's word: no restart, no request disturbed.

What is asked for is checked whole before anything changes; the old policy's state is dropped with it. It
lasts until the process ends: what a router starts with is its configuration's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from router.config import RouterConfig
from router.live.events import EventRing
from router.policy.parameters import PolicyParameterError
from router.policy.policies import POLICIES, check_parameters

BODY_KEYS = ("policy", "parameters")


class PolicySwitch:
    """One per router, whatever its number of workers."""

    def __init__(self, config: RouterConfig, events: EventRing) -> None:
        self._configured = config.policy_parameters
        self._events = events
        self.name = config.policy
        self.parameters: Mapping[str, Any] = self._configured.get(config.policy, {})
        """As given; what is not is at its default."""
        self.switches = 0
        self.on_switch: Callable[[str, Mapping[str, Any]], None] = lambda _name, _parameters: None

    def page(self) -> dict[str, Any]:
        """For operators: the policy, all its parameters, and which others there are."""
        return {
            "policy": self.name,
            "parameters": check_parameters(self.name, self.parameters).model_dump(mode="json"),
            "policies": sorted(POLICIES),
        }

    def switch(self, body: bytes) -> None:
        """`{"policy": NAME, "parameters": {…}}`; without parameters those of the configuration count.

        Raises:
            PolicyParameterError: what is wrong with it; nothing has changed.
        """
        name, parameters = self._read(body)
        check_parameters(name, parameters)
        before = self.name
        self.name, self.parameters = name, parameters
        self.switches += 1
        self.on_switch(name, parameters)
        given = ", ".join(f"{key} = {value}" for key, value in sorted(parameters.items()))
        self._events.add("policy", f"{name} routes, was {before}{f' ({given})' if given else ''}")

    def _read(self, body: bytes) -> tuple[str, Mapping[str, Any]]:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise PolicyParameterError(f"not JSON: {error}") from None
        if not isinstance(value, dict) or not isinstance(value.get("policy"), str):
            raise PolicyParameterError('expected an object such as {"policy": "heron", "parameters": {}}')
        unknown = sorted(set(value) - set(BODY_KEYS))
        if unknown:
            raise PolicyParameterError(f"no such key: {unknown[0]}; allowed are {', '.join(BODY_KEYS)}")
        name = value["policy"]
        parameters = value.get("parameters", self._configured.get(name, {}))
        if not isinstance(parameters, dict):
            raise PolicyParameterError("parameters must be an object")
        return name, parameters
