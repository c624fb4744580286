"""How many files, connections among them, this process may have open.

Why: a proxied stream takes two, one to each side, and the usual soft limit of 1,024 ends at 500 streams. A
process may raise its soft limit to the hard one by itself.
"""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)

MOST = 1 << 20
"""The kernel's own default bound (fs.nr_open); containers often say a thousand times more."""


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to set: never lower than it is."""
    unlimited = resource.RLIM_INFINITY
    most = MOST if hard == unlimited else min(hard, MOST)
    return soft if soft == unlimited else max(soft, most)


def raise_open_files_limit() -> int:
    """Raise the soft limit as far as the hard one lets; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = wanted_limit(soft, hard)
    if wanted == soft:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        logger.warning("only %d open files are allowed, and that cannot be raised: %s", soft, error)
        return soft
    return wanted
