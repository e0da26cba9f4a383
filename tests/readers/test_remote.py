"""Slides behind addresses, from a real web server on this machine: the same pixels, by parts, and no hang."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import wsikit as wk
from wsikit.errors import SlideNotFoundError, WsikitError
from wsikit.location import is_remote, locate
from wsikit.run.cases import find_cases
from wsikit.testing.conformance import check_crops, check_digest, check_pickle, check_pixels, check_threads

pytest.importorskip("upath")
CHECKS = (check_crops, check_pickle, check_threads, check_digest)


class Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, in parts as a browser or fsspec asks for them."""

    sent = 0

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not path.is_file() or not asked:
            super().do_GET()
            return
        data = path.read_bytes()
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        part = data[start : end + 1]
        type(self).sent += len(part)
        self.send_response(206 if part else 416)
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Path], str]]:
    """The address of a folder."""
    servers = []

    def start(folder: Path, handler: type[SimpleHTTPRequestHandler] = Ranges) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("name", ["aperio.svs", "subifds.ome.tif", "levels.zarr", "picture.png"])
def test_the_same_slide_as_on_disk(name: str, made, serve) -> None:
    here = made(name)
    address = f"{serve(here.path.parent)}/{name}"
    for check in CHECKS:
        check(partial(wk.open_slide, address))
    check_pixels(partial(wk.open_slide, address), here.truth, here.error)
    with wk.open_slide(address) as slide:
        assert slide.mpp == (pytest.approx((here.mpp, here.mpp)) if here.mpp else None)
        if here.path.is_file():
            assert slide.digest == wk.open_slide(here.path).digest


def test_only_parts_travel(phantom, serve) -> None:
    """A view of a corner is not worth the whole file."""
    address = f"{serve(phantom.path.parent)}/{phantom.path.name}"
    with wk.open_slide(address) as slide:
        Ranges.sent = 0
        slide.read((0, 0, 256, 256))
        assert 0 < Ranges.sent < phantom.path.stat().st_size / 4


def test_scored_from_the_server_it_is_scored_the_same(phantom, serve, tmp_path: Path) -> None:
    address = f"{serve(phantom.path.parent)}/{phantom.path.name}"
    here, there = (wk.score([p], tmp_path / name, pipelines=["sts-subtype"]) for p, name in ((phantom.path, "here"), (address, "there")))
    a, b = (run.results["lms"]["pipelines"]["sts-subtype"] for run in (here, there))
    assert a["call"] == b["call"] == "LMS"
    assert a["probability"] == pytest.approx(b["probability"], abs=0.02)  # OpenSlide's pixels here, the tiles' own there
    assert there.results["lms"]["slide"]["digest"] == here.results["lms"]["slide"]["digest"]
    assert find_cases([address])[0].path == address


def test_a_csv_may_name_addresses(made, serve, tmp_path: Path) -> None:
    address = f"{serve(made('aperio.svs').path.parent)}/aperio.svs"
    (tmp_path / "cases.csv").write_text(f"path,patient\n{address},P1\n")
    (case,) = find_cases([tmp_path / "cases.csv"])
    assert (case.path, case.slide_id, case.patient) == (address, "aperio", "P1")


def test_what_is_not_there(serve, tmp_path: Path) -> None:
    address = serve(tmp_path)
    with pytest.raises(SlideNotFoundError, match="nothing is there, or its server does not answer"):
        wk.open_slide(f"{address}/a.svs")
    with pytest.raises(SlideNotFoundError, match="nothing is there, or its server does not answer"):
        wk.open_slide("http://127.0.0.1:9/a.svs")  # nobody listens


def test_a_server_that_breaks_off_is_an_error(made, serve) -> None:
    class Breaks(Ranges):
        broken = False

        def do_GET(self) -> None:
            if self.broken:
                self.send_error(500)
            else:
                super().do_GET()

    here = made("subifds.ome.tif")
    slide = wk.open_slide(f"{serve(here.path.parent, Breaks)}/{here.path.name}")
    Breaks.broken = True
    with pytest.raises(WsikitError, match=r"does not give bytes \d+ to \d+"):
        slide.read((0, 0, *slide.size))


def test_a_server_without_parts_still_serves(made, serve) -> None:
    class Whole(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    here = made("subifds.ome.tif")
    address = f"{serve(here.path.parent, Whole)}/{here.path.name}"
    try:
        slide = wk.open_slide(address)
    except WsikitError as e:
        assert address in str(e)
        return
    assert np.array_equal(slide.read((100, 100, 200, 200)), here.truth[100:300, 100:300])


@pytest.mark.parametrize("name", ["subifds.ome.tif", "levels.zarr"])
def test_object_stores_of_other_kinds(name: str, made) -> None:
    """fsspec's memory stands for s3:// and gs://, which speak the same interface."""
    import fsspec

    here = made(name)
    fsspec.filesystem("memory").put(str(here.path), f"/bucket/{name}", recursive=True)
    address = f"memory://bucket/{name}"
    assert is_remote(locate(address))
    check_pixels(partial(wk.open_slide, address), here.truth, here.error)
    assert wk.open_slide(address).digest == wk.open_slide(here.path).digest


def test_an_address_that_went_through_pathlib() -> None:
    assert str(locate(Path("https://host/a/b.svs"))) == "https://host/a/b.svs"
    assert not is_remote(locate("slides/a.svs"))
