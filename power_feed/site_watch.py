"""What the sites of this feed say of themselves: from Redis, and from their agents when Redis is silent.

Rules (DESIGN §4, §8): nothing that the feed sends ever waits for this. A record is used once `fleet.intake`
lets it through; what is refused is counted. Agents are asked only at the URLs that are configured, never at
one that a record names: the site token goes with it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import httpx

from fleet import records
from fleet.intake import RecordJudge
from fleet.loops import errors_as
from fleet.records import Plan, SiteInfo, SiteReport
from fleet.signing import RecordTrust
from fleet.store import Store, StoreError
from fleet.wire import MAX_RECORD_BYTES, Record, RecordError
from power_feed.claims import SiteState

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)

REREAD_SECONDS = 1.0
SILENT_SECONDS = 3.0
"""Redis has said nothing new of a site for so long: its agent is asked (DESIGN §4)."""
POLL_TIMEOUT_SECONDS = 1.0
MAX_POLLS_AT_ONCE = 32
SAY_AGAIN_SECONDS = 60.0
REPORT_PATH = "/heron/v1/report"


class PollError(Exception):
    """An agent did not answer."""


@dataclass(slots=True)
class _Kept:
    """The last good records of one site."""

    reports: RecordJudge
    infos: RecordJudge
    report: SiteReport | None = None
    heard_at: float | None = None
    stored_at: float = float("-inf")
    """When the store last had anything new of it."""
    info: SiteInfo | None = None
    raw_report: bytes = b""
    raw_info: bytes = b""


class SiteWatch:
    """Two tasks: one reads the store, one asks the agents that the store is silent of."""

    def __init__(
        self,
        store: Store,
        ingress_urls: Mapping[str, str | None],
        *,
        site_token: str | None,
        tls: Callable[[], ssl.SSLContext],
        max_clock_skew_seconds: float,
        trust: RecordTrust,
        clock: Callable[[], float],
        on_poll: Callable[[str], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """`ingress_urls`: every site of the feed, and where its agent is asked. `clock` is the wall's.
        `tls` is for agents at `https://`. `on_poll("ok" | "failed")` and `on_refused(reason)` count.
        """
        self._on_poll = on_poll
        self._on_refused = on_refused
        self._store = store
        self._ingress_urls = dict(ingress_urls)
        self._headers = {"accept-encoding": "identity"}
        if site_token is not None:
            self._headers["authorization"] = f"Bearer {site_token}"
        self._tls = tls
        self._trust = trust
        self._clock = clock
        self._max_clock_skew_seconds = max_clock_skew_seconds
        self._kept = {
            site_id: _Kept(
                reports=RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds),
                infos=RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds),
            )
            for site_id in ingress_urls
        }
        self._plans = RecordJudge(max_clock_skew_seconds=max_clock_skew_seconds)
        self._plan: Plan | None = None
        self._raw_plan = b""
        self._plan_at = 0.0
        self._has_looked = False
        """Whether it is known what lay in the store when this feed began."""
        self._said_at: dict[str, float] = {}
        self._is_store_asked = asyncio.Event()
        """Once the store was read, or could not be."""

    def state(self, site_id: str, *, farm_id: str, is_listening: bool) -> SiteState:
        """What is known of a site now, its server aside."""
        kept = self._kept[site_id]
        return SiteState(
            info=kept.info,
            report=kept.report,
            heard_at=kept.heard_at,
            is_listening=is_listening,
            share=self.shares(farm_id, now=_now()).get(site_id),
        )

    def shares(self, farm_id: str, *, now: float) -> Mapping[str, float]:
        """The plan's shares of a farm, as long as the plan is valid; empty without one."""
        if self._plan is None or now - self._plan_at > self._plan.valid_for_seconds:
            return {}
        return self._plan.shares.get(farm_id, {})

    def report_state(self, site_id: str) -> records.SiteState | None:
        """As its last report says; None without one."""
        report = self._kept[site_id].report
        return None if report is None else report.state

    def episode_seconds(self, site_id: str) -> float | None:
        """Age of its ride-through when its last report came; None: it is in none, or does not say."""
        report = self._kept[site_id].report
        return None if report is None else report.power.episode_seconds

    def report_age_seconds(self, site_id: str) -> float:
        """Since its last report; infinite before the first."""
        heard_at = self._kept[site_id].heard_at
        return float("inf") if heard_at is None else max(0.0, _now() - heard_at)

    async def follow_store(self) -> None:
        """Read the store every second, for ever; that it is away is the store writer's to say."""
        while True:
            try:
                await self._reread()
            except StoreError as error:
                logger.debug("no records of sites: %s", error)
            self._is_store_asked.set()
            await asyncio.sleep(REREAD_SECONDS)

    async def poll_agents(self) -> None:
        """Ask the agents of sites that the store says nothing of, every second, for ever.

        First the store is asked, for a second at the most: a report alone does not say what a site idles at.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(REREAD_SECONDS):
                await self._is_store_asked.wait()
        while True:
            context = self._tls()
            async with self._client(context) as client:
                while True:
                    await self._poll_silent(client)
                    await asyncio.sleep(REREAD_SECONDS)
                    if self._tls() is not context:  # its files have changed
                        break

    def _client(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            timeout=POLL_TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=MAX_POLLS_AT_ONCE),
            trust_env=False,
            headers=self._headers,
            verify=context,
        )

    async def _poll_silent(self, client: httpx.AsyncClient) -> None:
        silent = [
            (site_id, url)
            for site_id, url in self._ingress_urls.items()
            if url is not None and _now() - self._kept[site_id].stored_at > SILENT_SECONDS
        ]
        for start in range(0, len(silent), MAX_POLLS_AT_ONCE):
            group = silent[start : start + MAX_POLLS_AT_ONCE]
            await asyncio.gather(*(self._poll(client, site_id, url) for site_id, url in group))

    async def _reread(self) -> None:
        ids: Sequence[str] = tuple(self._kept)
        # Both, and then at once: who has heard a site takes it that what it is is known.
        reports, infos = await self._store.site_reports(ids), await self._store.site_infos(ids)
        for site_id, report, info in zip(ids, reports, infos, strict=True):
            if info is not None:
                self._take_info(site_id, info)
            if report is not None:
                self._take_report(site_id, report, is_stored=True)
        raw_plan = await self._store.plan()
        if raw_plan is not None and raw_plan != self._raw_plan:
            self._raw_plan = raw_plan
            plan = self._judged(Plan, raw_plan, self._plans)
            if not isinstance(plan, str):
                self._plan, self._plan_at = plan, _now() - self._age_seconds(plan)
        self._has_looked = True

    def _age_seconds(self, plan: Plan) -> float:
        """A plan holds from its arrival here; one that lay there before the first look, by its own clock."""
        if self._has_looked:
            return 0.0
        age_seconds = self._clock() - plan.solved_at_unix_seconds
        return max(0.0, age_seconds) if age_seconds >= -self._max_clock_skew_seconds else math.inf

    async def _poll(self, client: httpx.AsyncClient, site_id: str, url: str) -> None:
        try:
            with errors_as(PollError, url):
                async with (
                    asyncio.timeout(POLL_TIMEOUT_SECONDS),
                    client.stream("GET", url + REPORT_PATH) as answer,
                ):
                    raw = b""
                    async for part in answer.aiter_raw():
                        raw += part
                        if len(raw) > MAX_RECORD_BYTES:
                            break
                is_ok = answer.status_code == 200
        except PollError as error:
            logger.debug("agent not reached", extra={"site": site_id, "error": str(error)})
            is_ok = False
        if not is_ok:
            self._on_poll("failed")
            return
        self._on_poll("ok")
        self._take_report(site_id, raw, is_stored=False)

    def _take_report(self, site_id: str, raw: bytes, *, is_stored: bool) -> None:
        kept = self._kept[site_id]
        if raw == kept.raw_report:
            return
        kept.raw_report = raw
        report = self._judged(SiteReport, raw, kept.reports, site_id)
        if not isinstance(report, str):
            kept.report, kept.heard_at = report, _now()
            if is_stored:
                kept.stored_at = _now()

    def _take_info(self, site_id: str, raw: bytes) -> None:
        kept = self._kept[site_id]
        if raw == kept.raw_info:
            return
        kept.raw_info = raw
        info = self._judged(SiteInfo, raw, kept.infos, site_id)
        if not isinstance(info, str):
            kept.info = info
        elif info == "second_writer":
            kept.raw_info = b""  # it is judged again: an agent that was restarted writes the next in a minute

    def _judged(self, kind: type[R], raw: bytes, judge: RecordJudge, site_id: str | None = None) -> R | str:
        """The record, or the reason why it is not used."""
        try:
            record = self._trust.read(kind, raw, unix_now=self._clock())
        except RecordError as error:
            self._refuse(error.reason, str(error))
            return error.reason
        if site_id is not None and getattr(record, "site_id", site_id) != site_id:
            self._refuse("wrong_site", f"{kind.kind} of another site under that of {site_id}")
            return "wrong_site"
        refusal = judge.judge(record, now=_now(), unix_now=self._clock())
        if refusal is None:
            return record
        if refusal.is_worth_saying:
            self._refuse(refusal.reason, f"{kind.kind}: {refusal.message}")
        return refusal.reason

    def _refuse(self, reason: str, message: str) -> None:
        self._on_refused(reason)
        if _now() - self._said_at.get(reason, float("-inf")) >= SAY_AGAIN_SECONDS:
            self._said_at[reason] = _now()
            logger.warning("a record is refused: %s", message, extra={"reason": reason})


def _now() -> float:
    return asyncio.get_running_loop().time()
