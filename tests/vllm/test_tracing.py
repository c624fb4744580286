"""One trace from the client over the router into a real vLLM engine, which exports its own spans."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from support.otlp_receiver import otlp_receiver_thread
from support.vllm_fleet import MODEL, vllm_fleet, wait_until

from tests.vllm.conftest import vllm_and_model

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not os.environ.get("HERON_VLLM_COMMAND"),
        reason="HERON_VLLM_COMMAND is not set: scripts/test-vllm installs vLLM's CPU build and runs this",
    ),
]
TRACE, PARENT = "c" * 32, "d" * 16


def test_the_engines_span_hangs_below_the_routers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The client's span, the router's, its attempt at the site, and the engine's request: one chain."""
    with otlp_receiver_thread() as collector:
        url = f"{collector.endpoint}/v1/traces"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url)
        with vllm_fleet(
            tmp_path,
            *vllm_and_model(),
            sites=("north",),
            arguments=["--otlp-traces-endpoint", url],
            environment={"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_SERVICE_NAME": "vllm"},
        ) as fleet:
            answer = httpx.post(
                f"{fleet.base_url}/completions",
                json={"model": MODEL, "prompt": "wind", "max_tokens": 4},
                headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
                timeout=60,
            )
            assert answer.status_code == 200
            wait_until(
                lambda: {"heron-router", "vllm"} <= {span.service for span in collector.spans},
                seconds=60,
                what=lambda: f"spans of both: {collector.spans}\n{fleet.tails()}",
            )
        [request] = collector.roots()[:1]
        [attempt] = collector.parts_of(request)
        engines = [span for span in collector.spans if span.service == "vllm" and span.trace_id == TRACE]
        assert (request.trace_id, request.parent_id) == (TRACE, PARENT)
        assert attempt.name == "site north"
        assert any(span.parent_id == attempt.span_id for span in engines), engines
