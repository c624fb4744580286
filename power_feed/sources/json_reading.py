"""From a JSON document to a value, its time and the curtailment signal, by JMESPath. Pure.

JMESPath (jmespath.org) and not JSONPath: one specification with a compliance suite, functions for what open
APIs need (`sum`, `sort_by`, `to_number`), and a library of 20 kB without dependencies.
"""

from __future__ import annotations

import json
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from power_feed.sources.signals import SourceFaultError, shown

MAX_DOCUMENT_BYTES = 1 << 20
"""An hour of a country's production is a tenth of it."""


class JsonPath:
    """One compiled expression."""

    def __init__(self, expression: str, key: str) -> None:
        """`key` names it in messages. Raises SourceFaultError: it is no JMESPath."""
        self._key = key
        self._text = expression
        try:
            self._compiled = jmespath.compile(expression)
        except JMESPathError as error:
            reason = str(error).splitlines()[0]
            raise SourceFaultError("wrong_type", f"{key} = {expression!r} is no JMESPath: {reason}") from None

    def find(self, document: object) -> Any:
        """What is there; None where nothing is.

        Raises:
            SourceFaultError: the expression does not fit the document (`missing`).
        """
        try:
            return self._compiled.search(document)
        except JMESPathError as error:
            reason = str(error).splitlines()[0]
            raise SourceFaultError(
                "missing", f"{self._key} = {self._text!r} does not fit what came: {reason}"
            ) from None


def parse(body: bytes) -> object:
    """A JSON document; NaN and Infinity, which JSON does not have but many write, are read as such.

    Raises:
        SourceFaultError: it is none (`protocol`), or longer than MAX_DOCUMENT_BYTES (`too_large`).
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise SourceFaultError("too_large", f"{len(body)} bytes came, at most {MAX_DOCUMENT_BYTES} are read")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        start = shown(body[:60].decode("utf-8", "replace"))
        raise SourceFaultError("protocol", f"what came is not JSON: {start}") from None
