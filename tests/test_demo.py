from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import fake_parser, half_bright, load_script, write_tiny_model, write_tiny_run
from PIL import Image

from schnet.errors import InputError
from schnet.inference import Parser
from schnet.parsing import Parsing


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The script, imported."""
    return load_script("projects/SCHNet/demo.py")


def _write_photo(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(half_bright(height, width)).save(path)
    return path


@pytest.fixture
def run_demo(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a fake model in place of config and checkpoint."""
    monkeypatch.setattr(demo, "load_model_config", lambda files, opts: None)
    monkeypatch.setattr(demo.Parser, "from_config", lambda cfg: fake_parser())
    return demo


def _main(demo: ModuleType, output: Path, *inputs: Path | str) -> None:
    demo.main(["--config-file", "x.yaml", "--input", *map(str, inputs), "--output", str(output)])


@pytest.mark.parametrize(("height", "width"), [(500, 700), (120, 200)])
def test_overlay_colors_parts_and_keeps_background(
    demo: ModuleType, height: int, width: int
) -> None:
    image = np.full((height, width, 3), 100, np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    parsing = Parsing(labels, ("Background", "hat"), ((0, 0, 0), (250, 0, 0)))
    drawn = demo.draw_overlay(image, parsing)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) == max(width, 640)
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(height / width, rel=0.01)
    middle = drawn.shape[1] // 2
    assert (drawn[:, : middle - 10] == 100).all()
    corner = drawn[20:40, -40:-20].astype(int)
    assert (corner[..., 0] > 150).all() and (corner[..., 2] < 60).all()


def test_writes_labels_in_the_palette_and_an_overlay(
    run_demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = _write_photo(tmp_path / "in" / "one.v2.jpg")
    output = tmp_path / "new" / "out"
    _main(run_demo, output, photo)
    with Image.open(output / "one.v2.png") as labels:
        assert labels.mode == "P"
        assert labels.getpalette()[:6] == [0, 0, 0, 9, 200, 7]
        values = np.asarray(labels)
    assert values.shape == (40, 60)
    assert values[:, :20].max() == 0 and values[:, 40:].min() == 1
    with Image.open(output / "one.v2_overlay.png") as overlay:
        assert overlay.size == (640, 427)
    assert "parsed 1 of 1" in capsys.readouterr().out


def test_bad_files_are_reported_and_the_rest_goes_on(
    run_demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_photo(tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "a.jpg").write_bytes(b"no image")
    missing = tmp_path / "gone.jpg"
    with pytest.raises(InputError, match=r"2 of 3 photos .*a\.jpg.*gone\.jpg"):
        _main(run_demo, tmp_path / "out", tmp_path / "in", missing)
    names = {f.name for f in (tmp_path / "out").iterdir()}
    assert names == {"b.png", "b_overlay.png", ".schnet-outputs"}
    # What was not written is not ours to replace later.
    (tmp_path / "out" / "a.png").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"a\.png exists and was not written"):
        _main(run_demo, tmp_path / "out", tmp_path / "in")
    assert "parsed 1 of 3" in capsys.readouterr().out


def test_same_stems_keep_their_extension(run_demo: ModuleType, tmp_path: Path) -> None:
    _write_photo(tmp_path / "in" / "a.jpg", 40, 60)
    _write_photo(tmp_path / "in" / "a.png", 30, 20)
    _main(run_demo, tmp_path / "out", tmp_path / "in")
    sizes = {}
    for file in (tmp_path / "out").glob("*.png"):
        with Image.open(file) as image:
            sizes[file.name] = image.size
    assert sizes == {
        "a.jpg.png": (60, 40),
        "a.jpg_overlay.png": (640, 427),
        "a.png.png": (20, 30),
        "a.png_overlay.png": (427, 640),
    }


def test_inputs_in_the_output_folder_stay_and_are_parsed_once(
    run_demo: ModuleType, tmp_path: Path
) -> None:
    photo = _write_photo(tmp_path / "a.png")
    before = photo.read_bytes()
    for _ in range(2):
        _main(run_demo, tmp_path, tmp_path)
        assert photo.read_bytes() == before
        names = sorted(f.name for f in tmp_path.iterdir() if f.suffix == ".png")
        assert names == ["a.png", "a.png.png", "a.png_overlay.png"]


def test_foreign_files_are_never_replaced(run_demo: ModuleType, tmp_path: Path) -> None:
    photo = _write_photo(tmp_path / "in" / "a.jpg")
    foreign = tmp_path / "out" / "a_overlay.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"a_overlay\.png exists and was not written"):
        _main(run_demo, tmp_path / "out", photo)
    assert foreign.read_bytes() == b"precious"
    assert [f.name for f in foreign.parent.iterdir()] == ["a_overlay.png"]


def test_own_results_are_replaced(run_demo: ModuleType, tmp_path: Path) -> None:
    _main(run_demo, tmp_path / "out", _write_photo(tmp_path / "a.jpg", 40, 60))
    _main(run_demo, tmp_path / "out", _write_photo(tmp_path / "b.jpg", 40, 60))
    _main(run_demo, tmp_path / "out", _write_photo(tmp_path / "a.jpg", 20, 10))
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert labels.size == (10, 20)


def test_results_are_upright(run_demo: ModuleType, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # The stored image is to be turned by 90 degrees.
    Image.fromarray(half_bright(40, 60)).save(tmp_path / "a.jpg", exif=exif)
    _main(run_demo, tmp_path / "out", tmp_path / "a.jpg")
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert labels.size == (40, 60)
        values = np.asarray(labels)
    assert values[:20].max() == 0 and values[-20:].min() == 1


def test_nothing_to_do_is_refused(run_demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        _main(run_demo, tmp_path / "out", tmp_path / "empty")
    with pytest.raises(InputError, match="is a file: give a folder"):
        _main(run_demo, _write_photo(tmp_path / "a.jpg"), tmp_path / "a.jpg")
    assert not (tmp_path / "out").exists()


def test_a_runs_folder_goes_with_another_config(demo: ModuleType, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write_tiny_run(run)
    config = (run / "config.yaml").rename(tmp_path / "moved.yaml")
    given = ["--weights", str(run), "--config-file", str(config)]
    photo = _write_photo(tmp_path / "a.jpg")
    demo.main([*given, "--input", str(photo), "--output", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert labels.size == (60, 40)


def test_device_and_dtype_are_chosen_whatever_the_config(
    demo: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, object] = {}

    def load(weights: str, **options: object) -> Parser:
        given.update(options)
        return fake_parser()

    monkeypatch.setattr(demo.Parser, "load", load)
    photo = _write_photo(tmp_path / "a.jpg")
    options = ["--weights", "w", "--config-file", "x.yaml", "--config-file", "y.yaml"]
    demo.main([*options, "--input", str(photo), "--output", str(tmp_path / "out")])
    assert given == {"device": "auto", "config_files": ["x.yaml", "y.yaml"], "opts": []}


def test_command_line_with_the_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, weights = write_tiny_model(tmp_path)
    _write_photo(tmp_path / "a.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"")
    command = ["demo.py", "--config-file", str(config), "--weights", str(weights)]
    command += ["--input", str(tmp_path / "*.jpg"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, "--opts", "INPUT.SIZE", "[48, 48]"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(REPOSITORY / "projects" / "SCHNet" / "demo.py"), run_name="__main__")
    assert stopped.value.code == 2
    assert "error: 1 of 2 photos could not be read" in capsys.readouterr().err
    with Image.open(tmp_path / "out" / "a.png") as labels:
        assert labels.size == (60, 40)
