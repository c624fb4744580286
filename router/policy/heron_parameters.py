"""What of `heron` can be set. Pure. Apart from it, as `scripts/compile` leaves pydantic's classes alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from router.policy.parameters import PolicyParameters

Ratio = Annotated[float, Field(ge=0, le=1)]
Exponent = Annotated[float, Field(ge=0, le=16)]


class HeronParameters(PolicyParameters):
    """`[router.policy_parameters.heron]`. 0 takes a part out (for an ablation)."""

    room_exponent: Exponent = 1.0
    """How much room counts; 1: in proportion."""
    time_exponent: Exponent = 5.0
    """How much the expected time counts; high, as a site that is 10 % slower gets 38 % less at 5."""
    first_token_weight: Annotated[float, Field(ge=0, le=100)] = 15.0
    """A second before the first token counts as so many more: its SLO is the tighter one."""
    plan_exponent: Exponent = 0.5
    """How much the plan's fraction counts; 0: no plan is read."""
    capacity: bool = True
    """Whether room counts only as far as engines sustain it at their clocks (`fleet.capacity`)."""
    forecast: bool = True
    """Whether power to come is looked at."""
    risk_exponent: Exponent = 2.0
    """Room × the chance that power lasts, to this power; beside what a break costs in time."""
    break_seconds: Annotated[float, Field(ge=0, le=600)] = 2.0
    """Lost in a break before another site reads the prompt again."""
    margin_ratio: Ratio = 0.05
    """The site agents' `margin_ratio`: of a grant, what they leave unused."""
    burst_seconds: Annotated[float, Field(ge=0, le=60)] = 0.2
    """What a site may have before it, in seconds of what it sustains within the SLO, for a request of mean
    cost; 0: no triage. Only classes with an SLO (`[router.slo]`) are sorted out (`router.policy.triage`)."""
    cheapness_exponent: Exponent = 1.0
    """How much more of that the cheap may use, and how much less the dear."""
    utilisation: Annotated[float, Field(gt=0, le=2)] = 0.9
    """Of what a site sustains, how much is given away."""
    packing: Ratio = 0.8
    """Of a farm's weight, what goes to its fullest site when it has no power at all."""
