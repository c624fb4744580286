"""Runs many cells over the cores, and keeps what is done: an interrupted experiment goes on where it was.

A finished cell is a file named by what it depends on (`Cell.key` with the state of the code and of the files
that it reads), written whole or not at all. Progress is block by block.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from fleet.parent import die_with_parent
from simulator.cell import Cell
from simulator.code_state import code_state, files_state
from simulator.inputs import blocks_of, files_of
from simulator.run import run_cell

Result = dict[str, Any]
Resolve = Callable[[str], Path]
POLL_SECONDS = 0.5
STOP = -(1 << 40)
"""Written over the count of blocks: workers end with the block that is under way."""


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """`$HERON_CACHE`, else `${XDG_CACHE_HOME:-~/.cache}/heron`, and `simulations` in it."""
    environment = os.environ if environment is None else environment
    if own := environment.get("HERON_CACHE"):
        return Path(own).expanduser() / "simulations"
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "heron" / "simulations"


@dataclass(frozen=True, slots=True)
class Store:
    """Finished cells on disk."""

    directory: Path
    resolve: Resolve
    """From a name to the file whose contents a result depends on."""

    def find(self, cell: Cell) -> Result | None:
        """A finished cell's result at this state of code and files; None: it has yet to run."""
        path = self._path(cell)
        try:
            found: Result = json.loads(path.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found

    def keep(self, cell: Cell, result: Result) -> None:
        """Write it whole or not at all."""
        path = self._path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump(result, file)
        Path(file.name).replace(path)

    def _path(self, cell: Cell) -> Path:
        key = cell.key(code_state(), files_state(files_of(cell, self.resolve)))
        return self.directory / key[:2] / f"{key}.json"


def run_batch(
    cells: Sequence[Cell],
    resolve: Resolve,
    *,
    jobs: int,
    store: Store | None,
    on_progress: Callable[[int, int], object] = lambda _blocks, _total: None,
) -> Iterator[tuple[Cell, Result]]:
    """Each cell with its result, in whatever order they end; `on_progress(blocks done, of all)`.

    Raises whatever a cell raises, Ctrl-C too; cells that are done are kept, workers end with their block.
    """
    sizes = {cell: len(blocks_of(cell)) for cell in cells}
    total, done = sum(sizes.values()), 0
    waiting: list[Cell] = []
    for cell in dict.fromkeys(cells):
        found = None if store is None else store.find(cell)
        if found is None:
            waiting.append(cell)
            continue
        done += sizes[cell]
        on_progress(done, total)
        yield cell, found
    if not waiting:
        return
    context = get_context("spawn")
    counter = context.Value("q", 0)
    before = done
    with ProcessPoolExecutor(
        max_workers=min(jobs, len(waiting)),
        mp_context=context,
        initializer=_begin_worker,
        initargs=(counter,),
    ) as pool:
        futures: dict[Future[Result], Cell] = {
            pool.submit(_run_in_worker, cell, resolve): cell for cell in waiting
        }
        try:
            while futures:
                ended, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                on_progress(before + counter.value, total)
                for future in ended:
                    cell = futures.pop(future)
                    result = future.result()
                    if store is not None:
                        store.keep(cell, result)
                    yield cell, result
        except BaseException:
            counter.value = STOP
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_counter: Any = None
_parent = 0


class StoppedError(Exception):
    """The batch is given up; what was under way is not kept."""


def _begin_worker(counter: Any) -> None:
    """A worker leaves Ctrl-C to its parent, and counts its blocks where the parent reads them."""
    global _counter, _parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _counter, _parent = counter, os.getppid()
    if sys.platform == "linux":  # a parent that is killed tells nobody: an idle worker would wait for ever
        die_with_parent(_parent)


def _run_in_worker(cell: Cell, resolve: Resolve) -> Result:
    def count(_done: int, _total: int) -> None:
        with _counter.get_lock():
            _counter.value += 1
            is_over = _counter.value < 0
        if is_over or os.getppid() != _parent:
            raise StoppedError

    return run_cell(cell, resolve, count)
