"""The table of inference paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.api_paths import (
    DERENDER_PATH,
    PATHS,
    PUBLIC_PATHS,
    RENDER_PATH,
    USUAL_PATHS,
    Api,
    ResponseCall,
    allowed_methods,
    response_call,
    served_paths,
)

PAGE = Path(__file__).parents[3] / "docs" / "api.md"
CONTROL = re.compile(
    r"sleep|wake|pause|resume|abort|profile|lora|scale|weight|cache|rpc|server_info|render|fault|metrics"
)


def test_no_control_path_is_listed():
    """By their names. What sites tell routers of ids and grammars is none, and clients do not get it."""
    assert [path for path in PUBLIC_PATHS if CONTROL.search(path)] == []
    assert PATHS.keys() - PUBLIC_PATHS.keys() == {DERENDER_PATH, RENDER_PATH}
    assert allowed_methods(DERENDER_PATH) == allowed_methods(RENDER_PATH) == ()


def test_every_path_is_in_the_page():
    """docs/api.md has a row for each."""
    page = PAGE.read_text(encoding="utf-8")
    assert [path for path in PATHS if f"`{path}`" not in page] == []


def test_what_a_site_serves_is_the_meeting_of_table_and_engine():
    """Sorted; the models are the agent's own."""
    assert served_paths(("/sleep", "/v1/completions", "/rerank")) == (
        "/rerank",
        "/v1/completions",
        "/v1/models",
    )
    assert set(USUAL_PATHS) < set(PATHS)
    assert PATHS["/v1/audio/transcriptions"].api is Api.FORM


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/v1/responses/resp_1", ResponseCall(response_id="resp_1", action="read")),
        ("/v1/responses/resp-1.x/cancel", ResponseCall(response_id="resp-1.x", action="cancel")),
        ("/v1/responses/", None),
        ("/v1/responses", None),
        ("/v1/responses/.", None),
        ("/v1/responses/..", None),
        ("/v1/responses/%2e%2e", None),
        ("/v1/responses/a/b", None),
        ("/v1/responses/a/cancel/", None),
        ("/v1/responses//cancel", None),
        ("/v1/responses/" + "x" * 257, None),
        ("/v1/responses/a\u0660", None),
    ],
)
def test_calls_about_a_response(path: str, call: ResponseCall | None):
    """Nothing that a path could be resolved by."""
    assert response_call(path) == call
    assert allowed_methods(path) == (
        ("POST",) if path == "/v1/responses" else () if call is None else (call.method,)
    )
