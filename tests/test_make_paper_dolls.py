"""The paper dolls: the layout, the labels, left and right, determinism, foreign folders."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from schnet.data.index import read_index
from schnet.errors import InputError

SCRIPTS = Path(__file__).resolve().parents[1] / "datasets"
sys.path.insert(0, str(SCRIPTS))

import make_paper_dolls  # noqa: E402
from paper_dolls import labels as lip  # noqa: E402
from paper_dolls.canvas import Canvas, Light, noise_tile  # noqa: E402
from paper_dolls.materials import Material  # noqa: E402
from paper_dolls.poses import ArmPose, LegPose, Pose  # noqa: E402
from paper_dolls.scene import Doll, Sample, render_doll, render_sample, sample_doll  # noqa: E402
from paper_dolls.shapes import ellipse, points, strip  # noqa: E402
from paper_dolls.wardrobe import Outfit, sample_outfit  # noqa: E402

IMAGES = "TrainVal_images/TrainVal_images/{}_images"
LABELS = "TrainVal_parsing_annotations/TrainVal_parsing_annotations/{}_segmentations"
HEIGHT, WIDTH = 96, 64


def run_script(output: Path, *options: str) -> None:
    """Run the command line in this process, small pictures, one process."""
    small = ["--height", str(HEIGHT), "--width", str(WIDTH), "--processes", "1"]
    make_paper_dolls.main(["--output", str(output), *small, *options])


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below the folder with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def standing(yaw: float, seed: int = 3) -> tuple[Doll, np.random.Generator]:
    """Return a doll that stands with bare arms and legs, seen from the given side."""
    rng = np.random.default_rng(seed)
    doll = sample_doll(rng)
    arm, leg = ArmPose(0.5, 0.4), LegPose(0.15, 0.1)
    pose = Pose(yaw, 0.0, 0.0, 0.0, (arm, arm), (leg, leg))
    outfit = sample_outfit(rng, "dress")
    outfit = replace(outfit, sleeve=0.0, hem=0.7, gloves=None, socks=None, scarf=None)
    return replace(doll, pose=pose, outfit=outfit), rng


def centre_x(sample: Sample, label: int) -> float:
    """Return the mean column of a label; it has to be there."""
    columns = np.nonzero(sample.labels == label)[1]
    assert len(columns) > 0, f"label {label} is missing"
    return float(columns.mean())


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 30 + 30 small pictures."""
    folder = tmp_path_factory.mktemp("dolls")
    run_script(folder, "--train", "30", "--val", "30")
    return folder


@pytest.mark.parametrize("split", ["train", "val"])
def test_layout_is_lips_and_index_tells_what_is_there(thirty: Path, split: str) -> None:
    ids = (thirty / f"{split}_id.txt").read_text().split()
    index = read_index(thirty / f"{split}.json")
    assert len(ids) == len(set(ids)) == 30
    assert index.classes == lip.CLASSES and len(index.classes) == 20
    assert [record.image for record in index.records] == [f"{name}.jpg" for name in ids]
    counts = np.zeros(20, dtype=np.int64)
    for name, record in zip(ids, index.records, strict=True):
        with Image.open(thirty / IMAGES.format(split) / f"{name}.jpg") as picture:
            assert (picture.mode, picture.size) == ("RGB", (record.width, record.height))
        with Image.open(thirty / LABELS.format(split) / f"{name}.png") as label:
            assert (label.mode, label.size) == ("P", (record.width, record.height))
            palette = label.getpalette()
            assert palette is not None
            assert palette[:60] == [value for colour in lip.PALETTE for value in colour]
            counts += np.bincount(np.asarray(label).ravel(), minlength=20)
        assert (Path(index.image_root) / record.image).is_file()
        assert (Path(index.label_root) / record.label).is_file()
    assert tuple(counts.tolist()) == index.pixel_counts
    assert (counts > 0).all(), "a label does not occur"
    assert len({(record.height, record.width) for record in index.records}) > 10


def test_outfits_are_exclusive(thirty: Path) -> None:
    lower = {lip.DRESS, lip.JUMPSUITS, lip.SKIRT, lip.PANTS}
    for path in sorted((thirty / LABELS.format("train")).iterdir()):
        worn = set(np.unique(np.asarray(Image.open(path))).tolist())
        assert len(worn & lower) == 1 or lip.COAT in worn, path.name
        assert not (lip.UPPER_CLOTHES in worn and worn & {lip.DRESS, lip.JUMPSUITS}), path.name


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (lip.LEFT_ARM, lip.RIGHT_ARM),
        (lip.LEFT_LEG, lip.RIGHT_LEG),
        (lip.LEFT_SHOE, lip.RIGHT_SHOE),
    ],
)
def test_left_and_right_are_the_persons_own(seed: int, left: int, right: int) -> None:
    front, back = (render_whole(*standing(yaw, seed)) for yaw in (0.0, np.pi))
    assert centre_x(front, left) > centre_x(front, right) + 3
    assert centre_x(back, left) < centre_x(back, right) - 3


def render_whole(doll: Doll, rng: np.random.Generator) -> Sample:
    """Render until the doll is not cut at the legs (one in five is)."""
    for _ in range(20):
        sample = render_doll(doll, rng, HEIGHT, WIDTH)
        if (sample.labels == lip.LEFT_SHOE).any() and (sample.labels == lip.RIGHT_SHOE).any():
            return sample
    raise AssertionError("twenty dolls without feet")


def test_face_and_sunglasses_are_seen_from_the_front_only() -> None:
    def seen(yaw: float, glasses: bool) -> NDArray[np.int64]:
        doll, rng = standing(yaw)
        outfit = with_glasses() if glasses else replace(with_glasses(), glasses=None)
        doll = replace(doll, outfit=outfit)
        return np.bincount(render_whole(doll, rng).labels.ravel(), minlength=20)

    front, plain, back = seen(0.0, True), seen(0.0, False), seen(np.pi, True)
    assert front[lip.SUNGLASSES] > 20 and back[lip.SUNGLASSES] == 0 == plain[lip.SUNGLASSES]
    assert plain[lip.FACE] > 2 * back[lip.FACE]
    assert back[lip.HAIR] > plain[lip.HAIR]


def with_glasses() -> Outfit:
    """Return an outfit with sunglasses and without hat and scarf."""
    for seed in range(100):
        outfit = sample_outfit(np.random.default_rng(seed), "pants")
        if outfit.glasses is not None:
            return replace(outfit, hat=None, scarf=None)
    raise AssertionError("a hundred outfits without sunglasses")


def test_a_sample_depends_on_seed_split_and_number_only() -> None:
    first = render_sample(5, "train", 7, HEIGHT, WIDTH)
    again = render_sample(5, "train", 7, HEIGHT, WIDTH)
    assert (first.picture == again.picture).all() and (first.labels == again.labels).all()
    others = [(6, "train", 7), (5, "val", 7), (5, "train", 8)]
    for arguments in others:
        other = render_sample(*arguments, HEIGHT, WIDTH)
        same_shape = other.labels.shape == first.labels.shape
        assert not (same_shape and (other.labels == first.labels).all()), arguments


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    size = ["--train", "5", "--val", "2", "--seed", "4"]
    run_script(tmp_path / "one", *size)
    run_script(tmp_path / "two", *size, "--processes", "2")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_growing_keeps_and_shrinking_removes(tmp_path: Path) -> None:
    run_script(tmp_path, "--train", "2", "--val", "1")
    before = contents(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("doll_*")}
    run_script(tmp_path, "--train", "4", "--val", "1")
    grown = contents(tmp_path)
    assert len([name for name in grown if name.endswith(".jpg")]) == 5
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    run_script(tmp_path, "--train", "2", "--val", "1")
    assert contents(tmp_path) == before


def test_other_settings_replace_and_damage_is_repaired(tmp_path: Path) -> None:
    run_script(tmp_path / "a", "--train", "2", "--val", "1", "--seed", "1")
    run_script(tmp_path / "b", "--train", "3", "--val", "1", "--seed", "2")
    run_script(tmp_path / "b", "--train", "2", "--val", "1", "--seed", "1")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    victim = next((tmp_path / "b" / LABELS.format("train")).iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    run_script(tmp_path / "b", "--train", "2", "--val", "1", "--seed", "1")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    command = [sys.executable, str(SCRIPTS / "make_paper_dolls.py"), "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr and str(tmp_path) in result.stderr
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


def test_a_file_of_ours_beside_the_users_keeps_the_users(tmp_path: Path) -> None:
    run_script(tmp_path, "--train", "1", "--val", "1")
    (tmp_path / "notes.txt").write_text("mine")
    run_script(tmp_path, "--train", "1", "--val", "1", "--seed", "9")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("option", ["--train", "--val", "--height", "--width", "--processes"])
def test_numbers_out_of_range_are_refused(tmp_path: Path, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is 0"):
        run_script(tmp_path / "new", option, "0")
    assert not (tmp_path / "new").exists()


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run_script(target)
    assert target.read_text() == "mine"


def test_picture_and_labels_agree_to_a_pixel() -> None:
    tile = noise_tile(np.random.default_rng(0))
    canvas = Canvas(80, 60, Light(0.0, 0.0), tile)
    disc = ellipse(points((95.0, 118.0)), 52.5, 70.5, 0.3)
    white = Material((240.0, 240.0, 240.0), gloss=0.0)
    canvas.paint(lip.DRESS, [strip(disc)], white, relief=0.0)
    picture, label_map = canvas.finish()
    share = picture[..., 0] / picture.max()
    inside = (label_map == lip.DRESS).astype(float)
    assert set(np.unique(label_map)) == {lip.BACKGROUND, lip.DRESS}
    assert abs(inside.sum() - share.sum()) < 0.01 * share.sum()
    y, x = np.mgrid[:80, :60]
    for axis in (x, y):
        drift = (axis * inside).sum() / inside.sum() - (axis * share).sum() / share.sum()
        assert abs(drift) < 0.05
    assert np.abs(share - inside).max() < 0.7, "a pixel's label is not that of most of it"


def test_sheet_is_a_small_png(tmp_path: Path) -> None:
    sheet = tmp_path / "docs" / "sheet.png"
    run_script(tmp_path / "dolls", "--train", "1", "--val", "1", "--sheet", str(sheet))
    with Image.open(sheet) as picture:
        assert picture.width > 800 and picture.height > 400
    assert sheet.stat().st_size < 600_000
