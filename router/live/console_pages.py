"""The console over HTTP: one page with its three files, out of this package, and what they ask for.

Rule: the page asks nobody but the port that it came from, runs no script but its own, and may be framed by
nobody: its headers say so to the browser. The files are read once, at start.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse

from router.live.console import MAX_WATCHERS, Console

FILES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "sites.js": "text/javascript; charset=utf-8",
    "timeline.js": "text/javascript; charset=utf-8",
    "format.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
INDEX = "index.html"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
STREAM_HEADERS = NO_STORE | {"X-Accel-Buffering": "no"}


def console_routes(console: Console) -> APIRouter:
    """`/`, `/console` and its files, `/heron/v1/console` and its stream."""
    routes = APIRouter()
    folder = files("router.console") / "static"
    contents = {name: (folder / name).read_bytes() for name in (INDEX, *FILES)}

    @routes.api_route("/", methods=["GET", "HEAD"])
    @routes.api_route("/console", methods=["GET", "HEAD"])
    async def read_index() -> Response:
        """The page."""
        return Response(contents[INDEX], media_type="text/html; charset=utf-8", headers=HEADERS)

    @routes.api_route("/console/{name}", methods=["GET", "HEAD"])
    async def read_file(name: str) -> Response:
        """What the page is made of."""
        if name not in FILES:
            return JSONResponse({"error": "no such file"}, status_code=404, headers=HEADERS)
        return Response(contents[name], media_type=FILES[name], headers=HEADERS)

    @routes.get("/heron/v1/console")
    async def read_console() -> Response:
        """Everything that the page shows, once."""
        return Response(console.whole(), media_type="application/json", headers=NO_STORE)

    @routes.get("/heron/v1/console/stream")
    async def stream_console() -> Response:
        """The same, as server-sent events, one a second."""
        if console.watchers >= MAX_WATCHERS:
            message = f"{MAX_WATCHERS} consoles are open at this router already: close one"
            return JSONResponse({"error": message}, status_code=503, headers=NO_STORE | {"Retry-After": "5"})
        return StreamingResponse(console.stream(), media_type="text/event-stream", headers=STREAM_HEADERS)

    return routes
