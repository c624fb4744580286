"""A real MQTT broker (Mosquitto) that a test can stop and start again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

from cli.ports import LOOPBACK, free_ports
from support.programs import need
from support.wait import until


class Mosquitto:
    """One broker on a port of its own; nothing is kept when it stops."""

    def __init__(
        self, directory: Path, *, password: str | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        """With a password, user `feed` is the only one; with TLS, its certificate and key."""
        sbin = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
        self._program = shutil.which("mosquitto", path=sbin) or need("mosquitto", "mosquitto")
        self.port = free_ports(1)[0]
        self._config = directory / "mosquitto.conf"
        lines = [f"listener {self.port} {LOOPBACK}", "allow_anonymous true", "max_packet_size 4000000"]
        if password is not None:
            users = directory / "users"
            command = [need("mosquitto_passwd", "mosquitto"), "-b", "-c", str(users), "feed", password]
            subprocess.run(command, check=True, capture_output=True)
            access = directory / "access"
            access.write_text("user feed\ntopic readwrite farm/#\n")
            users.chmod(0o644)
            lines[1] = "allow_anonymous false"
            lines += [f"password_file {users}", f"acl_file {access}"]
        if tls is not None:
            lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
        if os.geteuid() == 0:
            lines.append("user root")
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns once it listens."""
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(1000):
            assert self._process.poll() is None, "mosquitto ended at once"
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, self.port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
        raise AssertionError("mosquitto does not listen")

    async def stop(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            process = self._process
            await until(lambda: process.poll() is not None, what="the broker's end")
            self._process = None

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
