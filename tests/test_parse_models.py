"""`schnet parse` with real models of torch: what it writes is what `Parser` says."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from word_models import TEXT, noise, write_run

from schnet.command.main import main
from schnet.data.label_maps import read_label
from schnet.errors import InputError
from schnet.inference import Parser
from schnet.remap import load_remap

SIZES = ((40, 30), (17, 50), (40, 30), (1, 9))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose classifier is of text, on files of its bases."""
    return write_run(tmp_path_factory.mktemp("run"), *TEXT)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos of several sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        Image.fromarray(noise(*size, seed=number)).save(folder / f"{number}.png")
    return folder


def parse(photos: Path, run: Path, output: Path, *options: str) -> int:
    """Run `schnet parse` in fp32, quietly."""
    own = ["--weights", str(run), "--output", str(output), "--dtype", "float32", "--quiet"]
    return main(["parse", str(photos), *own, *options])


@pytest.mark.parametrize("batch", ["1", "3"])
def test_batches_write_what_the_parser_says(
    photos: Path, run: Path, tmp_path: Path, batch: str
) -> None:
    assert parse(photos, run, tmp_path / "out", "--batch-size", batch) == 0
    parser = Parser.load(run, dtype="float32")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").open()]
    assert len(lines) == len(SIZES)
    for line in lines:
        labels = parser(line["input"]).labels
        written = read_label(tmp_path / "out" / line["outputs"]["labels"], 20)
        assert np.array_equal(written, labels)
        assert line["areas"] == parser(line["input"]).areas()


def test_remaps_write_the_other_lists_labels(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse(photos, run, tmp_path / "out", "--remap", "atr") == 0
    told = capsys.readouterr().err
    assert "no counterpart for Glove, Coat, Socks, Jumpsuits" in told and "Background" in told
    parser = Parser.load(run, dtype="float32")
    remap = load_remap("atr", parser.classes)
    for number in range(len(SIZES)):
        labels = remap.apply(parser(photos / f"{number}.png").labels)
        assert np.array_equal(read_label(tmp_path / "out" / f"{number}.png", 18), labels)
    with pytest.raises(InputError, match="no label list or file viking"):
        parse(photos, run, tmp_path / "other", "--remap", "viking")
    assert not (tmp_path / "other").exists()


def test_names_given_at_run_time(photos: Path, run: Path, tmp_path: Path) -> None:
    names = "background, hat, left sleeve"
    assert parse(photos, run, tmp_path / "out", "--classes", names) == 0
    parser = Parser.load(run, dtype="float32", classes=names)
    for number in range(len(SIZES)):
        labels = parser(photos / f"{number}.png").labels
        assert np.array_equal(read_label(tmp_path / "out" / f"{number}.png", 3), labels)
    with pytest.raises(InputError, match="--classes"):
        parse(photos, run, tmp_path / "out", "--classes", "background, hat")


def test_other_labels_are_another_run(photos: Path, run: Path, tmp_path: Path) -> None:
    assert parse(photos, run, tmp_path / "out") == 0
    written = (tmp_path / "out" / "run.json").read_bytes()
    # As many labels, by other names: a text classifier asks CLIP by these.
    opts = ("DATASETS.TRAIN", "('cihp_train',)", "DATASETS.TEST", "('cihp_val',)")
    with pytest.raises(InputError, match="the model's config changed"):
        parse(photos, run, tmp_path / "out", "--opts", *opts)
    assert (tmp_path / "out" / "run.json").read_bytes() == written


def test_a_clip_file_that_was_moved_is_the_same(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "own", *TEXT)
    own = ["--weights", str(run), "--output", str(tmp_path / "out"), "--dtype", "float32"]
    assert main(["parse", str(photos), *own]) == 0
    moved = (tmp_path / "own" / "bases" / "clip.pt").rename(tmp_path / "clip.pt")
    assert main(["parse", str(photos), *own, "--opts", "MODEL.CLIP.WEIGHTS", str(moved)]) == 0
    assert f"{len(SIZES)} were finished before" in capsys.readouterr().out
    named = ("--classes", "background, hat", "--clip-weights", str(moved))
    assert parse(photos, run, tmp_path / "named", *named) == 0
    assert len(list((tmp_path / "named").glob("*.png"))) == len(SIZES)


def test_standard_input_lists_the_photos(
    photos: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / '0.png'}\n\n{photos / '3.png'}\n"))
    own = ["--weights", str(run), "--output", str(tmp_path / "out"), "--quiet"]
    assert main(["parse", "-", *own]) == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["0.png", "3.png"]
