"""How a service that cannot go on says so: its command prints the text, without a traceback, and exits 1."""

from __future__ import annotations


class ServiceError(Exception):
    """The text is for its operator: what is wrong, and what to look at."""
