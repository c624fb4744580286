"""What is known of one stream while it goes on elsewhere."""

from __future__ import annotations

from router.live.exchange import Exchange
from router.policy.resume_plan import ResumableRequest, ends_inside_a_character
from router.policy.stream_record import StreamRecord

MAX_IDS_TAKEN_BACK = 64
"""A character has four bytes at most; more are a run of bytes that are none."""


class Resume:
    """The state of one stream's resume."""

    __slots__ = (
        "by_text",
        "exchange",
        "first_max_model_len",
        "fruitless",
        "ids_taken_back",
        "is_power",
        "record",
        "request",
        "until",
    )

    def __init__(self, exchange: Exchange, record: StreamRecord, first_max_model_len: int | None) -> None:
        body, resumability = exchange.body, exchange.resumability
        assert resumability is not None
        self.exchange = exchange
        self.record = record
        self.first_max_model_len = first_max_model_len
        self.request = ResumableRequest(
            api=exchange.api,
            raw=exchange.request.body,
            resumability=resumability,
            include_usage=body.include_usage,
            asks_token_ids=body.asks_token_ids,
        )
        self.by_text = False
        self.fruitless = 0
        self.ids_taken_back = 0
        self.until = 0.0
        self.is_power = False

    def has_broken(self) -> None:
        """A site broke it off: what a grammar had begun and the client has not seen is begun anew."""
        if self.request.resumability.grammar and self.record.finish_reason is None:
            self.record.take_back_untold_ids()

    def may_take_back(self, sent: str) -> bool:
        """Whether the last id, half a character, is one of whose text the client has got nothing."""
        return self.ids_taken_back < MAX_IDS_TAKEN_BACK and not ends_inside_a_character(sent)
