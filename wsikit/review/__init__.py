"""A person's review of a slide: kept beside what the models said, never instead of it.

`Review` holds the state and recounts; `wsikit.review.journal` keeps what was said; `wsikit.review.files` takes and gives tables and QuPath's GeoJSON.
No viewer is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from shapely.geometry.base import BaseGeometry

from wsikit.aggregate.counting import Counting, Grounds
from wsikit.aggregate.features import Inputs
from wsikit.aggregate.region import confined
from wsikit.aggregate.searched import searched
from wsikit.aggregate.survival import CoxRisk
from wsikit.errors import UsageError
from wsikit.export.corrections import Shape, mask_of
from wsikit.grid import on_mask
from wsikit.models import RISK_PIPELINE, Card
from wsikit.review.answers import call_again, count_again, with_verdict
from wsikit.review.changes import NAMES, Area, Change, Entry, Label, Move, Undo, Verdict
from wsikit.review.journal import Journal, journal_path
from wsikit.review.objects import UNSEEN, Objects
from wsikit.review.risk import follows, risk_again
from wsikit.store import SlideStore


class Review:
    """What people say of a slide, and the answers that follow from it.

    Parameters
    ----------
    store : the slide's store; its journal lies beside it
    cards : model cards by pipeline: thresholds, merging distance and hotspot area are theirs
    by : initials of who reviews; reading needs none
    results : the models' answers by pipeline; by default those of the store's result
    counting, facts : how the run counts mitoses, and what its cases say of the slide
    risk, inputs : the run's survival model, and what it measured on the slide's tiles

    Raises
    ------
    DamagedStoreError, StoreMismatchError
        The journal is damaged, or of another slide.

    Examples
    --------
    >>> review = open_review("out/", "a", by="AB")                      # doctest: +SKIP
    >>> review.label("mitosis", (10240.5, 8121.0), "lookalike")         # doctest: +SKIP
    >>> review.answer("mitosis")["count"]                               # doctest: +SKIP
    11
    """

    def __init__(
        self,
        store: SlideStore,
        cards: Mapping[str, Card],
        by: str = "",
        results: Mapping[str, Any] | None = None,
        *,
        counting: Counting | None = None,
        facts: Mapping[str, str] | None = None,
        risk: CoxRisk | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.counting, self.facts, self.risk, self.inputs = counting or Counting(), facts or {}, risk, inputs
        self.store, self.cards, self.by = store, cards, by
        self.results = store.result["pipelines"] if results is None else results
        raster = store.attributes["survey"]["raster"]
        self.downsample: tuple[float, float] = (raster["downsample"][0], raster["downsample"][1])
        name = self.counting.within
        self.within = confined(store, name, self.results.get(name)) if name else None
        self._tissue0 = (store.tissue() == 1) if self.within is None else (store.tissue() == 1) & self.within.mask
        self._grounds: dict[str, tuple[np.ndarray, Grounds]] = {}
        self._lost: dict[str, np.ndarray] = {}
        self._tables = store.tables()
        self._journal = Journal(journal_path(store.path), store.attributes["slide"]["digest"])
        self._fold()

    # what is

    @property
    def entries(self) -> list[Entry]:
        """All that was ever said, oldest first."""
        return self._journal.entries

    @property
    def standing(self) -> list[Entry]:
        """What was said and not taken back."""
        undone = {e.change.n for e in self.entries if isinstance(e.change, Undo)}
        return [e for e in self.entries if e.n not in undone and not isinstance(e.change, Undo)]

    @property
    def detectors(self) -> list[str]:
        """Pipelines with objects to review."""
        return [n for n, c in self.cards.items() if c.detection is not None and n in self._tables and "position" in self._tables[n]]

    @property
    def tissue(self) -> np.ndarray:
        """Where there is tissue to be counted, bool (H, W) on the low-power raster: the model's mask with people's corrections."""
        return self._tissue

    def grounds(self, pipeline: str) -> Grounds:
        """That tissue without what this pipeline has not seen well (damaged, blurred), but for what people drew; where windows are looked for."""
        known = self._grounds.get(pipeline)
        if known is None or known[0] is not self._tissue:
            if pipeline not in self._lost:
                self._lost[pipeline] = (self.store.tissue() == 1) & ~searched(self.store, pipeline).tissue
            known = self._tissue, Grounds(self._tissue & ~(self._lost[pipeline] & ~self._drawn), self.downsample, self.store.mpp)
            self._grounds[pipeline] = known
        return known[1]

    @property
    def gone(self) -> np.ndarray:
        """Tissue of the model's mask that people took away, bool (H, W)."""
        return self._tissue0 & ~self._tissue

    @property
    def outside(self) -> np.ndarray:
        """Where the answers were not looked for, since they were confined to a region: bool (H, W)."""
        return ~self._tissue0 if self.counting.within else np.zeros_like(self._tissue0)

    @property
    def added(self) -> np.ndarray:
        """Tissue that people added to the model's mask, bool (H, W)."""
        return self._tissue & ~self._tissue0

    @property
    def tissue_mm2(self) -> float:
        """Area of that tissue."""
        if self.counting.within:
            return float(self._tissue.sum()) * self._px_mm2
        return max(0.0, self._model_tissue_mm2 + self.tissue_change_mm2)

    @property
    def tissue_change_mm2(self) -> float:
        """By how much people made it larger (or, negative, smaller)."""
        return (int(self._tissue.sum()) - int(self._tissue0.sum())) * self._px_mm2

    @property
    def _px_mm2(self) -> float:
        return float(np.prod(self.downsample) * np.prod(self.store.mpp)) / 1e6

    @property
    def _model_tissue_mm2(self) -> float:
        return float(self.store.attributes["survey"]["tissue_mm2"])

    @property
    def unsearched_mm2(self) -> float:
        """Area of tissue that a person added, where no model has looked."""
        return float(self.added.sum()) * self._px_mm2

    def objects(self, pipeline: str) -> Objects:
        """The objects of a pipeline.

        Raises
        ------
        UsageError
            It has none.
        """
        if pipeline not in self._objects:
            if pipeline not in self.detectors:
                raise UsageError(f"{self.store.slide_id}: '{pipeline}' has no detections to review; there are: {', '.join(self.detectors) or '(none)'}")
            self._objects[pipeline] = self._load(pipeline)
        return self._objects[pipeline]

    def threshold(self, pipeline: str) -> float:
        """From which score on the model counts."""
        detection = self.cards[pipeline].detection
        assert detection is not None
        return detection.threshold

    def counted(self, pipeline: str) -> np.ndarray:
        """Which objects count: by their labels, or else the model, and on tissue; bool (M,)."""
        found = self.objects(pipeline)
        return found.counts & on_mask(found.position, self.grounds(pipeline).tissue, self.downsample)

    def answer(self, pipeline: str) -> dict[str, Any]:
        """A pipeline's answer with what people said, as the models' answers are written; ``model`` aside."""
        if pipeline not in self._answers:
            self._answers[pipeline] = self._answer(pipeline)
        return self._answers[pipeline]

    def _answer(self, pipeline: str) -> dict[str, Any]:
        verdict = next((e for e in reversed(self.standing) if isinstance(e.change, Verdict) and e.change.pipeline == pipeline), None)
        if pipeline in self.detectors:
            found = count_again(self, pipeline)
        elif self.edited and self._classifies(pipeline):
            found = call_again(self, pipeline, self._tables[pipeline])
        elif pipeline == RISK_PIPELINE and RISK_PIPELINE in self.touched:
            found = self._risk_again()
        else:
            found = {k: v for k, v in self.results[pipeline].items() if k != "model"}
        return with_verdict(found, verdict, self.results[pipeline].get("call"))

    @property
    def edited(self) -> bool:
        """Whether regions or tissue were changed."""
        return any(isinstance(e.change, Area) for e in self.standing)

    @property
    def touched(self) -> list[str]:
        """Pipelines whose answer a person had a part in."""
        edited = self.edited
        found = {e.change.pipeline for e in self.standing if isinstance(e.change, Label | Move | Verdict)}
        found |= {n for n in self.results if edited and (n in self.detectors or self._classifies(n))}
        if self.risk is not None and follows(self.risk.spec, found, edited):
            found.add(RISK_PIPELINE)
        return [n for n in self.results if n in found]

    def _risk_again(self) -> dict[str, Any]:
        """The risk from the answers as they are now."""
        if self.risk is None:  # only a person's word on it
            return {k: v for k, v in self.results[RISK_PIPELINE].items() if k != "model"}
        answers = {n: self.answer(n) | {"model": r["model"]} for n, r in self.results.items() if n != RISK_PIPELINE}
        tissue = max(0.0, self._model_tissue_mm2 + self.tissue_change_mm2)
        how: dict[str, Any] = {"edited": self.edited, "phantom": self.store.attributes["slide"]["phantom"], "counting": self.counting}
        return risk_again(self.risk, answers, tissue, self.inputs, self.facts, **how)

    def _classifies(self, pipeline: str) -> bool:
        return pipeline in self.cards and self.cards[pipeline].task == "classify" and pipeline in self._tables

    def summary(self) -> dict[str, Any] | None:
        """What belongs into the slide's result, beside the models' answers; None where nothing stands."""
        standing = self.standing
        if not standing:
            return None
        return {
            "by": sorted({e.by for e in standing}),
            "first": standing[0].time,
            "last": standing[-1].time,
            "changes": len(standing),
            "journal": self._journal.path.name,
            "journal_sum": self._journal.sum,
            "edited": self.edited,
            "tissue_mm2": round(self.tissue_mm2, 6),
            "tissue_change_mm2": round(self.tissue_change_mm2, 6),
            "unsearched_mm2": round(self.unsearched_mm2, 6),
            "pipelines": {name: self.answer(name) for name in self.touched if name in self.results},
        }

    # what is said

    def label(self, pipeline: str, at: tuple[float, float], label: str, comment: str = "") -> int:
        """Say what the object at ``at`` (level-0 px x, y) is, one of `NAMES`; where there is none, it is added. Returns its row.

        Raises
        ------
        UsageError
            There is no such label or pipeline, the place is beyond the slide, or the initials are missing.
        OutputError
            It cannot be written, and does not hold.
        """
        if label not in NAMES:
            raise UsageError(f"no label is called '{label}'; there are: {', '.join(NAMES)}")
        found, place = self.objects(pipeline), self.inside(at)
        self.say([(Label(pipeline=pipeline, at=place, label=label, score=self.score_at(pipeline, place)), comment)])
        return found.find(place)

    def score_at(self, pipeline: str, at: tuple[float, float]) -> float | None:
        """What the model gave the object at ``at``; None where it found none."""
        found = self.objects(pipeline)
        row = found.find(at)
        return float(found.score[row]) if 0 <= row < found.n_model else None

    def move(self, pipeline: str, at: tuple[float, float], to: tuple[float, float], comment: str = "") -> None:
        """Put the object at ``at`` to ``to``, level-0 px x, y.

        Raises
        ------
        UsageError, OutputError
            As for `label`; or nothing is there.
        """
        if self.objects(pipeline).find(at) < 0:
            raise UsageError(f"{self.store.slide_id}: no object of {pipeline} at x {at[0]:.0f}, y {at[1]:.0f}")
        self.say([(Move(pipeline=pipeline, at=self.inside(at), to=self.inside(to)), comment)])

    def area(self, effect: Literal["exclude", "tissue", "background"], shape: BaseGeometry, comment: str = "") -> None:
        """Leave a region (level-0 px) out of everything, or correct the tissue mask there.

        Raises
        ------
        UsageError
            The region encloses nothing, or the initials are missing.
        OutputError
            It cannot be written, and does not hold.
        """
        if shape.is_empty or shape.area <= 0:
            raise UsageError("a region that encloses nothing; draw around some tissue")
        self.say([(Area.of(effect, shape), comment)])

    def verdict(self, pipeline: str, call: str, comment: str = "") -> None:
        """Accept a pipeline's call, or overrule it by another.

        Raises
        ------
        UsageError
            No such pipeline was scored, the call is empty or too long, or the initials are missing.
        OutputError
            It cannot be written, and does not hold.
        """
        if pipeline not in self.results:
            raise UsageError(f"{self.store.slide_id}: no pipeline '{pipeline}' was scored; there are: {', '.join(self.results)}")
        if not 0 < len(call) <= 80:
            raise UsageError("a call has 1 to 80 letters")
        self.say([(self.verdict_of(pipeline, call), comment)])

    def verdict_of(self, pipeline: str, call: str) -> Verdict:
        """The verdict that a call is, beside the model's."""
        model = self.results[pipeline]
        agreed = model["status"] == "ok" and call == model.get("call")
        return Verdict(pipeline=pipeline, verdict="accepted" if agreed else "overruled", call=call)

    def undo(self, comment: str = "") -> Entry | None:
        """Take back the last change that stands; returns it, None when there is none.

        Raises
        ------
        UsageError, OutputError
            The initials are missing, or it cannot be written.
        """
        if not (standing := self.standing):
            return None
        self.say([(Undo(n=standing[-1].n), comment)])
        return standing[-1]

    # how

    def say(self, changes: Sequence[tuple[Change, str]]) -> None:
        """Write several changes at once, each with a comment; they are taken as they are.

        Raises
        ------
        UsageError, OutputError
            The initials are missing, or it cannot be written, and nothing holds.
        """
        known = len(self.entries)
        fresh = self._journal.append(changes, self.by)
        if len(self.entries) > known + len(fresh) or any(isinstance(c, Undo) for c, _ in changes):  # or somebody else wrote meanwhile
            self._fold()
        else:
            for entry in fresh:
                self._apply(entry)

    def _fold(self) -> None:
        self._objects: dict[str, Objects] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._tissue, self._drawn = self._tissue0, np.zeros_like(self._tissue0)  # the second: tissue by what people said
        for entry in self.standing:
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        self._answers, change = {}, entry.change
        if isinstance(change, Label | Move) and change.pipeline not in self.detectors:
            return  # said of a pipeline that this run did not score
        if isinstance(change, Label):
            self.objects(change.pipeline).say(change.at, change.label)
        elif isinstance(change, Move):
            self.objects(change.pipeline).move(change.at, change.to)
        elif isinstance(change, Area):
            h, w = self._tissue0.shape
            inside = mask_of([Shape("", "annotation", "", change.shape, {})], "", (w, h), self.downsample)
            drawn = change.effect == "tissue"
            self._tissue, self._drawn = (self._tissue | inside, self._drawn | inside) if drawn else (self._tissue & ~inside, self._drawn & ~inside)

    def _load(self, pipeline: str) -> Objects:
        table, detection = self._tables[pipeline], self.cards[pipeline].detection
        assert detection is not None
        score = table["score"]
        # where the model withholds its answer, nothing counts but what a person says
        answers = self.results.get(pipeline, {}).get("status") == "ok"
        counted = (score >= np.float32(detection.threshold)) & answers
        return Objects(table["position"], score, counted, self.store.mpp, detection.merge_um)

    def inside(self, at: tuple[float, float]) -> tuple[float, float]:
        """The place, level-0 px x, y.

        Raises
        ------
        UsageError
            It lies beyond the slide.
        """
        w, h = self.store.attributes["slide"]["size"]
        x, y = float(at[0]), float(at[1])
        if not (0 <= x < w and 0 <= y < h):
            raise UsageError(f"{self.store.slide_id}: x {x:.0f}, y {y:.0f} lies beyond the slide's {w} × {h} px")
        return x, y


__all__ = ["NAMES", "UNSEEN", "Review", "journal_path"]
