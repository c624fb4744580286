"""What a command says of the wind file that it has read: what was taken for granted, and which rows were not
used. On stderr, so that a table or JSON on stdout stays what it is.
"""

from __future__ import annotations

import sys

from power_feed.wind_series import WindSeries


def tell(series: WindSeries) -> None:
    """A line for each note, and one for all refused rows; nothing of a file without either."""
    for note in series.notes:
        print(note, file=sys.stderr)
    if series.refusals.total:
        print(f"{series.name}: {series.refusals.describe()}", file=sys.stderr)
