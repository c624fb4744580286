"""A fleet whose records are signed, started by `heron up` from one file, and a stranger who may write to its
Redis.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from openai import AsyncOpenAI, AuthenticationError
from support.golden_records import golden_value
from support.heron_command import HERON
from support.processes import pids_with
from support.signing_keys import SigningKeys
from support.wait import until_it_says

from cli.ports import free_ports
from cli.toml_text import to_toml
from fleet.api_key import key_id
from fleet.keys import Keys
from fleet.records import ApiKey, Cordon, Document, Plan, PowerReading, SiteInfo, SiteReport
from fleet.signing import SIGNS_NOTHING, RecordSigner
from site_agent.emulation import tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MESSAGES: Any = [{"role": "user", "content": "tell me of the wind at sea"}]
QUESTION: Any = {"model": "llama-3.1-70b", "messages": MESSAGES, "max_tokens": 9}
SITES = ("north", "coast")
FLOOR_WATTS = 1750.0
"""Firm power of the example's sites."""
REDIS = Keys(fleet="default")


def fleet_file(directory: Path, keys: SigningKeys) -> tuple[Path, dict[str, int]]:
    """`heron up`'s own example, two sites of it, with a planner, on free ports; keys beside it."""
    example = tomllib.loads((Path(__file__).parents[2] / "cli" / "example_fleet.toml").read_text())
    names = ("redis", "router", "operations", "feed", *SITES, *(f"{site}-operations" for site in SITES))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    for name in ("power_feed", "router", "operator", *SITES):
        keys.write(directory, name)
    example["fleet"] |= {
        "redis_url": f"redis://127.0.0.1:{ports['redis']}/0",
        "operator_key_file": "operator.pem",
        "trusted_keys": keys.trusted(*SITES).model_dump(mode="json"),
    }
    example["router"] |= {
        "port": ports["router"],
        "operations_port": ports["operations"],
        "workers": 2,
        "auth": "keys",
        "signing_key_file": "router.pem",
        "planner": {"enabled": True, "learn_seconds": 0, "interval_seconds": 60},
    }
    wind = {"kind": "schedule", "points": [[0.0, 0.6]]}
    farms = [farm for farm in example["power_feed"]["farms"] if farm["site_id"] in SITES]
    example["power_feed"] |= {
        "port": ports["feed"],
        "farms": [{**farm, "source": wind} for farm in farms],
        "signing_key_file": "power_feed.pem",
    }
    example["sites"] = [
        site
        | {
            "port": ports[site["site_id"]],
            "operations_port": ports[f"{site['site_id']}-operations"],
            "feed_url": f"http://127.0.0.1:{ports['feed']}",
            "state_dir": str(directory / site["site_id"]),
            "signing_key_file": f"{site['site_id']}.pem",
        }
        for site in example["sites"]
        if site["site_id"] in SITES
    ]
    path = directory / "fleet.toml"
    path.write_text(to_toml(example))
    return path, ports


class Stranger:
    """Writes records of every kind to Redis, by turns unsigned and signed with a key of its own."""

    def __init__(self, client: redis.Redis, url: str) -> None:
        self._redis = client
        self._url = url
        self._signers = (SIGNS_NOTHING, RecordSigner("default", SigningKeys().key("stranger")))
        self.turns = 0
        self.key = "hk-stranger"

    def write(self) -> None:
        """Each kind once, newer than anything."""
        signer, now = self._signers[self.turns % 2], time.time()
        self.turns += 1

        def raw(kind: type[Document], subject: str | None = None, **changes: Any) -> bytes:
            changes["sequence"] = round(now * 1000) + 10_000_000
            value = {**golden_value(kind.kind), **changes}
            record = kind.from_json(json.dumps(value).encode())
            return signer.to_json(record, unix_now=now, subject=subject)

        for site_id in SITES:
            power = {"granted_power_watts": 9e6, "available_power_watts": 9e6, "site_id": site_id}
            reading = raw(
                PowerReading, **power, observed_at_unix_seconds=now, quality="good", period_seconds=1
            )
            self._redis.set(REDIS.power(site_id), reading)
            self._redis.publish(REDIS.power_channel(site_id), reading)
            self._redis.xadd(REDIS.power_log(site_id), {"reading": reading})
            self._redis.set(REDIS.site_info(site_id), raw(SiteInfo, site_id=site_id, ingress_url=self._url))
            cordon = raw(Cordon, site_id, until_unix_seconds=None, lifted_at_unix_seconds=None)
            self._redis.set(REDIS.cordon(site_id), cordon)
        for site_id in (*SITES, "stranger"):
            report = raw(
                SiteReport,
                site_id=site_id,
                ingress_url=self._url,
                observed_at_unix_seconds=now,
                state="serving",
                models=[{"model": "llama-3.1-70b", "headroom_requests": 100_000, "ready_instances": 9}],
            )
            self._redis.set(REDIS.site(site_id), report, ex=60)
            self._redis.zadd(REDIS.sites, {site_id: now})
            self._redis.publish(REDIS.site_channel, report)
        targets = {site_id: [] for site_id in SITES}
        plan = raw(Plan, epoch=round(now * 1000) + 10_000_000, targets=targets, weights={}, shares={})
        self._redis.set(REDIS.plan, plan)
        self._redis.publish(REDIS.plan_channel, plan)
        sha256_hex = key_id(self.key.encode())
        record = ApiKey(tenant="stranger", tiers=("priority",))
        with self._redis.pipeline() as pipe:
            pipe.delete(REDIS.api_key(sha256_hex))
            fields = signer.to_hash(record, sha256_hex, unix_now=now)
            pipe.hset(REDIS.api_key(sha256_hex), mapping=fields)
            pipe.execute()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Several times a second, as long as the block lasts."""
        is_over = asyncio.Event()

        async def keep_on() -> None:
            while not is_over.is_set():
                await asyncio.to_thread(self.write)
                await asyncio.sleep(0.2)

        task = asyncio.create_task(keep_on())
        try:
            yield
        finally:
            is_over.set()
            await task


def feed_of(marker: str) -> int:
    for pid in pids_with(marker):
        if b"power-feed" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    raise AssertionError("no feed runs")


class Fleet:
    """A fleet that `heron up` runs, as its operator sees it."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.path, self.ports = fleet_file(directory, SigningKeys())
        self._environment = environment
        self._operations = httpx.AsyncClient(timeout=10)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[bytes] | None = None

    async def start(self) -> None:
        """Returns once it is up."""
        process = self._process = await asyncio.create_subprocess_exec(
            *(*HERON, "up", "--config", str(self.path)),
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = b""
        async with asyncio.timeout(60):
            while b"up: http://" not in said:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        self._reading = asyncio.create_task(process.stdout.read())

    async def stop(self) -> None:
        """As Ctrl-C does."""
        await self._operations.aclose()
        assert self._process is not None
        assert self._reading is not None
        self._process.send_signal(signal.SIGTERM)
        await self._reading
        await self._process.wait()
        assert self._process.returncode == 0

    async def heron(self, *arguments: str) -> str:
        """What a command of the operator's prints."""
        command = [*HERON, *arguments, "--config", str(self.path)]
        done = await asyncio.to_thread(
            subprocess.run, command, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, key: str) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"http://127.0.0.1:{self.ports['router']}/v1", api_key=key, max_retries=0)

    async def value(self, of: str, name: str) -> float:
        """Of a metric with its labels; 0 where there is none."""
        page = (await self._operations.get(f"http://127.0.0.1:{self.ports[of]}/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def caps(self) -> dict[str, float]:
        return {
            site: await self.value(f"{site}-operations", f'heron_site_power_cap_watts{{site="{site}"}}')
            for site in SITES
        }

    async def sites(self) -> dict[str, tuple[str, str | None]]:
        """State, and why it is cordoned."""
        url = f"http://127.0.0.1:{self.ports['operations']}/heron/v1/fleet"
        found = (await self._operations.get(url)).json()["sites"]
        return {
            site["site_id"]: (site["state"], site["cordon"] and site["cordon"]["reason"]) for site in found
        }

    async def is_well(self) -> bool:
        """Both sites serve, nobody else, and not by chance without a plan."""
        is_planned = await self.value("operations", "heron_router_plan_valid") > 0
        return await self.sites() == dict.fromkeys(SITES, ("serving", None)) and is_planned

    async def not_refused(self) -> list[str]:
        """Of records of every kind, unsigned ones and those of another key."""
        names = [
            (f"{site}-operations", f'heron_site_records_refused_total{{reason="{{why}}",site="{site}"}}')
            for site in SITES
        ]
        names += [
            ("operations", f'heron_router_records_refused_total{{kind="{kind}",reason="{{why}}"}}')
            for kind in ("SiteReport", "SiteInfo", "PowerReading", "Plan", "Cordon", "ApiKey")
        ]
        every = [(of, name.replace("{why}", why)) for of, name in names for why in ("unsigned", "signature")]
        return [name for of, name in every if not await self.value(of, name)]


@pytest.fixture
async def fleet(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[Fleet]:
    directory = tmp_path / "a fleet"
    directory.mkdir()
    one = Fleet(directory, environment)
    await one.start()
    try:
        await until_it_says(one.is_well, seconds=60, what="both sites serve by a plan of the router")
        yield one
    finally:
        await one.stop()


@pytest.fixture
async def asked() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Where the stranger says that its sites are, and what comes there."""
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.read(4096))
        writer.close()

    trap = await asyncio.start_server(take, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}", taken
    trap.close()


async def test_a_stranger_in_redis_changes_nothing(
    fleet: Fleet, asked: tuple[str, list[bytes]], marker: str
) -> None:
    """No request reaches it, no site gets power from it, no cordon, plan or key of its own counts; and where
    the feed is silent meanwhile, caps fall as if Redis were empty.
    """
    url, taken = asked
    client = redis.Redis(port=fleet.ports["redis"], socket_timeout=5)
    stranger = Stranger(client, url)
    key = json.loads(await fleet.heron("keys", "add", "--tenant", "t", "--json"))["key"]
    ours, theirs = fleet.client(key), fleet.client(stranger.key)
    caps = await fleet.caps()
    assert all(FLOOR_WATTS < cap < 1e5 for cap in caps.values())

    async with stranger.writing():
        await until_all_is_refused(fleet)
        for _ in range(8):
            answer = await ours.chat.completions.create(**QUESTION)
            assert answer.choices[0].message.content == tokens.expected_text_for_messages(MESSAGES, 9)
            with pytest.raises(AuthenticationError):
                await theirs.chat.completions.create(**QUESTION)
        assert await fleet.is_well()
        assert await fleet.caps() == caps

    await fleet.heron("cordon", "north", "--reason", "blades")
    cordoned = client.get(REDIS.cordon("north"))
    assert isinstance(cordoned, bytes)
    await until_it_says(is_cordoned(fleet, "blades"), seconds=10, what="the operator's word counts")
    await fleet.heron("cordon", "north", "--lift")
    await until_it_says(is_cordoned(fleet, None), seconds=10, what="and so does its end")
    client.set(REDIS.cordon("north"), cordoned)
    name = 'heron_router_records_refused_total{kind="Cordon",reason="signed_before"}'

    async def is_replay_refused() -> bool:
        return await fleet.value("operations", name) > 0

    await until_it_says(is_replay_refused, seconds=10, what="what was signed before is a replay")
    assert await is_cordoned(fleet, None)()

    async with stranger.writing():
        feed = feed_of(marker)
        os.kill(feed, signal.SIGSTOP)
        try:

            async def caps_are_at_the_floor() -> bool:
                found = await fleet.caps()
                assert all(cap <= caps[site] for site, cap in found.items())
                return set(found.values()) == {FLOOR_WATTS}

            await until_it_says(caps_are_at_the_floor, seconds=40, what="the caps have walked down")
        finally:
            os.kill(feed, signal.SIGCONT)
        await until_it_says(fleet.is_well, seconds=60, what="the feed is believed again")
    assert taken == [], "nothing was asked of the stranger"
    for one in (ours, theirs):
        await one.close()


async def until_all_is_refused(fleet: Fleet) -> None:
    deadline = time.monotonic() + 40
    while missing := await fleet.not_refused():
        assert time.monotonic() < deadline, f"used, or not counted: {missing}"


def is_cordoned(fleet: Fleet, reason: str | None) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return (await fleet.sites())["north"][1] == reason

    return ask
