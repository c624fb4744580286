"""Whether an engine makes tokens: one with work that makes none is hung, whatever its health says. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from site_agent.engine_metrics import EngineMetrics


@dataclass(slots=True)
class Progress:
    """Of one engine; `observe` at every page of its metrics."""

    _tokens: float | None = None
    _since: float | None = None
    """When it was last seen to be idle or to have made a token."""
    _seen_at: float = 0.0
    """When its last page came: one that cannot be had says nothing."""

    def observe(self, page: EngineMetrics, now: float, *, unanswered: int = 0) -> None:
        """Take a page. What does not count tokens or requests is never taken to be hung.

        `unanswered`: our own requests there without a byte yet. vLLM's gauges are its core's own word, so a
        core that hangs before it takes one says that none is running.
        """
        if page.prompt_tokens is None or page.output_tokens is None or page.running_requests is None:
            self.forget()
            return
        if not page.running_requests and not unanswered:
            self.forget()
            return
        self._seen_at = now
        tokens = page.prompt_tokens + page.output_tokens
        if tokens != self._tokens or self._since is None:
            self._tokens, self._since = tokens, now

    def forget(self) -> None:
        """It has nothing to do, or is another engine now."""
        self._tokens = self._since = None

    @property
    def stalled_seconds(self) -> float:
        """How long it has had work and made nothing of it, up to its last page."""
        return 0.0 if self._since is None else self._seen_at - self._since
