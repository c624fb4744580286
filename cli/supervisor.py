"""Starts services in order, watches them, and stops them in order (`heron demo`, `heron up`).

Rules: a service counts as started when it says so itself (its readiness URL), never after a pause; a service
that dies is reported with the end of its log, and restarted with back-off where `restart` says so; `stop`
leaves no process behind, and every child is tied to this process besides (site_agent/tether.py).
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from cli.process import ChildProcess
from fleet.config import without_password

READY_POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0
READY_TIMEOUT_SECONDS = 60.0
"""Generous: a dozen Python processes start at once, on few cores."""
FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A service that lived this long starts again with the first back-off."""
LOG_CHECK_SECONDS = 10.0


class StartError(Exception):
    """A service did not come up; the message has its name and the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What to start, and how to know that it is up."""

    name: str
    arguments: tuple[str, ...]
    """After `python -m cli.main`, or a whole command where `is_heron` is false."""
    ready_url: str | None
    """Answers 200 (or, with the scheme redis, PONG) once it is up; None: up as soon as it runs."""
    stop_grace_seconds: float
    is_heron: bool = True
    is_awaited: bool = False
    """Later stages start only once it is ready; the others start all at once, and are awaited at the end."""
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS

    def argv(self) -> tuple[str, ...]:
        """The command line as it is executed."""
        return (sys.executable, "-m", "cli.main", *self.arguments) if self.is_heron else self.arguments


class Supervisor:
    """Owns the child processes of one topology, given in stages: started in order, stopped in reverse.

    `report` gets one sentence for everything that happens; `restart` says whether a service that died comes
    back by itself.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        *,
        log_directory: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None],
        restart: bool,
    ) -> None:
        self._stages = tuple(tuple(stage) for stage in stages)
        self._services = {service.name: service for stage in self._stages for service in stage}
        self._log_directory = log_directory
        self._environment = dict(environment)
        self._report = report
        self._restart = restart
        self._children: dict[str, ChildProcess] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._expected: set[str] = set()  # deaths that were asked for
        self.unexpected_deaths: Counter[str] = Counter()
        """Service → how often it ended by itself."""
        self.has_lost_one = asyncio.Event()
        """Set at the first of them."""

    async def start(self) -> None:
        """Start everything, and return when all of it is ready.

        Raises:
            StartError: one of them did not come up; the caller calls `stop`.
        """
        async with _client() as client:
            for service in self._services.values():
                await _refuse_taken(service, client)
            for stage in self._stages:
                for service in stage:
                    await self._launch(service)
                await self._wait_all_ready([one for one in stage if one.is_awaited], client)
            await self._wait_all_ready(list(self._services.values()), client)
        for name in self._services:
            self._watchers[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    def child(self, name: str) -> ChildProcess:
        """The running process of a service."""
        return self._children[name]

    def expect_death(self, name: str) -> None:
        """The next end of this service is not a fault and not mended (a scenario kills it)."""
        self._expected.add(name)

    async def restart_service(self, name: str) -> None:
        """Start a service that has ended, and wait until it is ready.

        Raises:
            StartError: it did not come up.
        """
        service = self._services[name]
        await self._children[name].stop(service.stop_grace_seconds)
        await self._launch(service)
        async with _client() as client:
            await self._wait_ready(service, client)
        self._expected.discard(name)
        self._watchers[name] = asyncio.create_task(self._watch(name), name=f"watch {name}")

    async def stop(self, *, longest_grace_seconds: float = math.inf) -> None:
        """Stop everything, the last stage first; SIGKILL to whole groups beyond each one's grace.

        May be cancelled and called again, with a shorter grace, by somebody in a hurry.
        """
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        self._watchers.clear()
        for stage in reversed(self._stages):
            children = [
                (self._children[service.name], service) for service in stage if service.name in self._children
            ]
            await asyncio.gather(
                *(
                    child.stop(min(service.stop_grace_seconds, longest_grace_seconds))
                    for child, service in children
                )
            )

    async def _launch(self, service: Service) -> None:
        child = ChildProcess(
            service.name,
            service.argv(),
            environment=self._environment,
            log_path=self._log_directory / f"{service.name.replace(' ', '-')}.log",
        )
        self._children[service.name] = child
        try:
            await child.start()
        except OSError as error:
            raise StartError(f"{service.name} cannot be started: {error}") from None

    async def _wait_all_ready(self, stage: Sequence[Service], client: httpx.AsyncClient) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for service in stage:
                    group.create_task(self._wait_ready(service, client))
        except ExceptionGroup as faults:
            raise faults.exceptions[0] from None

    async def _wait_ready(self, service: Service, client: httpx.AsyncClient) -> None:
        child = self._children[service.name]
        if service.ready_url is None:
            return
        last: str | None = "it does not listen yet"
        try:
            async with asyncio.timeout(service.ready_timeout_seconds):
                while child.is_running:
                    try:
                        last = await _probe(service.ready_url, client)
                        if last is None:
                            return
                    except (httpx.TransportError, RedisError) as error:
                        last = f"{without_password(service.ready_url)}: {error!r}"
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            raise StartError(
                f"{service.name} was not ready within {service.ready_timeout_seconds:.0f} s ({last}); "
                f"{_log_end(child)}"
            ) from None
        raise StartError(
            f"{service.name} ended with exit code {child.exit_code} while starting; {_log_end(child)}"
        )

    async def _watch(self, name: str) -> None:
        service = self._services[name]
        loop = asyncio.get_running_loop()
        back_off = FIRST_BACK_OFF_SECONDS
        while True:
            child, started_at = self._children[name], loop.time()
            ended = asyncio.ensure_future(child.wait())
            try:
                while not (await asyncio.wait({ended}, timeout=LOG_CHECK_SECONDS))[0]:
                    child.rotate_log()
            finally:
                ended.cancel()
            if name in self._expected:
                return
            self.unexpected_deaths[name] += 1
            self.has_lost_one.set()
            self._report(f"{name} ended with exit code {child.exit_code}; {_log_end(child)}")
            await child.stop(0.0)  # what is left of its group
            if not self._restart:
                return
            if loop.time() - started_at > SETTLED_SECONDS:
                back_off = FIRST_BACK_OFF_SECONDS
            back_off = await self._relaunch(service, back_off)

    async def _relaunch(self, service: Service, back_off: float) -> float:
        """Start it again after `back_off`, as often as it takes; returns the next back-off."""
        while True:
            self._report(f"{service.name} is started again in {back_off:.0f} s")
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, LONGEST_BACK_OFF_SECONDS)
            try:
                await self._launch(service)
            except StartError as error:
                self._report(str(error))
            else:
                return back_off


def _client() -> httpx.AsyncClient:
    """For questions to our own children, which tell nothing; their certificates are for other names."""
    return httpx.AsyncClient(trust_env=False, verify=False)  # noqa: S501


async def _probe(url: str, client: httpx.AsyncClient) -> str | None:
    """None when it is up, else what it said."""
    if url.startswith("redis"):
        async with Redis.from_url(
            url, socket_connect_timeout=PROBE_SECONDS, socket_timeout=PROBE_SECONDS
        ) as redis:
            await redis.ping()
        return None
    answer = await client.get(url, timeout=PROBE_SECONDS)
    if answer.status_code == httpx.codes.OK:
        return None
    return f"it answers {answer.status_code}: {answer.text[:300]}"


async def _refuse_taken(service: Service, client: httpx.AsyncClient) -> None:
    """What answers there already is not ours, and would be taken for it.

    Raises:
        StartError: something does.
    """
    if service.ready_url is None:
        return
    try:
        await _probe(service.ready_url, client)
    except (httpx.TransportError, RedisError):
        return
    raise StartError(
        f"{without_password(service.ready_url)} answers before {service.name} was started: does this fleet "
        "run already? Stop that one, or give this one other ports"
    )


def _log_end(child: ChildProcess) -> str:
    return f"the end of {child.log_path}:\n{child.log_tail()}"
