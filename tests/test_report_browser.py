"""The report in a real browser: no overflow, no request, no message, at all widths and in dark."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import shifted, write_run

from schnet.reporting.headline import ParameterRow
from schnet.reporting.report import Predictor, write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DARK, LIGHT = 0, 1
# Measures the framed report, whose text comes along as an attribute: frames of files are opaque to
# each other, and a policy forbids the report itself to run scripts, which is tested too.
PROBE = """<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:5000px" srcdoc="{page}"></iframe>
<script>
const messages = [];
const frame = document.getElementById("page");
frame.contentWindow.addEventListener("error", e => messages.push(e.message));
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement, outside = [];
  for (const node of page.querySelectorAll("body *")) {{
    if (node.closest(".scroll, pre, svg, .unseen")) continue;
    const box = node.getBoundingClientRect();
    if (box.width && (box.right > {width} + 1 || box.left < -1))
      outside.push(node.tagName + "." + node.className);
  }}
  const small = [...page.querySelectorAll("svg.chart text")]
    .map(node => node.getBoundingClientRect().height).filter(height => height < 9);
  const images = [...page.images];
  const told = {{
    width: root.scrollWidth, outside, small: small.length, messages,
    broken: images.filter(i => !i.naturalWidth).length, images: images.length,
    loaded: performance.getEntriesByType("resource").length
      + frame.contentWindow.performance.getEntriesByType("resource")
        .filter(entry => !entry.name.startsWith("data:")).length,
    scripts: page.scripts.length
  }};
  document.title = JSON.stringify(told);
}};
</script></body></html>"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = write_run(folder / "run", folder / "data", "TEST.SAMPLE_IMAGES", "2")
    rows = [ParameterRow("backbone.encoder", 0, 308_278_272), ParameterRow("head", 9_400_123, 0)]
    return write_report(run, Predictor(shifted, "model_best.pth"), rows)


def _run(browser: str, folder: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}"),
        *("--enable-logging=stderr", "--v=0", *options, url),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def _console(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [380, 768, 1280, 1600])
def test_nothing_overflows_is_fetched_or_complains(
    browser: str, report: Path, tmp_path: Path, width: int
) -> None:
    page = html.escape(report.read_text(encoding="utf-8"))
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=width, page=page), encoding="utf-8")
    done = _run(
        browser,
        tmp_path / "profile",
        probe.as_uri(),
        *("--dump-dom", "--virtual-time-budget=5000", f"--window-size={max(width, 500)},900"),
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    told = html.unescape(title.group(1))
    wanted = (
        f'{{"width":{width},"outside":[],"small":0,"messages":[],"broken":0,"images":12,'
        '"loaded":0,"scripts":0}'
    )
    assert told == wanted
    assert not _console(done.stderr)


@pytest.mark.parametrize("width", [380, 1280])
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_pictures_of_the_page(
    browser: str, report: Path, tmp_path: Path, width: int, scheme: int
) -> None:
    picture = tmp_path / "shot.png"
    done = _run(
        browser,
        tmp_path / "profile",
        report.as_uri(),
        f"--screenshot={picture}",
        f"--window-size={width},2400",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    assert not _console(done.stderr)
    with Image.open(picture) as image:
        grey = np.asarray(image.convert("L"), dtype=np.float64)
    assert grey.shape == (2400, width)
    paper = np.median(grey)
    assert paper < 40 if scheme == DARK else paper > 240
    # Text and curves stand out from the paper.
    assert np.abs(grey - paper).max() > 180
    assert (np.abs(grey - paper) > 100).mean() > 0.005


def test_the_browser_sees_a_page_that_breaks_its_policy(browser: str, tmp_path: Path) -> None:
    """The console is read where there is something to read: the tests above are not blind."""
    page = tmp_path / "page.html"
    page.write_text(
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
        "<img src='http://127.0.0.1:9/x.png'>",
        encoding="utf-8",
    )
    done = _run(browser, tmp_path / "profile", page.as_uri(), "--dump-dom")
    assert _console(done.stderr)
