"""Drive a run: slides one after another, blocks through a bounded window, receipts as they come."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from wsikit.errors import OutputError, WsikitError
from wsikit.grid import Block
from wsikit.run.block import do_block
from wsikit.run.engine import Pool
from wsikit.run.finish import finish_slide
from wsikit.run.job import Job
from wsikit.run.ledger import is_complete, missing_blocks, receipts_path
from wsikit.run.plan import Plan
from wsikit.run.prepare import load_plan, prepare_slide, store_path
from wsikit.run.results import failed_result, read_result, write_results
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of, write_json
from wsikit.store.receipts import Receipt, append_receipt

CSV_SECONDS = 2.0  # how often the tables are rewritten while slides finish


@dataclass(frozen=True)
class Progress:
    """What just happened: ``planned`` (n blocks to do, of how many), ``block`` (n tiles, px of a block done) or ``slide`` (status)."""

    kind: str
    slide_id: str
    blocks: int = 0
    tiles: int = 0
    px: float = 0.0
    status: str = ""
    reason: str = ""


@dataclass
class _Slide:
    slide_id: str
    todo: deque[tuple[Block, list[str]]] = field(default_factory=deque)
    running: int = 0
    plan: Plan | None = None
    failed: str = ""
    finishing: bool = False


@dataclass
class Driver:
    """The state of a run; `run` carries it out."""

    folder: Path
    job: Job
    pool: Pool
    on_progress: Callable[[Progress], None]
    debug: bool = False
    pending: dict[Future[Any], tuple[_Slide, str, Any]] = field(default_factory=dict)
    active: list[_Slide] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: float = 0.0

    def run(self) -> dict[str, dict[str, Any]]:
        """Work until every slide has a result; returns them by id.

        Raises
        ------
        OutputError
            The disk is full or cannot be written; what is done is kept.
        KeyboardInterrupt
            The user stopped it; what is done is kept.
        """
        waiting = iter([_Slide(c.slide_id) for c in self.job.slides])
        try:
            while self._fill(waiting) or self.pending:
                done, _ = wait(self.pending, return_when=FIRST_COMPLETED)
                for future in done:
                    self._take(future, *self.pending.pop(future))
                if monotonic() - self.written > CSV_SECONDS:
                    self._write_tables()
        finally:
            for future in self.pending:
                future.cancel()
            self._write_tables()
        return {c.slide_id: self.results[c.slide_id] for c in self.job.slides}

    @cached_property
    def _run(self) -> tuple[str, str]:
        """What each task starts with: the folder, as a worker elsewhere finds it, and the job's key, which takes a while for many slides."""
        return str(self.folder.absolute()), self.job.key

    def _write_tables(self) -> None:
        write_results(self.folder, self.job, self.results)
        self.written = monotonic()

    def _fill(self, waiting: Iterator[_Slide]) -> bool:
        """Submit tasks up to the window: blocks of the earliest slide first, then the next slide."""
        submitted = False
        while len(self.pending) < self.pool.window:
            slide = next((s for s in self.active if s.todo), None)
            if slide is not None:
                block, names = slide.todo.popleft()
                self._submit(slide, "block", (block, names), do_block, block, names)
            elif (fresh := next(waiting, None)) is not None:
                self.active.append(fresh)
                self._submit(fresh, "prepare", None, prepare_slide)
            else:
                break
            submitted = True
        return submitted

    def _submit(self, slide: _Slide, kind: str, about: Any, task: Callable[..., Any], *args: Any) -> None:
        slide.running += 1
        self.pending[self.pool.executor.submit(task, *self._run, slide.slide_id, *args)] = (slide, kind, about)

    def _take(self, future: Future[Any], slide: _Slide, kind: str, about: Any) -> None:
        slide.running -= 1
        try:
            result = future.result()
            if kind == "block":
                self._block_done(slide, about, result)
            elif kind == "prepare":
                self._prepared(slide)
            else:
                self._stored(slide)
                return
        except OutputError:
            raise
        except Exception as e:
            slide.failed = slide.failed or reason_of(e, self.debug)
            slide.todo.clear()
        self._advance(slide)

    def _prepared(self, slide: _Slide) -> None:
        path = store_path(self.folder, slide.slide_id)
        slide.plan = load_plan(str(path), digest_of(SlideStore(path).attributes))
        if is_complete(path, slide.plan, self.job):
            slide.finishing = True
            self._stored(slide)
            return
        slide.todo.extend(missing_blocks(path, slide.plan).items())
        self.on_progress(Progress("planned", slide.slide_id, blocks=len(slide.todo)))

    def _block_done(self, slide: _Slide, about: tuple[Block, list[str]], receipt: dict[str, Any]) -> None:
        append_receipt(receipts_path(store_path(self.folder, slide.slide_id)), Receipt.model_validate(receipt))
        assert slide.plan is not None
        block, names = about
        tiles = sum(len(slide.plan.rows(name, block)) for name in names)
        side = slide.plan.blocks.side
        self.on_progress(Progress("block", slide.slide_id, tiles=tiles, px=side[0] * side[1]))

    def _advance(self, slide: _Slide) -> None:
        """When nothing of a slide is left to do: put it together, or record why it failed."""
        if slide.todo or slide.running or slide.finishing:
            return
        slide.finishing = True
        if slide.failed:
            result = failed_result(slide.slide_id, slide.failed)
            write_json(store_path(self.folder, slide.slide_id).with_suffix(".json"), result)
            self._ended(slide, result)
        else:
            self._submit(slide, "finish", None, finish_slide)

    def _stored(self, slide: _Slide) -> None:
        """The slide is finished: take the result that lies in the folder."""
        result = read_result(self.folder, slide.slide_id)
        assert result is not None
        self._ended(slide, result)

    def _ended(self, slide: _Slide, result: dict[str, Any]) -> None:
        self.results[slide.slide_id] = result
        self.active = [s for s in self.active if s is not slide]
        self.on_progress(Progress("slide", slide.slide_id, status=result["status"], reason=result["reason"]))


def reason_of(error: BaseException, debug: bool = False) -> str:
    """One line that tells a user why a slide failed; with ``debug``, the traceback goes to the terminal too."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, WsikitError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return "the worker processes that took this slide died each time (out of memory, or a crash in a decoder); the other slides were not affected"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'} (run with --debug for the traceback)"
