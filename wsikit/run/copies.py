"""Copies of a run in an object store: each slide as soon as it is finished, tables and passport at the end.

Work is done in a folder with a file system, where files can be synced, renamed and locked; an object store has none of that. A slide's
receipts are copied after everything they speak of, so what has receipts there is whole, and a slide whose receipts are there already is not
copied again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wsikit.errors import OutputError, UsageError
from wsikit.location import is_remote, locate
from wsikit.run.job import RUN_FILE
from wsikit.run.results import TABLES

_AT_ONCE = 2  # slides; each is many files, which fsspec sends together


class Copies:
    """Where finished slides of a run's folder are copied to, in the background."""

    def __init__(self, folder: Path, address: str) -> None:
        """Look at the place before any work.

        Raises
        ------
        UsageError
            It is no address of an object store, or needs the extra ``cloud``.
        OutputError
            It cannot be written.
        """
        self._folder, self._place = folder, locate(address)
        if not is_remote(self._place):
            raise UsageError(f"{address}: copies go to an address such as s3://bucket/run; a folder on this machine is given with -o")
        self._threads = ThreadPoolExecutor(_AT_ONCE, "wsikit-copies")
        self._under_way: list[Future[None]] = []
        self._send([], [(b"wsikit", ".wsikit")])

    def slide(self, slide_id: str) -> None:
        """Begin to copy a finished slide, or one that failed, which is its reason only."""
        self._under_way.append(self._threads.submit(self._slide, slide_id))

    def finish(self) -> None:
        """Wait for all slides, then copy the tables and the passport.

        Raises
        ------
        OutputError
            Something could not be copied; everything is still in the run's folder.
        """
        self._threads.shutdown(wait=True)
        for done in self._under_way:
            done.result()
        self._send([self._folder / name for name in (*TABLES, RUN_FILE) if (self._folder / name).exists()])

    def _slide(self, slide_id: str) -> None:
        slides = self._folder / "slides"
        receipts = slides / f"{slide_id}.receipts.jsonl"
        if receipts.exists() and receipts.read_bytes() == self._there(f"slides/{receipts.name}"):
            return
        store = slides / f"{slide_id}.zarr"
        beside = [p for p in slides.glob(f"{slide_id}.*") if p.is_file() and p != receipts and p.stem == slide_id]
        self._send([*beside, *sorted(p for p in store.rglob("*") if p.is_file())])
        self._send([receipts] if receipts.exists() else [])

    def _there(self, name: str) -> bytes | None:
        place: Any = self._place
        try:
            return bytes(place.fs.cat_file(f"{place.path}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as e:  # each protocol has exceptions of its own
            raise self._failed(e) from e

    def _send(self, files: Iterable[Path], more: Iterable[tuple[bytes, str]] = ()) -> None:
        place: Any = self._place
        paths = list(files)
        try:
            for data, name in more:
                place.fs.pipe_file(f"{place.path}/{name}", data)
            if paths:
                place.fs.put([str(p) for p in paths], [f"{place.path}/{p.relative_to(self._folder).as_posix()}" for p in paths])
        except Exception as e:
            raise self._failed(e) from e

    def _failed(self, e: Exception) -> OutputError:
        return OutputError(
            f"{self._place}: cannot be written ({type(e).__name__}: {e}); everything is in {self._folder}, run the same command again to copy what is missing"
        )
