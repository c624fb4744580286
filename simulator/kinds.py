"""A load's requests by kind: each class of size in parts by prompt and by answer. Pure.

A class is promised one SLO, made of its mean request, and has requests in it that need a half of that one's
work and twice as much. A clairvoyant sees which is which, so the bound (`simulator.bounds`) reckons with the
mean of a kind, not of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fleet.capacity import Work
from fleet.request import RequestClass
from router.policy.planner.problem import CLASSES
from simulator.inputs import class_indexes
from simulator.traces import Load
from simulator.workload import Floats, Ints

PARTS = 2
"""Of each class, by prompt and again by answer: as many requests in each. With 4 the bound is at most 0.1
points higher, and takes three times as long (docs/results.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """`parts`² of each class, in the order of CLASSES; of those that no request is of, the class's mean."""

    parts: int
    prompt_edges: Floats
    """Classes × (parts − 1): up to and with which prompt each part but the last goes."""
    output_edges: Floats
    works: tuple[Work, ...]
    shares: tuple[float, ...]
    """Of all requests."""

    @classmethod
    def of(cls, load: Load, class_works: Mapping[RequestClass, Work], *, parts: int = PARTS) -> Kinds:
        """The kinds of a load; `class_works`: the mean of every class."""
        prompt, output, weight = load.rows()
        classes = class_indexes(prompt, output)
        edges = np.zeros((2, len(CLASSES), parts - 1))
        levels = np.arange(1, parts) / parts
        for index in range(len(CLASSES)):
            inside = classes == index
            if inside.any():
                for axis, values in enumerate((prompt, output)):
                    edges[axis, index] = np.quantile(
                        values[inside], levels, weights=weight[inside], method="inverted_cdf"
                    )
        kinds = _indexes(edges[0], edges[1], prompt, output)
        count = len(CLASSES) * parts * parts
        shares = np.bincount(kinds, weights=weight, minlength=count)
        prompts = np.bincount(kinds, weights=weight * prompt, minlength=count)
        outputs = np.bincount(kinds, weights=weight * output, minlength=count)
        works = tuple(
            Work(prompt_tokens=float(prompts[kind] / share), output_tokens=float(outputs[kind] / share))
            if share > 0
            else class_works[CLASSES[kind // (parts * parts)]]
            for kind, share in enumerate(shares.tolist())
        )
        return cls(
            parts=parts,
            prompt_edges=edges[0],
            output_edges=edges[1],
            works=works,
            shares=tuple(shares.tolist()),
        )

    def class_of(self, kind: int) -> RequestClass:
        """Whose SLO it has."""
        return CLASSES[kind // (self.parts * self.parts)]

    def indexes(self, prompt_tokens: Ints, output_tokens: Ints) -> Ints:
        """The kind of each of many requests."""
        return _indexes(self.prompt_edges, self.output_edges, prompt_tokens, output_tokens)


def _indexes(prompt_edges: Floats, output_edges: Floats, prompt: Ints, output: Ints) -> Ints:
    classes = class_indexes(prompt, output)
    parts = prompt_edges.shape[1] + 1
    by_prompt = (prompt[:, None] > prompt_edges[classes]).sum(axis=1)
    by_output = (output[:, None] > output_edges[classes]).sum(axis=1)
    found: Ints = (classes * parts + by_prompt) * parts + by_output
    return found
