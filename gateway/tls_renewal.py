"""TLS whose files may change: what comes after uses the new ones, what is open goes on as it is.

Rule: files that cannot be used change nothing. Whoever renews a certificate writes two files, one after the
other; only what is still wrong when it is looked at again is told.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from gateway.tls import CallerFiles, Certificate, PortFiles, Tls, TlsError, time_fault

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
Signature = tuple[tuple[int, int, int] | None, ...]
"""Of each file: inode, size and time of its last change; None: it cannot be seen."""


class RenewedTls:
    """One port's, or one caller's."""

    def __init__(self, where: str, files: PortFiles | CallerFiles) -> None:
        """`where` names the table of the configuration.

        Raises:
            TlsError: the files cannot be used.
        """
        self._where = where
        self._files = files
        self._seen = _signature(files.paths)
        self._tls: Tls | None = None
        self._failed: Signature | None = None
        self._told: Signature | None = None
        """Files of which it was said that they cannot be used."""
        self._told_time: str | None = None
        if files.paths:
            self._tls = self._load()
            self._tell_time()

    @property
    def has_files(self) -> bool:
        """Whether there is anything that may change."""
        return bool(self._files.paths)

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        if self._tls is None:  # the system's own CAs, which take a while: read where they are needed
            self._tls = self._files.load()
        return self._tls.context

    @property
    def certificate(self) -> Certificate | None:
        """What is shown now."""
        return None if self._tls is None else self._tls.certificate

    async def run(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Use the files if they have changed and can be used."""
        signature = _signature(self._files.paths)
        if signature != self._seen:
            try:
                self._tls = self._load()
            except TlsError as error:
                if signature == self._failed != self._told:
                    self._told = signature
                    logger.error("new TLS files are not used, the old ones are kept: %s", error)  # noqa: TRY400
                self._failed = signature
            else:
                self._seen, self._failed = signature, None
                logger.info("TLS files have changed: new connections use them", extra=self._about())
        self._tell_time()

    def _load(self) -> Tls:
        try:
            return self._files.load()
        except TlsError as error:
            raise TlsError(f"[{self._where}] {error}") from None

    def _tell_time(self) -> None:
        """What is wrong with the certificate's time, once."""
        certificate = self.certificate
        fault = None if certificate is None else time_fault(certificate, time.time())
        if certificate is None or fault is None or fault == self._told_time:
            return
        self._told_time = fault
        log = logger.critical if "EXPIRED" in fault else logger.warning
        log(
            "[%s] the certificate %s %s; renew it in its place, no restart is needed",
            self._where,
            certificate.path,
            fault,
            extra=self._about(),
        )

    def _about(self) -> dict[str, object]:
        certificate = self.certificate
        if certificate is None:
            return {"table": self._where}
        return {
            "table": self._where,
            "certificate_names": list(certificate.names),
            "expires_at_unix_seconds": certificate.expires_at_unix_seconds,
        }


class ServiceTls:
    """What one service has: TLS at its port, and in its calls of other ports of the fleet."""

    def __init__(self, table: str, port: PortFiles | None, calls: CallerFiles) -> None:
        """`port` None: it speaks plain HTTP.

        Raises:
            TlsError: files cannot be used.
        """
        self.port = None if port is None else RenewedTls(table, port)
        self.calls = RenewedTls("fleet", calls)

    def context(self) -> ssl.SSLContext:
        """For the next call."""
        return self.calls.context

    def loops(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """By name; each runs until cancelled."""
        renewed = {"TLS of the port": self.port, "TLS of calls": self.calls}
        return {name: tls.run for name, tls in renewed.items() if tls is not None and tls.has_files}

    def shown(self) -> dict[str, RenewedTls]:
        """Whatever has a certificate of ours, by its label in metrics."""
        both = {"port": self.port, "client": self.calls}
        return {name: tls for name, tls in both.items() if tls is not None and tls.certificate is not None}


def _signature(paths: tuple[Path, ...]) -> Signature:
    return tuple(_of_file(path) for path in paths)


def _of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()  # of what a link leads to: Kubernetes' secrets and Let's Encrypt have them
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
