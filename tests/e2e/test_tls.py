"""A whole fleet with TLS on every port but the operators', started by `heron up` from one file."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from support.authority import Authority
from support.heron_command import HERON
from support.processes import pids_with
from support.wait import until_it_says

from cli.ports import free_ports
from cli.toml_text import to_toml
from site_agent.emulation import tokens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MESSAGES: Any = [{"role": "user", "content": "tell me of the wind at sea"}]
TOKENS = 150
SITES = ("north", "coast")


def fleet_file(directory: Path, authority: Authority) -> tuple[Path, dict[str, int]]:
    """`heron up`'s own example, two sites of it, on free ports; the keys lie beside the file."""
    example = tomllib.loads((Path(__file__).parents[2] / "cli" / "example_fleet.toml").read_text())
    names = ("redis", "router", "operations", "feed", *SITES, *(f"{site}-operations" for site in SITES))
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    for name in ("router", "feed", *SITES, "client"):
        authority.sign(name)
    example["fleet"] |= {
        "redis_url": f"redis://127.0.0.1:{ports['redis']}/0",
        "tls_ca_file": "ca.pem",
        "tls_client_certificate_file": "client.pem",
        "tls_client_key_file": "client.key",
    }
    example["router"] |= {
        "port": ports["router"],
        "operations_port": ports["operations"],
        "workers": 2,
        **pair("router"),
    }
    wind = {"kind": "schedule", "points": [[0.0, 0.6]]}
    farms = [farm for farm in example["power_feed"]["farms"] if farm["site_id"] in SITES]
    example["power_feed"] |= {
        "port": ports["feed"],
        "farms": [{**farm, "source": wind} for farm in farms],
        **pair("feed"),
    }
    example["sites"] = [
        site
        | {
            "port": ports[site["site_id"]],
            "operations_port": ports[f"{site['site_id']}-operations"],
            "feed_url": f"https://127.0.0.1:{ports['feed']}",
            "state_dir": str(directory / site["site_id"]),
            "tls_client_ca_file": "ca.pem",
            **pair(site["site_id"]),
        }
        for site in example["sites"]
        if site["site_id"] in SITES
    ]
    path = directory / "fleet.toml"
    path.write_text(to_toml(example))
    return path, ports


def pair(name: str) -> dict[str, str]:
    return {"tls_certificate_file": f"{name}.pem", "tls_key_file": f"{name}.key"}


def agent_of(marker: str, site_id: str) -> int:
    for pid in pids_with(marker):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"site-agent" in command and site_id.encode() in command:
            return pid
    raise AssertionError(f"no agent of {site_id} runs")


async def test_a_fleet_over_tls_serves_and_resumes(
    environment: dict[str, str], marker: str, tmp_path: Path
) -> None:
    """The OpenAI client's stream goes on, word for word, while its agent is killed and the router's
    certificate is renewed."""
    directory = tmp_path / "a fleet"
    authority = Authority(directory)
    path, ports = fleet_file(directory, authority)
    process = await asyncio.create_subprocess_exec(
        *(*HERON, "up", "--config", str(path)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(60):
        while b"up: https://" not in said:
            line = await process.stdout.readline()
            assert line, said.decode()
            said += line
    url = f"https://127.0.0.1:{ports['router']}/v1"
    assert f"up: {url} ".encode() in said
    client = AsyncOpenAI(
        base_url=url, api_key="x", max_retries=0, http_client=httpx.AsyncClient(verify=authority.client())
    )
    operations = httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['operations']}", timeout=10)

    async def sites() -> dict[str, Any]:
        page = (await operations.get("/heron/v1/fleet")).json()
        return {site["site_id"]: site for site in page["sites"]}

    async def both_serve() -> bool:
        found = await sites()
        return len(found) == len(SITES) and all(site["state"] == "serving" for site in found.values())

    await until_it_says(both_serve, seconds=60, what="both sites serve")
    answers = [await client.chat.completions.create(**asked(9)) for _ in range(4)]
    expected = tokens.expected_text_for_messages(MESSAGES, 9)
    assert [answer.choices[0].message.content for answer in answers] == [expected] * 4
    before = await shown(ports["router"])
    authority.sign("router", days=60)
    assert await shown(ports["router"]) == before
    text, killed = "", None
    async for chunk in await client.chat.completions.create(**asked(TOKENS), stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if killed is None and len(text.split()) > 20:
            found = await sites()
            killed = next(site_id for site_id, site in found.items() if site["in_flight_requests"])
            os.kill(agent_of(marker, killed), signal.SIGKILL)
    assert killed is not None
    assert text == tokens.expected_text_for_messages(MESSAGES, TOKENS)
    ledger = (await operations.get("/heron/v1/ledger")).json()
    assert (ledger["completed"], ledger["resumed"], ledger["lost"]) == (5, 1, 0)

    async def is_new() -> bool:
        return before not in [await shown(ports["router"]) for _ in range(4)]

    await until_it_says(is_new, seconds=15, what="every worker shows the new certificate")
    assert await models(client) == ["llama-3.1-70b"], "its connection goes on"

    left = next(site_id for site_id in SITES if site_id != killed)
    page = (await operations.get(f"http://127.0.0.1:{ports[f'{left}-operations']}/metrics")).text
    assert f'heron_site_power_path_up{{path="stream",site="{left}"}} 1.0' in page
    assert f'heron_site_tls_certificate_expiry_timestamp_seconds{{certificate="port",site="{left}"}}' in page
    doctor = await asyncio.to_thread(
        subprocess.run,
        [*HERON, "doctor", "--config", str(path), "--site", left],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"ok   TLS: {directory / left}.pem is for 127.0.0.1, for 89 days yet" in doctor.stdout
    assert f"ok   agent: https://127.0.0.1:{ports[left]}: serving" in doctor.stdout
    assert "ok   power feed: good" in doctor.stdout
    await client.close()
    await operations.aclose()
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0


async def models(client: AsyncOpenAI) -> list[str]:
    return [model.id async for model in client.models.list()]


async def shown(port: int) -> bytes:
    """The certificate that a new connection sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    assert isinstance(found, bytes)
    return found


def asked(count: int) -> dict[str, Any]:
    return {"model": "llama-3.1-70b", "messages": MESSAGES, "max_tokens": count}
