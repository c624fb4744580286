"""Mixes of the published traces, so that a rate can be asked for before any load was seen. Pure.

Azure LLM inference traces of 2023 (CC-BY 4.0, cite Splitwise, ISCA 2024), one hour each, classified by the
default cut-offs: requests, mean prompt tokens, mean output tokens. A test works them out of the files.
"""

from __future__ import annotations

from fleet.capacity import Work
from fleet.mix import Mix
from fleet.request import RequestClass

_CONVERSATION: tuple[tuple[RequestClass, int, int, int], ...] = (
    ("SS", 930, 293, 39),
    ("SM", 6657, 325, 118),
    ("SL", 56, 243, 398),
    ("MS", 517, 1298, 49),
    ("MM", 2050, 1284, 124),
    ("ML", 6453, 1078, 426),
    ("LS", 1284, 3835, 45),
    ("LM", 1397, 3324, 106),
    ("LL", 22, 3767, 418),
)
_CODING: tuple[tuple[RequestClass, int, int, int], ...] = (
    ("SS", 1888, 197, 17),
    ("SM", 146, 234, 112),
    ("SL", 20, 237, 507),
    ("MS", 3171, 1222, 17),
    ("MM", 257, 1263, 113),
    ("ML", 30, 1318, 431),
    ("LS", 3053, 4047, 16),
    ("LM", 221, 4193, 116),
    ("LL", 33, 3958, 518),
)


def _mix(rows: tuple[tuple[RequestClass, int, int, int], ...]) -> Mix:
    return Mix.of(
        {name: float(requests) for name, requests, _, _ in rows},
        {name: Work(prompt_tokens=prompt, output_tokens=output) for name, _, prompt, output in rows},
    )


AZURE_2023_CONVERSATION = _mix(_CONVERSATION)
AZURE_2023_CODING = _mix(_CODING)
