"""A router whose port speaks TLS, and whose sites let in only callers with a certificate."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import AsyncOpenAI
from support.authority import Authority
from support.router_fleet import CHAT, router_fleet
from support.router_process import RouterProcess, router_process
from support.stub_site import StubSite, stop_after, whole_answer
from support.wait import until, until_it_says

from fleet.config import ConfigError
from gateway.tls import PortFiles
from router import config
from router.live.fleet_reader import SILENT_SECONDS

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ASKED: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 30, "temperature": 0}
TEXT = orjson.loads(whole_answer("/v1/chat/completions", orjson.dumps(CHAT), CHAT))["choices"][0]["message"][
    "content"
]
EXPIRY = 'heron_router_tls_certificate_expiry_timestamp_seconds{certificate="%s"}'


class Keys:
    """Of one fleet, and the lines of its configuration."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.port = self.authority.sign("router", days=30)
        self.site = self.authority.sign("site")
        self.client = self.authority.sign("client", days=40)

    def stub_site(self, site_id: str) -> StubSite:
        """It lets in only who shows a certificate."""
        files = PortFiles(certificate=self.site[0], key=self.site[1], client_ca=self.authority.ca)
        return StubSite(site_id, tls=files.load().context)

    @property
    def of_router(self) -> str:
        return f'tls_certificate_file = "{self.port[0]}"\ntls_key_file = "{self.port[1]}"'

    @property
    def of_fleet(self) -> dict[str, Path]:
        return {
            "tls_ca_file": self.authority.ca,
            "tls_client_certificate_file": self.client[0],
            "tls_client_key_file": self.client[1],
        }

    def openai(self, router: RouterProcess, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"https://127.0.0.1:{router.port}/v1",
            api_key="x",
            max_retries=0,
            http_client=httpx.AsyncClient(verify=self.authority.client(), **options),
        )


def lines(values: dict[str, Path]) -> str:
    return "\n".join(f'{key} = "{value}"' for key, value in values.items())


async def streamed(client: AsyncOpenAI) -> str:
    text = ""
    async for chunk in await client.chat.completions.create(**ASKED, stream=True):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    return text


async def shown(port: int) -> bytes:
    """The certificate that a new connection sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_openai_client_over_tls_at_both_ends(
    redis_server: Any, redis_store: Any, tmp_path: Path, workers: int
):
    """Whole, streamed, and with its site gone on the way; and all that knocks in the wrong way beside it."""
    keys = Keys(tmp_path / "keys")
    sites = keys.stub_site("a"), keys.stub_site("b")
    sites[0].script = sites[1].script
    async with (
        router_process(
            redis_server,
            redis_store,
            tmp_path,
            *sites,
            workers=workers,
            options=keys.of_router,
            fleet=lines(keys.of_fleet),
        ) as router,
        keys.openai(router) as client,
    ):
        silent = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(4)]
        before = await shown(router.port)
        answer = await client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == TEXT
        assert await streamed(client) == TEXT
        sites[0].script.append(stop_after(9, "cut"))
        assert await streamed(client) == TEXT
        async with httpx.AsyncClient() as plain:
            refused = await plain.post(f"{router.url}/v1/chat/completions", json=ASKED)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "https_expected")
        with pytest.raises(openai.APIConnectionError):
            async with AsyncOpenAI(
                base_url=f"https://127.0.0.1:{router.port}/v1", api_key="x", max_retries=0
            ) as stranger:
                await stranger.models.list()
        ledger = await router.settled()
        assert (ledger["completed"], ledger["requests"], ledger["resumed"]) == (3, 3, 1)
        page = await router.metrics()
        for name, pair in (("port", keys.port), ("client", keys.client)):
            files = PortFiles(certificate=pair[0], key=pair[1])
            certificate = files.load().certificate
            assert certificate is not None
            assert page[EXPIRY % name] == certificate.expires_at_unix_seconds
        assert before == await shown(router.port)
        await client.close()
        for _, writer in silent:
            writer.close()
        if workers > 1:
            await until_connections(router, 0)


async def until_connections(router: RouterProcess, count: int) -> None:
    async def known() -> bool:
        return sum(one["connections"] for one in await router.workers()) == count

    await until_it_says(known, what=f"{count} connections")


async def test_reports_are_fetched_from_the_sites_over_tls(store: Any, tmp_path: Path):
    """While Redis says nothing of them; and a site that is not believed gets no work, and no token."""
    keys = Keys(tmp_path / "keys")
    stranger = Authority(tmp_path / "stranger").sign("site")
    strange = PortFiles(certificate=stranger[0], key=stranger[1]).load().context

    def make(site_id: str) -> StubSite:
        return keys.stub_site(site_id) if site_id == "a" else StubSite(site_id, tls=strange)

    async with router_fleet(store, "a", "b", make_site=make, fleet_fields=keys.of_fleet) as fleet:
        for _ in range(8):
            assert (await fleet.post(CHAT)).status_code == 200
        assert len(fleet.site("a").inference) == 8
        assert fleet.totals["retried"] > 0
        polls = fleet.router.metrics.polls
        await until(lambda: polls["ok"] > 0, seconds=SILENT_SECONDS + 5, what="its report fetched")
        assert fleet.site("b").seen == []


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    """In [fleet] and in [router]; the environment's are not."""
    keys = Keys(tmp_path / "keys")
    path = written(
        tmp_path,
        '[fleet]\ntls_ca_file = "keys/ca.pem"\n'
        '[router]\ntls_certificate_file = "keys/router.pem"\ntls_key_file = "keys/router.key"\n',
    )
    fleet, router = config.load(path, {})
    assert fleet.tls_ca_file == keys.authority.ca
    assert router.port_files == PortFiles(certificate=keys.port[0], key=keys.port[1])
    moved = tmp_path / "moved.pem"
    shutil.copy(keys.port[0], moved)
    _, router = config.load(path, {"HERON_ROUTER_TLS_CERTIFICATE_FILE": str(moved)})
    assert router.tls_certificate_file == moved


def test_what_is_wrong_with_files_is_told_before_the_start(tmp_path: Path) -> None:
    """Of [fleet] and of [router], one line each, with file, table and key."""
    keys = Keys(tmp_path / "keys")
    path = written(
        tmp_path,
        '[fleet]\ntls_ca_file = "none.pem"\n'
        f'[router]\ntls_certificate_file = "keys/router.pem"\ntls_key_file = "{keys.site[1]}"\n',
    )
    with pytest.raises(ConfigError) as refused:
        config.load(path, {})
    first, second = str(refused.value).splitlines()
    gone = str(tmp_path / "none.pem")
    assert first == f"{path}: [fleet] tls_ca_file = {gone!r}: cannot be read: No such file or directory"
    assert second.startswith(f"{path}: [router] tls_key_file = {str(keys.site[1])!r}: is not the key of ")
    path = written(tmp_path, '[router]\ntls_certificate_file = "keys/router.pem"\n')
    with pytest.raises(ConfigError, match="belong together: give both, or neither"):
        config.load(path, {})
    path = written(tmp_path, '[fleet]\ntls_client_key_file = "keys/router.key"\n')
    with pytest.raises(ConfigError, match=r"\[fleet\].*belong together: give both, or neither"):
        config.load(path, {})
