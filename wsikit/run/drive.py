"""Drive a run: slides one after another, blocks through a bounded window, receipts as they come."""

from __future__ import annotations

import shutil
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from wsikit.clock import Clock
from wsikit.errors import EngineError, OutputError, WsikitError
from wsikit.grid import Block
from wsikit.readers._said import said
from wsikit.run.block import do_block
from wsikit.run.copies import Copies
from wsikit.run.engine import Pool
from wsikit.run.finish import finish_slide
from wsikit.run.job import Job
from wsikit.run.ledger import is_complete, missing_blocks, receipts_path
from wsikit.run.plan import QUALITY, Plan
from wsikit.run.prepare import load_plan, prepare_slide, store_path
from wsikit.run.results import Packed, failed_result, read_result, write_results
from wsikit.store import SlideStore
from wsikit.store.durable import digest_of, write_json
from wsikit.store.receipts import Receipt, append_receipt

CSV_SECONDS, CSV_SHARE = 2.0, 20  # how often the tables are rewritten while slides finish: with many slides that takes no more than a twentieth
LOW_BYTES, LOW_SHARE = 256 * 1024**2, 0.05  # of the disk, whichever is less: below it no further block is begun
WATCH_SECONDS = 20.0  # how often it is looked whether a worker hangs
PAUSE_SECONDS, LOOK_SECONDS = 600.0, 2.0  # how long a run waits for room, and how often it looks


@dataclass(frozen=True)
class Progress:
    """What just happened: ``planned`` (blocks to do, and their tiles), ``block`` (tiles, px of a block done), ``slide`` (status) or ``paused`` (reason).

    ``seconds`` are those that a worker took for it, all in all: somewhat more than its stages add up to.
    """

    kind: str
    slide_id: str
    blocks: int = 0
    tiles: int = 0
    px: float = 0.0
    seconds: float = 0.0
    status: str = ""
    reason: str = ""


@dataclass
class _Slide:
    slide_id: str
    todo: deque[tuple[Block, list[str]]] = field(default_factory=deque)
    running: int = 0
    plan: Plan | None = None
    failed: str = ""
    ended: bool = False


class _Task(NamedTuple):
    """A task of a slide: ``prepare``, ``block`` (which, and its stages) or ``finish``; ``alone`` when nothing runs beside it."""

    slide: _Slide
    kind: str
    arguments: tuple[Any, ...] = ()
    alone: bool = False


_WORK: dict[str, Callable[..., Any]] = {"prepare": prepare_slide, "block": do_block, "finish": finish_slide}


@dataclass
class Driver:
    """The state of a run; `run` carries it out."""

    folder: Path
    job: Job
    pool: Pool
    on_progress: Callable[[Progress], None]
    debug: bool = False
    pending: dict[Future[Any], _Task] = field(default_factory=dict)
    suspects: deque[_Task] = field(default_factory=deque)
    active: list[_Slide] = field(default_factory=list)
    results: Packed = field(default_factory=Packed)
    written: float = 0.0
    writing: float = 0.0
    watched: float = field(default_factory=monotonic)
    task_seconds: float = 1800.0
    clock: Clock = field(default_factory=Clock)
    copies: Copies | None = None
    before: int = 0  # slides of which an earlier pass had done something

    def run(self) -> Packed:
        """Work until every slide has a result; returns what the tables need of them, by id.

        Raises
        ------
        OutputError
            The disk is full or cannot be written; what is done is kept.
        EngineError
            The scheduler went away, or the GPU failed in this process; what is done is kept.
        KeyboardInterrupt
            The user stopped it; what is done is kept.
        """
        waiting = (_Slide(c.slide_id) for c in self.job.slides)
        try:
            while self._fill(waiting) or self.pending:
                done, _ = wait(self.pending, timeout=WATCH_SECONDS, return_when=FIRST_COMPLETED)
                self._watch()
                for future in done:
                    self._take(future, self.pending.pop(future))
                if monotonic() - self.written > max(CSV_SECONDS, CSV_SHARE * self.writing):
                    self._write_tables()
        finally:
            for future in self.pending:
                future.cancel()
            self._write_tables()
        return self.results

    @cached_property
    def _run(self) -> tuple[str, str]:
        """What each task starts with: the folder, as a worker elsewhere finds it, and the job's key, which takes a while for many slides."""
        return str(self.folder.absolute()), self.job.key

    def _write_tables(self) -> None:
        start = monotonic()
        write_results(self.folder, self.job, self.results)
        self.written = monotonic()
        self.writing = self.written - start

    def _fill(self, waiting: Iterator[_Slide]) -> bool:
        """Submit tasks up to the window: blocks of the earliest slide first, then the next slide, in the end what workers died of."""
        submitted = False
        while len(self.pending) < self.pool.window:
            slide = next((s for s in self.active if s.todo), None)
            self._wait_for_room()
            if slide is not None:
                self._submit(_Task(slide, "block", slide.todo.popleft()))
            elif (fresh := next(waiting, None)) is not None:
                self.active.append(fresh)
                self._submit(_Task(fresh, "prepare"))
            else:
                break
            submitted = True
        if not self.pending and self.suspects:
            self._submit(self.suspects.popleft()._replace(alone=True))
            submitted = True
        return submitted

    def _watch(self) -> None:
        if monotonic() - self.watched > WATCH_SECONDS:
            self.pool.end_stuck(self.task_seconds)
            self.watched = monotonic()

    def _wait_for_room(self) -> None:
        """Pause while the disk is almost full: an archive's night is not to end because something else filled it for a while.

        Raises
        ------
        OutputError
            It did not change.
        """
        since = monotonic()
        while (free := shutil.disk_usage(self.folder)).free < min(LOW_BYTES, LOW_SHARE * free.total):
            said = f"{self.folder}: only {free.free // 1024**2} MiB are free on this disk"
            if monotonic() - since > PAUSE_SECONDS:
                raise OutputError(f"{said}, {PAUSE_SECONDS / 60:.0f} minutes long; free some and run the same command again, finished blocks are kept")
            self.on_progress(Progress("paused", "", reason=f"{said}; waiting until there is more"))
            sleep(LOOK_SECONDS)

    def _submit(self, task: _Task) -> None:
        task.slide.running += 1
        submitted = self.pool.submit(_WORK[task.kind], *self._run, task.slide.slide_id, *task.arguments, of_block=task.kind == "block")
        self.pending[submitted] = task

    def _take(self, future: Future[Any], task: _Task) -> None:
        slide = task.slide
        slide.running -= 1
        try:
            result = future.result()
            self.clock.add(result.get("seconds", {}))
            spent = result["took"]
            if task.kind == "block":
                self._block_done(slide, task.arguments[0], task.arguments[1], result, spent)
            elif task.kind == "prepare":
                self._prepared(slide, spent)
            else:
                self._stored(slide, spent)
        except (OutputError, EngineError):
            raise
        except CancelledError as e:
            raise EngineError("the scheduler went away; what is done is kept, run the same command again to go on") from e
        except Exception as e:
            if type(e).__name__ == "KilledWorker" and not task.alone:
                self.suspects.append(task)  # perhaps a task beside it was to blame
                return
            slide.failed = slide.failed or reason_of(e, self.debug)
            slide.todo.clear()
        self._advance(slide)

    def _prepared(self, slide: _Slide, spent: float) -> None:
        path = store_path(self.folder, slide.slide_id)
        slide.plan = load_plan(str(path), digest_of(SlideStore(path).attributes))
        if is_complete(path, slide.plan, self.job):
            self.before += 1
            self._stored(slide, spent)
            return
        missing = missing_blocks(path, slide.plan)
        self.before += missing != slide.plan.work()
        slide.todo.extend(missing.items())
        tiles = sum(_tiles(slide.plan, block, names) for block, names in slide.todo)
        self.on_progress(Progress("planned", slide.slide_id, blocks=len(slide.todo), tiles=tiles, seconds=spent))

    def _block_done(self, slide: _Slide, block: Block, names: list[str], receipt: dict[str, Any], spent: float) -> None:
        append_receipt(receipts_path(store_path(self.folder, slide.slide_id)), Receipt.model_validate(receipt))
        assert slide.plan is not None
        side = slide.plan.blocks.side
        self.on_progress(Progress("block", slide.slide_id, tiles=_tiles(slide.plan, block, names), px=side[0] * side[1], seconds=spent))

    def _advance(self, slide: _Slide) -> None:
        """When nothing of a slide is left to do: put it together, or record why it failed."""
        if slide.todo or slide.running or slide.ended or any(t.slide is slide for t in self.suspects):
            return
        if slide.failed:
            result = failed_result(slide.slide_id, slide.failed)
            write_json(store_path(self.folder, slide.slide_id).with_suffix(".json"), result)
            self._ended(slide, result)
        else:
            self._submit(_Task(slide, "finish"))

    def _stored(self, slide: _Slide, spent: float) -> None:
        """The slide is finished: take the result that lies in the folder."""
        result = read_result(self.folder, slide.slide_id)
        assert result is not None
        self._ended(slide, result, spent)

    def _ended(self, slide: _Slide, result: dict[str, Any], spent: float = 0.0) -> None:
        slide.ended = True
        self.results.add(slide.slide_id, result)
        self.active = [s for s in self.active if s is not slide]
        if self.copies is not None:
            self.copies.slide(slide.slide_id)
        self.on_progress(Progress("slide", slide.slide_id, status=result["status"], reason=result["reason"], seconds=spent))


def _tiles(plan: Plan, block: Block, names: list[str]) -> int:
    return sum(len(plan.rows(name, block)) for name in names if name != QUALITY)


def reason_of(error: BaseException, debug: bool = False) -> str:
    """One line that tells a user why a slide failed; with ``debug``, the traceback goes to the terminal too."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, WsikitError):
        return str(error)
    if type(error).__name__ == "KilledWorker":
        return (
            "the worker processes that took this slide died or hung each time, also alone (out of memory, or a decoder that crashes or hangs); "
            "other slides were not affected"
        )
    return f"{type(error).__name__}: {said(error) if str(error).strip() else 'no message'} (run with --debug for the traceback)"
