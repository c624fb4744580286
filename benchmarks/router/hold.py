"""For profiling by hand: one proxy with all that it needs, held until Ctrl-C; and load on it.

.venv/bin/python -m benchmarks.router.hold heron
.venv/bin/python -m benchmarks.router.hold --drive requests --port PORT --seconds 20
"""

from __future__ import annotations

import signal
import sys

from benchmarks.router import arguments, load, measure
from benchmarks.router.__main__ import ALL
from benchmarks.router.process import run_command


def main() -> int:
    """Exit 0."""
    parser = arguments.parser("benchmarks.router.hold", __doc__, seconds=10.0)
    parser.add_argument("name", nargs="?", default="heron", choices=[peer.name for peer in ALL])
    parser.add_argument("--drive", choices=["requests", "streams"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--connections", type=int)
    options = parser.parse_args()
    setting = arguments.setting(options)
    if options.drive is not None:
        if options.port is None:
            parser.error("--drive needs --port")
        if options.drive == "requests":
            print(measure.requests(setting, options.port, options.connections or measure.CONNECTIONS))
        else:
            print(measure.paced_streams(setting, options.port, options.connections or 200))
        return 0
    peer = next(peer for peer in ALL if peer.name == options.name)
    with measure.upstream(setting) as ports, measure.proxy(peer, setting, ports) as (process, place):
        print(f"{peer.name} listens on port {place.port}, pid {process.pid}; upstream ports {ports}")
        print(f"its log: {process.log}; a body: {load.body().decode()}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
