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
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
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
        except (OSError, ValueError):
            return None
        return found

    def check(self) -> None:
        """Make the directory, and write there.

        Raises:
            OSError: either cannot be done.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self.directory):
            pass

    def keep(self, cell: Cell, result: Result) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: not at all.
        """
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
    on_unkept: Callable[[OSError], object] = lambda _error: None,
) -> Iterator[tuple[Cell, Result]]:
    """Each cell with its result, in whatever order they end; `on_progress(blocks done, of all)`.

    Where results cannot be kept, `on_unkept(error)` is told once and the batch goes on without. Raises
    whatever a cell raises, Ctrl-C too; cells that are done are kept, workers end at once.
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
    keep = _keeper(store, on_unkept)
    for cell, result in _run(waiting, resolve, jobs, lambda blocks: on_progress(done + blocks, total)):
        keep(cell, result)
        yield cell, result


def _keeper(store: Store | None, on_unkept: Callable[[OSError], object]) -> Callable[[Cell, Result], None]:
    """Keeps a result; the first error, here or there, is told and is the last."""

    def attempt(work: Callable[..., None], *arguments: Any) -> None:
        nonlocal store
        try:
            work(*arguments)
        except OSError as error:
            store = None
            on_unkept(error)

    def keep(cell: Cell, result: Result) -> None:
        if store is not None:
            attempt(store.keep, cell, result)

    if store is not None:
        attempt(store.check)
    return keep


def _run(
    cells: Sequence[Cell], resolve: Resolve, jobs: int, on_blocks: Callable[[int], object]
) -> Iterator[tuple[Cell, Result]]:
    """In worker processes, which are killed where the caller or a cell gives up: only the parent writes."""
    context = get_context("spawn")
    counter = context.Value("q", 0)
    others = set(active_children())
    with ProcessPoolExecutor(
        max_workers=min(jobs, len(cells)), mp_context=context, initializer=_begin_worker, initargs=(counter,)
    ) as pool:
        try:
            futures: dict[Future[Result], Cell] = {}
            with _no_interrupt():
                for cell in cells:
                    futures[pool.submit(_run_in_worker, cell, resolve)] = cell
            while futures:
                ended, _ = wait(futures, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                on_blocks(counter.value)
                for future in ended:
                    yield futures.pop(future), future.result()
        except BaseException:
            for worker in set(active_children()) - others:
                worker.kill()
            raise


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits till the end of it; processes begun in it never have it, not even while they import.

    Of the main thread. Blocked signals are inherited, but any other thread may still take one for Python.
    """
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    usual = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        signal.raise_signal(signal.SIGINT)


_counter: Any = None
_parent = 0


class OrphanError(Exception):
    """The batch is gone; nobody waits for this cell."""


def _begin_worker(counter: Any) -> None:
    """A worker counts its blocks where the parent reads them, and does not outlive it."""
    global _counter, _parent
    _counter, _parent = counter, os.getppid()
    if sys.platform == "linux":  # a parent that is killed tells nobody: an idle worker would wait for ever
        die_with_parent(_parent)


def _run_in_worker(cell: Cell, resolve: Resolve) -> Result:
    def count(_done: int, _total: int) -> None:
        with _counter.get_lock():
            _counter.value += 1
        if os.getppid() != _parent:
            raise OrphanError

    return run_cell(cell, resolve, count)
