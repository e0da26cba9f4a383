"""Which slides are meant? Files, folders and CSVs become a list of cases, each with an id that is safe as a path."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from wsikit.errors import LabelsError, SlideNotFoundError, UsageError
from wsikit.location import is_remote, locate
from wsikit.readers._dicom import WHOLE_SLIDE, instance
from wsikit.readers.omezarr import is_group
from wsikit.resolution import MAX_MPP, MIN_MPP, is_believable, parse_number
from wsikit.spreadsheet import Row, read_rows

# .dcm is taken by folder; .vsi and .isyntax cannot be read, and are named rather than passed over
SUFFIXES = frozenset(
    ".svs .tif .tiff .ndpi .scn .mrxs .bif .vms .vmu .svslide .czi .qptiff .vsi .isyntax .jpg .jpeg .png .npy".split()  # noqa: SIM905 - it fits a line
)
_LOOKED_AT, _HEAD_BYTES, _STORE_BYTES = 100, 4096, 2**22  # slides, and bytes of each, to tell a run of phantoms
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_RESERVED = frozenset(["path", "slide", "slide_id", "patient", "mpp", "focal_plane", "expect_sha256"])


class Case(BaseModel):
    """One slide to score: where it is, what it is called, whose it is, an mpp over the file's, and the digest that its file must have."""

    model_config = ConfigDict(frozen=True)

    slide_id: str
    path: str
    patient: str = ""
    mpp: float | None = None
    mpp_source: str = "override"
    focal_plane: str | None = None
    expect_sha256: str = ""
    refused: str = ""  # why it cannot even be named
    extra: dict[str, str] = {}


def any_phantom(cases: Sequence[Case]) -> bool:
    """Whether one of the first slides says that it is a phantom, told from its first bytes: the file is not opened as a slide.

    Then the bundled models that know phantoms are the default; a real slide in the same run gets no answer of theirs.
    """
    return any(_says_phantom(Path(c.path)) for c in cases[:_LOOKED_AT] if not is_remote(locate(c.path)))


def _says_phantom(path: Path) -> bool:
    store = path / "zarr.json"
    try:
        with (store if store.is_file() else path).open("rb") as f:
            return b'"phantom": true' in f.read(_STORE_BYTES) if store.is_file() else b"wsikit phantom" in f.read(_HEAD_BYTES)
    except OSError:  # a folder, or a file that cannot be read, which the run will say
        return False


def find_cases(inputs: Sequence[str | Path], mpp_override: float | None = None, expect_sha256: str = "") -> list[Case]:
    """All slides of these files, folders and CSVs, in their order, each once.

    A CSV has a column ``path`` (relative to it, or absolute), and may have ``slide_id``, ``patient``, ``mpp``, ``focal_plane``, ``expect_sha256``
    and any others, which are kept. A folder is searched through, hidden files left out; one that holds the instances of a DICOM slide is one
    slide.

    Raises
    ------
    UsageError
        Nothing was given, a path is empty, a folder holds no slide, ``mpp_override`` is no slide's mpp, or ``expect_sha256`` is no digest or
        given for several slides.
    SlideNotFoundError
        A path does not exist.
    LabelsError
        A CSV cannot be used (the message says the line), or a slide is named twice with different facts.
    """
    if not inputs:
        raise UsageError("no slides were given; give files, folders or a CSV with a column 'path'")
    if mpp_override is not None and not is_believable(mpp_override):
        raise UsageError(f"--mpp-override {mpp_override:g}: µm/px of level 0 must be {MIN_MPP} to {MAX_MPP}, such as 0.25 for a 40x scan")
    rows = [row for item in inputs for row in _rows_of(item)]
    if mpp_override is not None:
        for row in rows:
            row.setdefault("mpp", mpp_override)
            row.setdefault("mpp_source", "override")
    if expect_sha256:
        if len(rows) != 1 or not _SHA256.fullmatch(expect_sha256):
            raise UsageError("--expect-sha256 takes the 64 hexadecimal digits of one slide; for several, give a CSV with a column 'expect_sha256'")
        rows[0].setdefault("expect_sha256", expect_sha256.lower())
    return _with_ids(_each_once(rows))


def _rows_of(given: str | Path) -> list[dict[str, Any]]:
    """The slides of one file, folder, address or CSV."""
    if isinstance(given, str) and not given.strip():
        raise UsageError("a path is empty; give files, folders ('.' for this one) or a CSV with a column 'path'")
    item = locate(given)
    if not item.exists():
        what = "nothing is there, or its server does not answer" if is_remote(item) else "no such file or folder"
        raise SlideNotFoundError(f"{item}: {what}; check the path")
    if is_group(item):
        return [{"path": item}]
    if item.suffix.lower() == ".csv":
        return _from_csv(item)
    if item.is_dir():
        found = list(_in_folder(item))
        if not found:
            raise UsageError(f"{item}: no slides in this folder; known are {' '.join(sorted(SUFFIXES))}, .zarr and DICOM")
        return [{"path": p} for p in found]
    return [{"path": item}]


def _in_folder(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    here = folder.resolve()
    if _is_run(folder) or here in above:  # a link can lead back to a folder that is being searched
        return
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if any(p.suffix.lower() == ".dcm" for p in entries if p.is_file()):
        yield from _dicom_slides(folder, [p for p in entries if p.suffix.lower() == ".dcm"])
    companions = {p.with_suffix("") for p in entries if p.suffix.lower() == ".mrxs"}
    for p in entries:
        if p.suffix == ".zarr" and is_group(p):
            yield p
        elif p.is_dir() and p not in companions and p.suffix not in (".zarr", ".parts"):
            yield from _in_folder(p, above | {here})
        elif p.is_file() and p.suffix.lower() in SUFFIXES:
            yield p


def _is_run(folder: Path) -> bool:
    """Whether a folder is what an earlier run left: its pictures are no slides."""
    return (folder / "run.json").is_file() and (folder / "slides").is_dir()


def _dicom_slides(folder: Path, files: list[Path]) -> Iterator[Path]:
    """The folder, when its slides are one; otherwise one file of each. Reports and labels are passed over, broken files are named."""
    headers = {file: instance(file) for file in files}
    slides: dict[str, Path] = {}
    for file, header in headers.items():
        if header is None:
            slides[file.name] = file
        elif header.sop_class == WHOLE_SLIDE and header.is_volume:
            slides.setdefault(header.series, file)
    yield from [folder] if len(slides) == 1 and len(files) > 1 and None not in headers.values() else slides.values()


def _from_csv(path: Path) -> list[dict[str, Any]]:
    header, rows = read_rows(path)
    if not rows:
        raise LabelsError(f"{path}: no slides in it; needs a header with a column 'path' and one line per slide")
    if not {"path", "slide"} & set(header):
        raise LabelsError(f"{path}: no column 'path' among its columns {', '.join(header)}; name the one with the slides so")
    return [_row(path, values) for values in rows]


def _row(csv_path: Path, values: Row) -> dict[str, Any]:
    number, given = values.line, values.get("path") or values.get("slide") or ""
    if not given:
        raise LabelsError(f"{csv_path}: line {number} has no path")
    row: dict[str, Any] = {
        "path": locate(given) if "://" in given else csv_path.parent / given,
        "extra": {k: v for k, v in values.items() if k not in _RESERVED},
    }
    row |= {k: values[k] for k in ("patient", "slide_id", "focal_plane") if values.get(k)}
    if values.get("mpp"):
        mpp = parse_number(values["mpp"])
        if mpp is None or not math.isfinite(mpp):
            raise LabelsError(f"{csv_path}: line {number}: mpp '{values['mpp']}' is not a number; give µm/px of level 0, or leave it empty")
        row |= {"mpp": mpp, "mpp_source": "csv"}
    if digest := values.get("expect_sha256"):
        if not _SHA256.fullmatch(digest):
            raise LabelsError(f"{csv_path}: line {number}: expect_sha256 is not the 64 hexadecimal digits of a SHA-256; correct it, or leave it empty")
        row["expect_sha256"] = digest.lower()
    return row


def _each_once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a slide that was named before: counted twice, it would narrow its patient's intervals."""
    found: dict[Path, dict[str, Any]] = {}
    for row in rows:
        first = found.setdefault(row["path"].resolve(), row)
        differing = [k for k in ("patient", "mpp", "slide_id", "focal_plane", "expect_sha256") if first.get(k) != row.get(k)]
        here, there = first.get("extra", {}), row.get("extra", {})
        if here and there:  # scores and risks rest on what is said of a slide
            differing += sorted(k for k in here.keys() | there.keys() if here.get(k, "") != there.get(k, ""))
        else:  # a folder says nothing, in whichever order they are given
            first["extra"] = here or there
        if differing:
            raise LabelsError(f"{row['path']}: named twice, with another {differing[0]}; keep one")
    return list(found.values())


def _with_ids(rows: Iterable[dict[str, Any]]) -> list[Case]:
    cases, taken = [], set[str]()
    for row in rows:
        wanted = safe_id(row.pop("slide_id", None) or _stem(row["path"]))
        unique, n = wanted, 1
        while unique.lower() in taken:  # some file systems fold case
            n += 1
            unique = f"{wanted}-{n}"
        taken.add(unique.lower())
        cases.append(Case(slide_id=unique, **row | _named(str(row["path"]))))
    return cases


def _named(path: str) -> dict[str, str]:
    """A path as text, and the refusal of one that is none."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return {"path": shown, "refused": f"{shown}: the file's name is not valid UTF-8, so no table could name it; rename the file"}
    return {"path": path}


def _stem(path: Path) -> str:
    name = path.resolve().name if path.name in ("", ".", "..") else path.name
    if path.is_dir() or is_group(path):
        return re.sub(r"(\.ome)?\.zarr$", "", name, flags=re.IGNORECASE) or name
    return re.sub(r"\.ome$", "", path.stem if path.suffix else name, flags=re.IGNORECASE)


def safe_id(text: str) -> str:
    """A name that is one path component on every system; letters lose their accents, however those are written in the file's name.

    >>> safe_id("../S 12/3.svs"), safe_id("Präparat 1"), safe_id("...")
    ('S_12_3.svs', 'Praparat_1', 'slide')
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:80].rstrip("._-")
    return cleaned or "slide"
