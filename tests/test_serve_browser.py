"""The local web page in a real browser: dropped, pointed at, downloaded, and nobody else asked."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import write_tiny_model
from PIL import Image

from schnet.inference import Parser

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The command, in a process that notes every host which Python itself would reach.
SERVER = """
import sys
def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = args[1] if event == "socket.connect" else args[0]
        host = host[0] if isinstance(host, tuple) else host
        if str(host) not in ("127.0.0.1", "localhost"):
            with open(sys.argv[1], "a") as file:
                file.write(f"{event} {host}\\n")
sys.addaudithook(note)
from schnet.command.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def page_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a server with the tiny model, and its folder; it ends as SIGTERM asks it to."""
    pytest.importorskip("gradio", reason="Gradio is not installed: make env-extras")
    folder = tmp_path_factory.mktemp("serve")
    config, _ = write_tiny_model(folder)
    config.rename(folder / "config.yaml")
    command = [sys.executable, "-c", SERVER, str(folder / "hosts.txt"), "serve"]
    command += ["--weights", str(folder / "tiny.pth"), "--port", "0", "--device", "cpu"]
    with (
        open(folder / "log.txt", "w") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=REPOSITORY
        ) as server,
    ):
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line.startswith("open http://127.0.0.1:"), (folder / "log.txt").read_text()
            yield line.split()[1], folder
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=30)
    assert code == 0
    assert not (folder / "hosts.txt").exists(), (folder / "hosts.txt").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: make env-extras"
    )
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, page_address: tuple[str, Path]) -> Iterator[Any]:
    """The page, opened; at the end, what it asked for and said is looked at."""
    address = page_address[0]
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    errors: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    opened.goto(address)
    opened.wait_for_selector("#photo input[type=file]", state="attached")
    yield opened
    opened.close()
    own = (address, "data:", f"blob:{address}")
    assert [url for url in asked if not url.startswith(own)] == []
    assert len(asked) > 5
    assert errors == []


def _photo(path: Path, orientation: int = 1) -> Path:
    """Write a photo (400 x 300 as stored) in which the tiny model sees more than one part."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC).save(path, exif=exif)
    return path


def _parser(folder: Path) -> Parser:
    return Parser.load(folder / "tiny.pth", device="cpu")


def _upload(page: Any, path: Path) -> None:
    page.set_input_files("#photo input[type=file]", str(path))


def _point_at(page: Any, x: int, y: int, size: tuple[int, int]) -> str:
    """Move the mouse over a photo's pixel; the name that is shown."""
    box = page.locator("#viewer canvas").bounding_box()
    page.mouse.move(
        box["x"] + (x + 0.5) / size[0] * box["width"],
        box["y"] + (y + 0.5) / size[1] * box["height"],
    )
    return page.locator("#viewer .tip").inner_text()


def test_a_photo_is_parsed_named_and_downloaded(
    page: Any, page_address: tuple[str, Path], tmp_path: Path
) -> None:
    photo = _photo(tmp_path / "turned <b>.jpg", orientation=6)
    expected = _parser(page_address[1])(photo)
    assert expected.labels.shape == (400, 300)
    assert len(np.unique(expected.labels)) > 1
    _upload(page, photo)
    page.wait_for_selector("#viewer canvas", state="visible")

    for y, x in ((200, 150), (5, 5), (390, 290)):
        wanted = expected.classes[expected.labels[y, x]]
        assert _point_at(page, x, y, (300, 400)) == wanted
        assert page.locator("#viewer tr.pointed button").inner_text() == wanted

    areas = {name: area for name, area in expected.areas().items() if area}
    names = page.locator("#viewer td button").all_inner_texts()
    assert sorted(names) == sorted(areas)
    shares = page.locator("#viewer td.percent").all_inner_texts()
    largest = max((n for n in areas if n.lower() != "background"), key=areas.__getitem__)
    assert (names[0], shares[0]) == (largest, f"{areas[largest] / 1200:.1f} %")

    with page.expect_download() as waiting:
        page.click("#labels")
    assert waiting.value.suggested_filename.endswith("_parts.png")
    waiting.value.save_as(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as image:
        assert image.mode == "P"
        assert tuple(image.getpalette()[3:6]) == expected.palette[1]
        assert np.array_equal(np.asarray(image), expected.labels)
    with page.expect_download() as waiting:
        page.click("#overlay")
    waiting.value.save_as(tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as image:
        assert np.array_equal(np.asarray(image), expected.overlay())


def test_a_broken_file_is_named_and_the_next_photo_works(page: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(_photo(tmp_path / "whole.jpg").read_bytes()[:400])
    _upload(page, broken)
    alert = page.locator("#message [role=alert]")
    alert.wait_for(state="visible")
    told = alert.inner_text()
    assert told.startswith("the image broken.jpg cannot be read (")
    assert "/" not in told
    assert not page.locator("#viewer canvas").is_visible()
    assert not page.locator("#labels").is_visible()
    _upload(page, tmp_path / "whole.jpg")
    page.wait_for_selector("#viewer canvas", state="visible")
    alert.wait_for(state="hidden")


def test_a_large_photo_on_a_telephone(
    page: Any, page_address: tuple[str, Path], tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    with Image.open(_photo(tmp_path / "small.png")) as small:
        small.resize((4000, 3000)).save(tmp_path / "large.jpg")
    expected = _parser(page_address[1])(tmp_path / "large.jpg")
    _upload(page, tmp_path / "large.jpg")
    page.wait_for_selector("#viewer canvas", state="visible")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    shown = page.evaluate("(c => [c.width, c.height])(document.querySelector('#viewer canvas'))")
    assert shown == [1280, 960]
    box = page.locator("#viewer canvas").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert (
        _point_at(page, 2000, 1500, (4000, 3000)) == expected.classes[expected.labels[1500, 2000]]
    )


def test_other_hosts_are_refused_by_the_page_itself(
    page_address: tuple[str, Path], browser: Any
) -> None:
    """The policy holds where a page would ask: the list of requests above is not all there is."""
    opened = browser.new_page()
    opened.goto(page_address[0])
    answer = opened.evaluate(
        "fetch('http://127.0.0.1:9/').then(() => 'reached', error => String(error))"
    )
    violated = opened.evaluate(
        """new Promise(done => {
          document.addEventListener("securitypolicyviolation", e => done(e.violatedDirective));
          fetch("http://192.0.2.1/").catch(() => 0);
        })"""
    )
    opened.close()
    assert "TypeError" in answer
    assert violated == "connect-src"
