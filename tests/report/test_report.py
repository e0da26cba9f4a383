"""Reports: nothing from outside becomes markup, nothing is loaded from elsewhere, and nobody is told more than was found."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsikit import RESEARCH_USE_ONLY
from wsikit.aggregate.grading import grade
from wsikit.aggregate.hotspot import Hotspot
from wsikit.errors import StoreMismatchError
from wsikit.report import answer, grading, write_reports
from wsikit.report.pictures import hotspot_picture, top_tiles
from wsikit.report.summary import distribution
from wsikit.run import Run

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
HERE = {"html", "head", "meta", "title", "style", "body", "p", "a", "h1", "h2", "div", "table", "thead", "tbody", "tr", "th", "td", "img", "code",
        "h3", "section", "figure", "figcaption", "span", "input", "label"}  # fmt: skip


class Page(HTMLParser):
    """The tags, links and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(folder: Path) -> dict[str, Page]:
    return {p.name: Page(p.read_text()) for p in sorted((folder / "reports").glob("*.html"))}


def hostile_run(scored: Run, folder: Path) -> Path:
    """A run whose every name and reason is hostile."""
    (folder / "slides").mkdir(parents=True)
    result = json.loads((scored.folder / "slides/lms.json").read_text())
    result["slide_id"] = "evil"
    result["slide"] |= {"vendor": EVIL, "reader": EVIL, "mpp_source": EVIL, "digest": EVIL}
    result["stain"] |= {"trusted": False, "reason": EVIL, "method": EVIL}
    call = result["pipelines"]["sts-subtype"]
    call |= {"call": EVIL, "probability": {EVIL: 0.7, "LMS": 0.3}}
    result["pipelines"]["mitosis"] |= {"status": "refused", "reason": EVIL}
    result["provenance"]["models"]["mitosis"] |= {"name": EVIL, "digest": EVIL}
    result["pipelines"]["survival"] |= {"endpoint": EVIL, "group": EVIL}
    (folder / "slides/evil.json").write_text(json.dumps(result))
    failed = {"slide_id": "failed", "status": "failed", "reason": EVIL, "pipelines": {}}
    (folder / "slides/failed.json").write_text(json.dumps(failed))
    run = json.loads((scored.folder / "run.json").read_text())
    run |= {"started": EVIL, "wsikit": EVIL}
    run["job"]["models"] |= {EVIL: run["job"]["models"]["mitosis"]}
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_names_labels_and_reasons_are_text_and_never_markup(scored: Run, tmp_path: Path) -> None:
    folder = hostile_run(scored, tmp_path / "run")
    write_reports(folder)
    found = pages(folder)
    assert set(found) == {"index.html", "evil.html", "failed.html"}
    for page in found.values():
        assert set(page.tags) <= HERE
        assert not [k for k, _ in page.attributes if k.startswith("on")]
        assert EVIL in page.text, "shown as it is, not dropped, not evaluated"
    assert found["evil.html"].text.count(EVIL) >= 8


def test_pages_load_nothing_and_say_research_use_only(scored: Run, tmp_path: Path) -> None:
    folder = hostile_run(scored, tmp_path / "run")
    write_reports(folder)
    for page in pages(folder).values():
        for key, value in page.attributes:
            if key in ("src", "href", "action", "data", "poster"):
                assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) or value in {"index.html", "evil.html", "failed.html"}
        assert ("http-equiv", "Content-Security-Policy") in page.attributes
        assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
        assert "url(" not in page.text
        assert "@import" not in page.text
        assert RESEARCH_USE_ONLY in page.text


def test_a_real_run_is_reported_with_its_numbers_and_its_picture(scored: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.zarr", "*.parts", "reports")))
    index = write_reports(folder)
    assert "Of this model: Knows synthetic tissue only." in re.sub(r"<[^>]*>", "", (folder / "reports/lms.html").read_text())
    assert index == folder / "reports/index.html"
    found = pages(folder)
    assert set(found) == {"index.html", "lms.html"}
    result = scored.results["lms"]
    page = found["lms.html"]
    curve, source = [v for k, v in page.attributes if k == "src"]
    assert Image.open(BytesIO(base64.b64decode(curve.removeprefix("data:image/png;base64,")))).size == (320, 190)
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == (scored.folder / "slides/lms.png").read_bytes()
    for text in (result["slide"]["digest"], f"{result['tissue_mm2']:.2f} mm²", "2560 × 2048 px", "0.5 × 0.5 µm/px, from tiff resolution"):
        assert text in page.text
    for name, pipeline in result["pipelines"].items():
        assert answer(pipeline) in page.text
        assert answer(pipeline) in found["index.html"].text
        assert result["provenance"]["models"][name]["digest"][:16] in page.text


def test_the_hotspot_and_the_tiles_are_pictures_of_the_kept_pixels(scored: Run, tmp_path: Path) -> None:
    store, result = scored.store("lms"), scored.results["lms"]["pipelines"]
    spot = hotspot_picture(store, "mitosis", result["mitosis"])
    assert spot is not None
    assert f"{result['mitosis']['hotspot']['count']} counted mitoses" in spot.alt
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(spot.source.split(",")[1]))))
    h = result["mitosis"]["hotspot"]
    pad = 0.05 * max(h["w"], h["h"])
    scale = shown.shape[1] / (min(2560, h["x"] + h["w"] + pad) - max(0, h["x"] - pad))
    table = store.tables()["mitosis"]
    for x, y in (table["position"][table["score"] >= 0.5] - (max(0, h["x"] - pad), max(0, h["y"] - pad))) * scale:
        ring = 24 * scale
        around = shown[int(y), [round(x - ring), round(x + ring)]].mean(-1)
        assert around.min() < 90, "a ring around each"
    tiles = top_tiles(store, result["sts-subtype"])
    p = store.tables()["sts-subtype"]["probability"][:, 1]
    n = min(8, len(p) // 2)
    expected = [f"for: {v:.2f}" for v in sorted(p, reverse=True)[:n]] + [f"against: {v:.2f}" for v in sorted(p)[:n]]
    assert [t.caption.split(" at ")[0] for t in tiles] == expected
    withheld = {"status": "abstained", "reason": "x", "hotspot": h, "call": "LMS"}
    assert hotspot_picture(store, "mitosis", withheld) is None
    assert top_tiles(store, withheld) == []


def test_a_damaged_store_leaves_the_rest_of_the_page(scored: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.parts", "reports")))
    shutil.rmtree(folder / "slides/lms.zarr/tables/mitosis/position/c")
    write_reports(folder)
    page = pages(folder)["lms.html"]
    assert "No pictures of the hotspot and of tiles" in page.text
    assert answer(scored.results["lms"]["pipelines"]["sts-subtype"]) in page.text


def test_every_picture_has_words_and_every_field_a_label(scored: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.parts", "reports")))
    write_reports(folder)
    page = pages(folder)["lms.html"]
    assert page.tags.count("img") == len([v for k, v in page.attributes if k == "alt" and v]) > 10
    assert page.tags.count("input") == page.tags.count("label") == 1


def contrast(a: str, b: str) -> float:
    """WCAG's contrast of two colours."""

    def luminance(text: str) -> float:
        h = text.lstrip("#")
        rgb = np.array([int(h[i : i + 2], 16) for i in (0, 2, 4)] if len(h) == 6 else [int(c * 2, 16) for c in h]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_can_be_read_light_dark_and_printed(scored: Run, tmp_path: Path) -> None:
    folder = hostile_run(scored, tmp_path / "run")
    write_reports(folder)
    css = (folder / "reports/index.html").read_text().split("<style>")[1].split("</style>")[0]
    themes = [dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{([^}]*)\}", css)]
    assert len(themes) == 3
    for theme in themes:
        for name in ("ink", "soft", "bar", "warn", "bad", "good"):
            for behind in ("paper", "card"):
                assert contrast(theme[name], theme[behind]) >= 4.5, (name, behind)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 3.9], [("0–1/mm²", 1), ("1–2/mm²", 0), ("2–3/mm²", 0), ("3–4/mm²", 1)]), ([0.0], [("0–1/mm²", 1)]), ([600.0, 90.0], None)],
)
def test_counts_are_put_into_ranges(values: list[float], expected: list[tuple[str, int]] | None) -> None:
    answers = [{"status": "ok", "per_mm2": v, "hotspot": {"per_mm2": v}} for v in values]
    results = [{"status": "ok", "pipelines": {"m": a}} for a in [*answers, {"status": "abstained"}]] + [{"status": "failed", "pipelines": {}}]
    found = distribution("m", results)
    assert found[-1] == ("abstained", 1)
    assert sum(n for _, n in found) == len(values) + 1
    if expected:
        assert found[:-1] == expected


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_chromium_shows_and_prints_the_page(scored: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.parts", "reports")))
    write_reports(folder)
    page = (folder / "reports/lms.html").as_uri()
    quiet = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,900"]

    def chromium(*arguments: str) -> None:
        subprocess.run([*quiet, *arguments, page], check=True, capture_output=True, timeout=120)

    corner = []
    for scheme in (1, 0):  # light, dark
        picture = tmp_path / f"{scheme}.png"
        chromium(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}")
        corner.append(np.asarray(Image.open(picture).convert("L"))[2, 2])
    assert corner[0] > 240
    assert corner[1] < 40
    chromium("--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'a.pdf'}")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_answers_in_words() -> None:
    call = {"status": "ok", "call": "LMS", "doubt": 0.1234, "n_tiles": 40, "probability": {"UPS": 0.1, "LMS": 0.9}}
    assert answer(call) == "LMS (doubt 0.12, 40 tiles; among these only: LMS 0.90, UPS 0.10)"
    spot = {"count": 9, "tissue_mm2": 2.0, "per_mm2": 4.5, "low": 2.06, "high": 8.54, "flags": ["partial"]}
    count = {"status": "ok", "count": 20, "area_mm2": 12.5, "per_mm2": 1.6, "low": 0.977, "high": 2.471, "hotspot": spot}
    assert answer(count) == (
        "20 mitoses in 12.50 mm², 1.6/mm² (95 % 1.0–2.5); densest window: 9 in 2.00 mm² of tissue, 4.5/mm² (2.1–8.5); less than 80 % of it is tissue"
    )  # fmt: skip
    risk = {"status": "ok", "risk": 0.456, "group": "high", "endpoint": "death", "survival": {"24 months": 0.8, "60 months": 0.55}}
    assert answer(risk) == "log hazard ratio 0.46 to the mean training patient, high group; without death: 0.80 at 24 months, 0.55 at 60 months"


def test_scores_in_words() -> None:
    facts = {"diagnosis": "leiomyosarcoma", "neoadjuvant": "no", "specimen": "biopsy"}
    spot = Hotspot(0, 0, 1, 1, 0.867, 6, 6.92, 2.5, 15.1, ("insufficient_area",))
    (said,) = grading({"grading": {"fnclcc": grade("fnclcc", spot, facts)}})
    assert said.startswith("FNCLCC mitotic score: 2 (1: ")
    assert "12 in 1.734 mm²; less tissue than was asked for; scaled up to the rule's area; its interval reaches another score; a biopsy: at least this)" in said
    (said,) = grading({"grading": {"fnclcc": grade("fnclcc", spot, facts | {"diagnosis": "ARMS"})}})
    assert said.startswith("FNCLCC mitotic score: not applicable, not used for arms")
    assert grading({"grading": {}}) == []


@pytest.mark.parametrize("status", ["abstained", "refused", "failed"])
def test_a_withheld_answer_shows_its_reason_and_no_number(status: str) -> None:
    withheld: dict[str, Any] = {"status": status, "reason": "too few tiles", "call": "LMS", "probability": {"LMS": 0.99}, "count": 7, "risk": 1.5}
    assert answer(withheld) == f"{status}: too few tiles"


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMismatchError, match="no results"):
        write_reports(tmp_path)
