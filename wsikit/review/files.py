"""Reviews as files: corrections made in a table or in QuPath, and labels to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsikit.errors import LabelsError, UsageError
from wsikit.export.corrections import Shape, corrections, mask_of, point_labels, read_geojson
from wsikit.resolution import parse_number
from wsikit.review import Review
from wsikit.review.changes import LABELS, NAMES, Area, Change, Label, Move, Verdict
from wsikit.spreadsheet import read_rows

EXCLUDED = ("Ignore*", "Exclude", "Excluded")
SAME_PX = 0.02  # a GeoJSON of ours has two decimals
QUPATH = "from QuPath"  # the comment of what was said there
Said = list[tuple[Change, str]]


def from_table(path: Path, reviews: Mapping[str, Review]) -> dict[str, Said]:
    """What a CSV says of each slide, checked whole before anything of it is written; what already holds is left out.

    Columns: ``slide_id`` (not needed of a run with one slide), then ``x``, ``y`` (level-0 px) and ``label`` of an object, or ``pipeline`` and ``call``;
    ``pipeline`` of objects where several detectors ran; ``comment``.

    Raises
    ------
    LabelsError
        It cannot be read, or a line says something impossible; the message names the line.
    """
    said: dict[str, Said] = {}
    for row in read_rows(path)[1]:
        try:
            slide_id, change = _row(row, reviews)
        except (UsageError, ValueError) as e:
            raise LabelsError(f"{path}: line {row.line}: {e}") from e
        if not _holds(reviews[slide_id], change):
            said.setdefault(slide_id, []).append((change, row.get("comment", "")))
    return said


def _row(cell: Mapping[str, str], reviews: Mapping[str, Review]) -> tuple[str, Change]:
    slide_id = cell.get("slide_id") or (next(iter(reviews)) if len(reviews) == 1 else "")
    if slide_id not in reviews:
        raise UsageError(f"no reviewable slide of this run is called '{slide_id}'; there are: {', '.join(list(reviews)[:10])}")
    review, pipeline = reviews[slide_id], cell.get("pipeline", "")
    if call := cell.get("call"):
        if pipeline not in review.results:
            raise UsageError(f"no pipeline '{pipeline}' was scored; there are: {', '.join(review.results)}")
        return slide_id, review.verdict_of(pipeline, call)
    pipeline = pipeline or (review.detectors[0] if len(review.detectors) == 1 else "")
    review.objects(pipeline)
    label = cell.get("label", "")
    if label not in NAMES:
        raise UsageError(f"no label is called '{label}'; there are: {', '.join(NAMES)}")
    x, y = (parse_number(cell.get(name, "")) for name in "xy")
    if x is None or y is None:
        raise UsageError(f"x '{cell.get('x', '')}' and y '{cell.get('y', '')}' must be numbers: level-0 px")
    place = review.inside((x, y))
    return slide_id, Label(pipeline=pipeline, at=place, label=label, score=review.score_at(pipeline, place))


def _holds(review: Review, change: Change) -> bool:
    """Whether a person said just that before, and it stands."""
    if isinstance(change, Label):
        found = review.objects(change.pipeline)
        row = found.find(change.at)
        return row >= 0 and found.label[row] == NAMES.index(change.label)
    return isinstance(change, Verdict) and review.answer(change.pipeline).get("verdict", {}).get("call") == change.call


def from_qupath(path: Path, review: Review, pipeline: str) -> Said:
    """What a GeoJSON that went through QuPath says otherwise than the review so far.

    Detections that are gone, or of another class than Mitosis, become look-alikes; those of class Mitosis count, also where they were drawn anew
    or moved. Annotations of QuPath's class ``Ignore*``, or of ``Exclude``, are left out of everything. What was left alone says nothing, also where
    somebody said otherwise in napari meanwhile; only what QuPath took away before, and now has again, counts again.

    Raises
    ------
    LabelsError
        See `wsikit.export.corrections`.
    """
    shapes = list(read_geojson(path, review.store))
    said: Said = [(c, QUPATH) for c in (*_points(shapes, review, pipeline), *_areas(shapes, review))]
    return said


def _points(shapes: Sequence[Shape], review: Review, pipeline: str) -> Iterator[Change]:
    found = review.objects(pipeline)
    if review.results[pipeline]["status"] != "ok":  # what the model withheld was not exported, and cannot be missing
        for x, y, label in point_labels(shapes).itertuples(index=False):
            if not _holds(review, said := Label(pipeline=pipeline, at=(x, y), label=label, score=review.score_at(pipeline, (x, y)))):
                yield said
        return
    changed = corrections(shapes, review.store, pipeline)
    for row in changed.rejected[found.counts[changed.rejected]]:
        yield _label(review, pipeline, found.position[row], "lookalike")
    for row, at in zip(changed.row, changed.position, strict=True):
        known = row if row >= 0 else found.find((at[0], at[1]))
        if known < 0 or (not found.counts[known] and not _left_alone(review, pipeline, row)):
            yield _label(review, pipeline, at if known < 0 else found.position[known], "mitosis")
        if row >= 0 and np.abs(found.position[row] - at).max() > SAME_PX:
            x, y = found.position[row]
            yield Move(pipeline=pipeline, at=(float(x), float(y)), to=review.inside((at[0], at[1])))


def _left_alone(review: Review, pipeline: str, row: int) -> bool:
    """Whether the model counts the object and a person rejected it elsewhere than in QuPath, whose file does not know of that."""
    found = review.objects(pipeline)
    if row < 0 or not found.by_model[row]:
        return False
    said = (e for e in reversed(review.standing) if isinstance(e.change, Label) and e.change.pipeline == pipeline and found.find(e.change.at) == row)
    last = next(said, None)
    return last is not None and last.comment != QUPATH


def _label(review: Review, pipeline: str, at: np.ndarray, label: Any) -> Label:
    place = review.inside((at[0], at[1]))
    return Label(pipeline=pipeline, at=place, label=label, score=review.score_at(pipeline, place))


def _areas(shapes: Sequence[Shape], review: Review) -> Iterator[Area]:
    h, w = review.tissue.shape
    for shape in shapes:
        if shape.kind != "annotation" or shape.name not in EXCLUDED or shape.geometry.area <= 0:
            continue
        inside = mask_of([Shape("", "annotation", "", shape.geometry, {})], "", (w, h), review.downsample)
        if (review.tissue & inside).any():
            yield Area.of("exclude", shape.geometry)


def point_rows(review: Review, pipeline: str, slide: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What people said of objects, as ``wsikit train mitosis --labels`` takes it: columns of ``slide`` first. What nobody looked at is not in it."""
    if pipeline not in review.detectors:
        return
    found = review.objects(pipeline)
    for row in np.flatnonzero(found.label >= 0):
        name = NAMES[found.label[row]]
        if learnt := LABELS[name][1]:
            x, y = (round(float(v), 2) for v in found.position[row])
            yield {**slide, "x": x, "y": y, "label": learnt, "said": name, "slide_id": review.store.slide_id}


def call_rows(review: Review, pipeline: str, slide: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A person's call, as ``wsikit train`` takes it: columns of ``slide`` first."""
    if said := review.answer(pipeline).get("verdict"):
        yield {**slide, "label": said["call"]} | {k: said[k] for k in ("by", "time", "comment")} | {"slide_id": review.store.slide_id}
