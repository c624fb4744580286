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

    def observe(self, page: EngineMetrics, now: float) -> None:
        """Take a page. What does not count tokens or requests is never taken to be hung."""
        if page.prompt_tokens is None or page.output_tokens is None or not page.running_requests:
            self.forget()
            return
        tokens = page.prompt_tokens + page.output_tokens
        if tokens != self._tokens or self._since is None:
            self._tokens, self._since = tokens, now

    def forget(self) -> None:
        """It has nothing to do, or is another engine now."""
        self._tokens = self._since = None

    def stalled_seconds(self, now: float) -> float:
        """How long it has had work and made nothing of it."""
        return 0.0 if self._since is None else now - self._since
