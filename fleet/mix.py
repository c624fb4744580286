"""What load is made of: shares of the nine request classes, with each class's mean size. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from fleet.capacity import Work
from fleet.request import ClassCutoffs, RequestClass

REQUEST_CLASSES: tuple[RequestClass, ...] = get_args(RequestClass)
_SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """One class of a mix."""

    request_class: RequestClass
    share: float
    """Of the requests."""
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Classes that occur, in the order of `REQUEST_CLASSES`; their shares sum to 1."""

    classes: tuple[ClassShare, ...]

    def __post_init__(self) -> None:
        """Refuse what is no mix.

        Raises:
            ValueError: no class, one twice or out of order, a share that is not positive, a sum other than 1.
        """
        order = [REQUEST_CLASSES.index(one.request_class) for one in self.classes]
        if not order or order != sorted(set(order)):
            raise ValueError("a mix names at least one class, each once, in the order SS, SM, … LL")
        for one in self.classes:
            if not 0 < one.share <= 1 + _SUM_TOLERANCE:
                raise ValueError(f"share of {one.request_class} is {one.share}; it must be above 0, up to 1")
        total = math.fsum(one.share for one in self.classes)
        if abs(total - 1) > _SUM_TOLERANCE:
            raise ValueError(f"shares sum to {total:.6f}; they must sum to 1")

    @classmethod
    def of(cls, requests_per_second: Mapping[RequestClass, float], works: Mapping[RequestClass, Work]) -> Mix:
        """From rates (or counts) by class; classes at 0 are left out.

        Raises:
            ValueError: nothing but zeros, a negative rate, a class without its size.
        """
        if any(not 0 <= rate < math.inf for rate in requests_per_second.values()):
            raise ValueError(f"rates must be 0 or more: {dict(requests_per_second)}")
        total = math.fsum(requests_per_second.values())
        present = [name for name in REQUEST_CLASSES if requests_per_second.get(name, 0.0) > 0]
        if not present:
            raise ValueError("no request of any class: there is no mix of nothing")
        missing = [name for name in present if name not in works]
        if missing:
            raise ValueError(f"no mean size of class {', '.join(missing)}")
        return cls(
            classes=tuple(
                ClassShare(request_class=name, share=requests_per_second[name] / total, work=works[name])
                for name in present
            )
        )

    @classmethod
    def from_sizes(cls, sizes: Iterable[tuple[int, int]], cutoffs: ClassCutoffs | None = None) -> Mix:
        """From the (prompt, output) tokens of requests.

        Raises:
            ValueError: no request.
        """
        cutoffs = cutoffs or ClassCutoffs()
        sums: dict[RequestClass, list[float]] = {name: [0, 0, 0] for name in REQUEST_CLASSES}
        for prompt_tokens, output_tokens in sizes:
            entry = sums[cutoffs.classify(prompt_tokens, output_tokens)]
            entry[0] += 1
            entry[1] += max(1, prompt_tokens)
            entry[2] += max(1, output_tokens)
        counts: dict[RequestClass, float] = {name: entry[0] for name, entry in sums.items()}
        works = {
            name: Work(prompt_tokens=prompt / count, output_tokens=output / count)
            for name, (count, prompt, output) in sums.items()
            if count
        }
        return cls.of(counts, works)

    def share(self, request_class: RequestClass) -> float:
        """Of the requests; 0 where the class does not occur."""
        return next((one.share for one in self.classes if one.request_class == request_class), 0.0)

    def work(self, request_class: RequestClass) -> Work | None:
        """Mean size of the class; None where it does not occur."""
        return next((one.work for one in self.classes if one.request_class == request_class), None)

    @property
    def mean_work(self) -> Work:
        """Mean size over all requests."""
        return Work(
            prompt_tokens=math.fsum(one.share * one.work.prompt_tokens for one in self.classes),
            output_tokens=math.fsum(one.share * one.work.output_tokens for one in self.classes),
        )
