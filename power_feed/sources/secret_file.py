"""Passwords and tokens: from files, so that a configuration can be shown to anybody."""

from __future__ import annotations

from pathlib import Path

from power_feed.sources.signals import SourceFaultError

MAX_SECRET_BYTES = 4096


def read_secret(path: Path) -> str:
    """The file's text without the line end; read anew at each connection, so that it can be changed.

    Raises:
        SourceFaultError: `credentials`, it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_SECRET_BYTES + 1)
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise SourceFaultError("credentials", f"{path}: cannot be read: {reason}") from None
    if len(raw) > MAX_SECRET_BYTES:
        raise SourceFaultError("credentials", f"{path}: over {MAX_SECRET_BYTES} bytes: is it the secret?")
    return text.rstrip("\r\n")
