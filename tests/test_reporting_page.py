"""The report as a page: whole, without what is missing, with hostile names, and its size."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsing_fakes import load_script
from PIL import Image
from report_runs import (
    CLASSES,
    DATASET,
    doll_labels,
    register_dolls,
    shifted,
    step_records,
    write_config,
    write_evaluation,
    write_metrics,
    write_run,
)

from schnet.data.catalog import SPECS
from schnet.errors import InputError
from schnet.evaluation.per_image import ImageScore
from schnet.reporting import examples as examples_module
from schnet.reporting import report as report_module
from schnet.reporting.confusion_chart import largest_confusions
from schnet.reporting.examples import Example, best_and_worst, encode_within
from schnet.reporting.headline import ParameterRow
from schnet.reporting.report import Predictor, write_report
from schnet.reporting.run_files import read_evaluation
from schnet.visualization import ByteArray

PARAMETERS = [ParameterRow("backbone", 1_200, 300_000), ParameterRow("clip", 0, 98_800)]
VOID = {"meta", "img", "br", "link"}


class _Page(HTMLParser):
    """Checks the nesting of a page and collects its text, tags and attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def _predictor() -> Predictor:
    return Predictor(shifted, "model_best.pth")


def test_a_whole_report_needs_nothing_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", "TEST.SAMPLE_IMAGES", "2")
    path = write_report(run, _predictor(), PARAMETERS)
    assert path == run / "report.html"
    page = _Page(path)
    assert "script" not in page.tags and "link" not in page.tags
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:image/")
    assert "url(" not in page.source and "@import" not in page.source
    assert any(value.startswith("default-src 'none'") for _, value in page.attributes)
    assert page.tags.count("h1") == 1
    assert path.stat().st_size < 3_000_000
    assert "Finished." in page.text
    assert "resumed at iteration 700" in page.text
    assert "0.3 % of the model" in page.text
    assert "400,000" not in page.text and "398,800" in page.text
    assert sum("validation loss" in words for words in page.words) >= 1


def test_numbers_are_those_of_the_evaluation(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    page = _Page(write_report(run))
    content = json.loads((run / "inference" / DATASET / "evaluation.json").read_text())
    metrics = content["sem_seg"]
    rows = re.findall(r"<tr><th scope=\"row\"><span class=\"swatch\".*?</tr>", page.source)
    assert len(rows) == 20
    for name, row in zip(CLASSES, rows, strict=True):
        wanted = [metrics[f"{metric}-{name}"] for metric in ("IoU", "Precision", "Recall", "BF")]
        cells = re.findall(r"class=\"number\">([^<]*)<", row)
        assert cells == ["–" if value is None else f"{value:.2f}" for value in wanted]
        assert f"width:{metrics[f'IoU-{name}'] or 0:.2f}%" in row
    for name in ("mIoU", "pACC", "mACC", "fwIoU", "mBF"):
        assert f"{name} {metrics[name]:.2f}" in page.text
    # Of the curve, whose best is not the last.
    best = max(
        (json.loads(line) for line in (run / "metrics.json").read_text().splitlines()),
        key=lambda record: record.get("sem_seg/mIoU", 0),
    )
    assert f"{best['sem_seg/mIoU']:.2f} %" in page.text
    assert f"at iteration {best['iteration']:,}" in page.text
    assert "the best mIoU was reached earlier" in page.text
    colors = SPECS["dolls"].palette
    assert f"background:rgb({','.join(map(str, colors[7]))})" in rows[7]


def test_pictures_are_the_best_and_the_worst(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", "TEST.SAMPLE_IMAGES", "2")
    seen: list[str] = []

    def predict(entry: Mapping[str, Any]) -> ByteArray:
        seen.append(str(entry["image_id"]))
        return shifted(entry)

    page = _Page(write_report(run, Predictor(predict, "model_best.pth")))
    # The truth moved by so many pixels: image 0 is right, and what is moved furthest is worst.
    assert seen[:2] == ["val_0", "val_1"]
    assert len(set(seen)) == 4
    captions = re.findall(r"mIoU ([0-9.]+) %</span> · (\w+)<", page.source)
    assert [name for _, name in captions] == seen
    evaluation = read_evaluation(run / "inference" / DATASET / "evaluation.json")
    assert evaluation.scores is not None
    scores = {score.image_id: f"{score.mIoU:.2f}" for score in evaluation.scores}
    assert {name: value for value, name in captions} == {name: scores[name] for name in seen}
    assert "in the evaluation above" not in page.text
    pictures = re.findall(r"src=\"data:image/(\w+);base64,([^\"]+)\"", page.source)
    assert [kind for kind, _ in pictures] == ["jpeg", "png", "png"] * 4
    truth = Image.open(io.BytesIO(base64.b64decode(pictures[1][1])))
    palette = np.array(SPECS["dolls"].palette, np.uint8)
    known = doll_labels(0) != 255
    assert (np.asarray(truth)[known] == palette[doll_labels(0)[known]]).all()
    assert "hatched: not labelled" in page.text
    alternatives = [value for name, value in page.attributes if name == "alt"]
    assert len(alternatives) == 12 and all(alternatives)


def test_another_prediction_than_the_evaluated_one_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", "TEST.SAMPLE_IMAGES", "1")

    def predict(entry: Mapping[str, Any]) -> ByteArray:
        return np.zeros_like(shifted(entry))

    page = _Page(write_report(run, Predictor(predict, "other.pth")))
    assert "100.00 % in the evaluation above" in page.text
    assert "Predicted with other.pth" in page.text


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    register_dolls(tmp_path / "data")
    write_config(tmp_path / "run")
    page = _Page(write_report(tmp_path / "run"))
    for sentence in (
        "no step has been recorded yet",
        "There are no curves",
        "There has been no evaluation yet",
        "The parameters are not counted",
        "The environment is not known",
    ):
        assert sentence in page.text
    assert page.tags.count("svg") == 0

    write_metrics(tmp_path / "run", step_records(600))
    page = _Page(write_report(tmp_path / "run"))
    assert "Not finished: it has come to 600 of 2,000 iterations." in page.text
    assert "No validation loss was recorded" in page.text
    assert "no curve of the mIoU" in page.text
    assert page.source.count('class="chart"') == 3


def test_a_folder_without_a_config_is_reported(tmp_path: Path) -> None:
    dicts = register_dolls(tmp_path / "data")
    write_metrics(tmp_path / "run", step_records(600))
    write_evaluation(tmp_path / "run" / "inference" / DATASET, dicts)
    page = _Page(write_report(tmp_path / "run"))
    assert "config is missing" in page.text
    assert f"Classes of {DATASET}" in page.text


def test_without_scores_pictures_or_model_a_sentence_stands(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    without_model = _Page(write_report(run))
    assert "made without the model's predictions" in without_model.text
    assert "val_0" in without_model.text and "img" not in without_model.tags

    photo = tmp_path / "data" / SPECS["dolls"].folder / "val_0.jpg"
    photo.unlink()
    page = _Page(write_report(run, _predictor()))
    assert "No pictures" in page.text and "val_0.jpg" in page.text

    (run / "inference" / DATASET / "per_image.csv").unlink()
    assert "no scores of single images" in _Page(write_report(run, _predictor())).text

    write_config(run, "TEST.SAMPLE_IMAGES", "0")
    assert "TEST.SAMPLE_IMAGES is 0" in _Page(write_report(run, _predictor())).text


def test_an_image_that_the_data_set_lost_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    register_dolls(tmp_path / "data", count=3)
    page = _Page(write_report(run, _predictor()))
    assert "has no labelled image" in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run<b>", tmp_path / "data")
    path = run / "inference" / DATASET / "evaluation.json"
    bad = "<script>alert(1)</script>"
    text = path.read_text(encoding="utf-8").replace("Hat", bad)
    path.write_text(text, encoding="utf-8")
    scores = path.with_name("per_image.csv")
    table = scores.read_text(encoding="utf-8").replace("val_0,", '"<img src=x onerror=y>",')
    scores.write_text(table, encoding="utf-8")
    (run / "log.txt").write_text("", encoding="utf-8")
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text(encoding="utf-8") + "# </pre><script>\n", encoding="utf-8"
    )
    page = _Page(write_report(run))
    assert "script" not in page.tags and "img" not in page.tags and "b" not in page.tags
    assert bad in page.text and "<img src=x onerror=y>" in page.text
    assert "</pre><script>" in page.text


def test_foreign_files_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    (run / "report.html").write_text("<h1>mine</h1>", encoding="utf-8")
    with pytest.raises(InputError, match=r"report.html is no report of a run"):
        write_report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "<h1>mine</h1>"
    (run / "report.html").unlink()
    write_report(run)
    write_report(run)


def test_the_newer_evaluation_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data")
    apart = run / "evaluation" / DATASET
    write_evaluation(apart, register_dolls(tmp_path / "data", count=2))
    during = run / "inference" / DATASET / "evaluation.json"
    newest = during.stat().st_mtime + 10
    os.utime(apart / "evaluation.json", (newest, newest))
    assert "apart from the training (--eval-only)" in _Page(write_report(run)).text
    os.utime(during, (newest + 10, newest + 10))
    assert "newest evaluation during the training" in _Page(write_report(run)).text


def test_pictures_keep_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (420, 80, 3)).astype(np.uint8)
    labels = rng.integers(0, 20, (420, 80)).astype(np.uint8)
    score = ImageScore("a", "a.jpg", 50.0, 50.0)
    examples = [Example(score, noise, labels, labels, 50.0)] * 3
    palette = SPECS["dolls"].palette
    for budget, count in ((10**9, 3), (100_000, 3), (7_000, 1), (10, 0)):
        pictures = encode_within(examples, palette, 255, budget)
        assert sum(picture.num_bytes for picture in pictures) <= budget
        assert len(pictures) == count
    assert encode_within(examples, palette, 255, 10**9)[0].height == 420

    run = write_run(tmp_path / "run", tmp_path / "data", "TEST.SAMPLE_IMAGES", "2")
    monkeypatch.setattr(report_module, "PICTURE_BYTES", 5_000)
    page = _Page(write_report(run, _predictor()))
    assert "left out to keep this page small" in page.text
    assert 0 < page.tags.count("img") < 12


def test_large_photos_are_not_kept(tmp_path: Path) -> None:
    dicts = register_dolls(tmp_path / "data", count=1)
    large = doll_labels(0, 900, 600)
    Image.fromarray(large).save(dicts[0]["sem_seg_file_name"])
    Image.fromarray(np.zeros((900, 600, 3), np.uint8)).save(dicts[0]["file_name"])
    index = tmp_path / "data" / SPECS["dolls"].folder / "val.json"
    content = index.read_text(encoding="utf-8").replace("40", "900").replace("30", "600")
    index.write_text(content, encoding="utf-8")
    score = ImageScore("val_0", "val_0.jpg", 1.0, 1.0)
    (example,) = examples_module.load_examples(DATASET, [score], shifted)
    assert example.photo.shape == (420, 280, 3)
    assert example.truth.shape == example.prediction.shape == (420, 280)
    assert set(np.unique(example.truth)) <= set(np.unique(large))
    assert example.miou > 99


@pytest.mark.parametrize(("total", "best", "worst"), [(0, 0, 0), (1, 1, 0), (3, 2, 1), (9, 2, 2)])
def test_best_and_worst_do_not_overlap(total: int, best: int, worst: int) -> None:
    scores = [ImageScore(str(n), "", float(n), float(n)) for n in range(total)]
    highest, lowest = best_and_worst(scores, 2)
    assert [len(highest), len(lowest)] == [best, worst]
    assert not {s.image_id for s in highest} & {s.image_id for s in lowest}
    assert [s.mIoU for s in highest] == sorted((s.mIoU for s in highest), reverse=True)
    assert [s.mIoU for s in lowest] == sorted(s.mIoU for s in lowest)
    if total == 9:
        assert (highest[0].mIoU, lowest[0].mIoU) == (8, 0)


def test_largest_confusions_leave_the_diagonal_out(tmp_path: Path) -> None:
    dicts = register_dolls(tmp_path / "data")
    write_evaluation(tmp_path / "e", dicts)
    found = largest_confusions(read_evaluation(tmp_path / "e" / "evaluation.json"), 5)
    assert len(found) == 5
    assert all(confusion.true != confusion.predicted for confusion in found)
    shares = [confusion.share for confusion in found]
    assert shares == sorted(shares, reverse=True)


def test_the_tool_reports_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    run = write_run(tmp_path / "run", tmp_path / "data")
    tool = load_script("tools/report.py")
    tool.main([str(run), "--no-model"])
    assert f"wrote {run / 'report.html'}" in capsys.readouterr().out
    # No checkpoint either: the model is not built for nothing.
    monkeypatch.setattr(tool, "build_model", lambda cfg: pytest.fail("built a model"))
    tool.main([str(run)])
    with pytest.raises(InputError, match=r"--weights names .*none.pth"):
        tool.main([str(run), "--weights", str(tmp_path / "none.pth")])
    with pytest.raises(InputError, match=r"there is no folder"):
        tool.main([str(tmp_path / "nowhere")])
