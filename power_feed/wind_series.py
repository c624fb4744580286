"""What a wind record is once it has been read: ratios of nameplate on a regular grid. Pure.

Rule: a step without a usable measurement is `None`, never 0 and never a neighbour's value, and every row
that was refused is counted and known by its line.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_EXAMPLES = 20
"""Refused rows that are kept with their reason; all are counted."""


class WindFileError(ValueError):
    """A file that is no wind record. The text says what it is, what was expected and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """One row that could not be used, or not wholly."""

    line: int
    """As an editor counts: the header is line 1."""
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """All refused rows of a file, the first of them with their reasons."""

    total: int = 0
    examples: tuple[RefusedRow, ...] = ()

    def describe(self) -> str:
        """`3 rows refused: line 7: …; line 9: …; …and 1 more`; empty where there are none."""
        if not self.total:
            return ""
        more = self.total - len(self.examples)
        parts = [str(row) for row in self.examples] + ([f"…and {more} more"] if more else [])
        return f"{self.total} {'row' if self.total == 1 else 'rows'} refused: {'; '.join(parts)}"


@dataclass(slots=True)
class RefusalLog:
    """Collects refusals while a file is read; a row counts once, whatever is wrong with it."""

    total: int = 0
    _examples: list[RefusedRow] = field(default_factory=list)
    _flagged: bytearray = field(default_factory=bytearray)

    def add(self, line: int, reason: str) -> None:
        """Refuse the row at `line`."""
        if line >= len(self._flagged):
            self._flagged.extend(bytes(max(line + 1 - len(self._flagged), 4096)))
        if self._flagged[line]:
            return
        self._flagged[line] = 1
        self.total += 1
        if len(self._examples) < MAX_EXAMPLES:
            self._examples.append(RefusedRow(line=line, reason=reason))

    def close(self) -> Refusals:
        """All of them, examples in the file's order."""
        return Refusals(
            total=self.total, examples=tuple(sorted(self._examples, key=lambda refused: refused.line))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindSeries:
    """One record of wind power: some sites on one clock."""

    name: str
    """The file's name: it appears in every reading's `source`."""
    period_seconds: float
    """Between two steps, in the record's own time."""
    ratios: Mapping[str, array[float]]
    """Site → share of nameplate per step; NaN where nothing was measured."""
    first_unix_seconds: float | None = None
    """When the first step was; None where the record does not say."""
    refusals: Refusals = Refusals()
    missing_steps: int = 0
    """Steps of the grid that no row fills."""
    nameplates_megawatts: Mapping[str, float] = field(default_factory=dict)
    """Site → what its MW were divided by; empty where the file holds shares of nameplate."""
    notes: tuple[str, ...] = ()
    """What was assumed in reading it; to be said loudly."""

    @property
    def steps(self) -> int:
        """Length of the grid, gaps included."""
        return max((len(values) for values in self.ratios.values()), default=0)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names as in the file's header."""
        return tuple(self.ratios)

    def ratio(self, site: str, index: int) -> float | None:
        """Share of nameplate at a step; None: not measured. Raises IndexError and KeyError."""
        if index < 0:
            raise IndexError(index)
        value = self.ratios[site][index]
        return None if math.isnan(value) else value
