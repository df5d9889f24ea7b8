"""A data set of one's own: listed, split, registered, trained on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from data_helpers import color_of, patchwork, save_image
from detectron2.data import DatasetCatalog, MetadataCatalog
from parsing_fakes import load_script
from tiny_lip import OPTS

from schnet.data.catalog import load_registered, register_custom, require_registered
from schnet.data.custom import (
    CustomPaths,
    list_pairs,
    load_custom,
    open_custom,
    require_mirror_pairs,
)
from schnet.data.loader import build_train_loader
from schnet.errors import InputError
from schnet.evaluation.parsing_evaluation import build_evaluator
from schnet.setup import load_model_config

YAML = "names: [background, hair, left sleeve, right sleeve]\n"
PAIRS = "mirror_pairs: [[left sleeve, right sleeve]]\n"


def make_custom(folder: Path, names: list[str], yaml: str = YAML + PAIRS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.yaml").write_text(yaml)
    for seed, name in enumerate(names):
        labels = patchwork((48, 32), seed=seed, num_classes=4)
        save_image(folder / "images" / f"{name}.jpg", color_of(labels))
        save_image(folder / "labels" / f"{name}.png", labels)
    return folder


@pytest.fixture(autouse=True)
def _no_custom_set_is_left_registered() -> Iterator[None]:
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        if "custom" in name or "sleeves" in name:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def ids(folder: Path, split: str, **options: object) -> list[str]:
    data = open_custom(CustomPaths(str(folder), **options))  # type: ignore[arg-type]
    return [entry["image_id"] for entry in load_custom(data, split)]


def test_folders_beside_the_yaml_at_all_depths(tmp_path: Path) -> None:
    names = ["a", "d", "deep/er/b.c"]
    make_custom(tmp_path, names)
    save_image(tmp_path / "images" / ".trash" / "x.jpg", patchwork((4, 4)), subsampling=-1)
    assert sorted([*ids(tmp_path, "train"), *ids(tmp_path, "val")]) == names
    (entry,) = load_custom(open_custom(CustomPaths(str(tmp_path / "classes.yaml"))), "val")
    assert Path(entry["file_name"]).is_file() and Path(entry["sem_seg_file_name"]).is_file()


def test_held_out_share_depends_on_names_alone(tmp_path: Path) -> None:
    names = [f"photo{number}" for number in range(40)]
    make_custom(tmp_path / "a", names[:30])
    make_custom(tmp_path / "b", names)
    first, second = (set(ids(tmp_path / f, "val", val_share=0.3)) for f in ("a", "b"))
    assert first == second & set(names[:30])
    assert 5 <= len(second) <= 19
    assert not set(ids(tmp_path / "b", "train", val_share=0.3)) & second
    # However few there are, one validates.
    (only,) = ids(tmp_path / "a", "val", val_share=1e-9)
    # And stays there when the share grows.
    assert only in first and only != "photo0"
    make_custom(tmp_path / "c", ["a"])
    assert ids(tmp_path / "c", "train") == ["a"]


def test_endings_in_capitals_and_circles_of_links(tmp_path: Path) -> None:
    make_custom(tmp_path, ["a"])
    save_image(tmp_path / "images" / "b.png", patchwork((4, 4))).rename(tmp_path / "images/b.PNG")
    save_image(tmp_path / "labels" / "b.png", patchwork((4, 4))).rename(tmp_path / "labels/b.PNG")
    (tmp_path / "images" / "up").symlink_to(tmp_path / "images")
    assert sorted([*ids(tmp_path, "train"), *ids(tmp_path, "val")]) == ["a", "b"]


def test_folders_elsewhere(tmp_path: Path) -> None:
    make_custom(tmp_path / "a", ["a", "b"])
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "classes.yaml").rename(tmp_path / "b" / "classes.yaml")
    places = {"images": str(tmp_path / "a/images"), "labels": str(tmp_path / "a/labels")}
    assert len(ids(tmp_path / "b", "train", **places)) == 1
    with pytest.raises(InputError, match="folder of images .*b/images does not exist"):
        ids(tmp_path / "b", "train")


def test_names_that_are_no_utf8_are_dealt_out(tmp_path: Path) -> None:
    make_custom(tmp_path, ["a", "b", os.fsdecode(b"caf\xe9")])
    assert len([*ids(tmp_path, "train"), *ids(tmp_path, "val")]) == 3


def test_validation_folders_of_their_own(tmp_path: Path) -> None:
    make_custom(tmp_path / "train", ["a", "b"])
    make_custom(tmp_path / "other", ["c"])
    own = {
        "val_images": str(tmp_path / "other/images"),
        "val_labels": str(tmp_path / "other/labels"),
    }
    assert ids(tmp_path / "train", "train", **own) == ["a", "b"]
    assert ids(tmp_path / "train", "val", **own) == ["c"]
    with pytest.raises(InputError, match="VAL_IMAGES and VAL_LABELS go together"):
        ids(tmp_path / "train", "val", val_images=str(tmp_path / "other/images"))


def test_missing_partners_and_folders_are_named(tmp_path: Path) -> None:
    make_custom(tmp_path, ["a", "b"])
    (tmp_path / "labels" / "b.png").rename(tmp_path / "labels" / "c.png")
    data = open_custom(CustomPaths(str(tmp_path), val_share=1e-9))
    found = {p.image_id: (p.image, p.label) for s in ("train", "val") for p in list_pairs(data, s)}
    assert found["b"][1] is None and found["c"][0] is None
    with pytest.raises(
        InputError, match=r"the (label map of .*b\.jpg|image of .*c\.png) is not in"
    ):
        [load_custom(data, split) for split in ("train", "val")]
    with pytest.raises(InputError, match=r"folder of label maps .*nowhere does not exist"):
        ids(tmp_path, "train", labels=str(tmp_path / "nowhere"))
    save_image(tmp_path / "images" / "a.png", patchwork((4, 4)))
    with pytest.raises(InputError, match=r"holds a\.jpg and a\.png, which have one name"):
        ids(tmp_path, "train")


def test_empty_split_is_refused(tmp_path: Path) -> None:
    make_custom(tmp_path, [])
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="custom_train is empty"):
        ids(tmp_path, "train")


def test_names_of_published_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="CUSTOM.NAME is 'lip'"):
        open_custom(CustomPaths(str(make_custom(tmp_path, ["a"])), name="lip"))


def test_registration(tmp_path: Path) -> None:
    folder = make_custom(tmp_path, ["a", "b"])
    for name in ("sleeves", "sleeves"):
        register_custom(CustomPaths(str(folder), name=name))
    metadata = MetadataCatalog.get("sleeves_train")
    assert metadata.stuff_classes[3] == "right sleeve" and metadata.mirror_pairs == [(2, 3)]
    assert metadata.prompts[2] == ["left sleeve"] and metadata.evaluator_type == "parsing"
    assert metadata.stuff_colors == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert metadata.index_file == str(folder / "sleeves_train.json")
    assert MetadataCatalog.get("sleeves_val").index_file == str(folder / "sleeves_val.json")
    assert metadata.labels_from == str(folder / "classes.yaml")
    assert len(load_registered(["sleeves_train"])) == 1
    with pytest.raises(InputError, match="no data set 'sleeve_train'.*sleeves_train.*your own"):
        require_registered("sleeve_train")


@pytest.mark.parametrize("name", ["left arm", "Left-arm", "arm_left", "LeftArm", "RIGHT shoe"])
def test_sides_without_a_pair_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"label 1 of x.yaml is '{name}' .*FLIP_PROB 0.0"):
        require_mirror_pairs(["background", name, "other"], [], "x.yaml")
    require_mirror_pairs(["background", name, "other"], [(1, 2)], "x.yaml")


@pytest.mark.parametrize("name", ["bright", "leftover", "copyright", "upright", "lefty"])
def test_words_that_only_sound_like_sides_pass(name: str) -> None:
    require_mirror_pairs(["background", name], [], "x.yaml")


def opts(folder: Path, *more: str) -> list[str]:
    own = ("DATASETS.TRAIN", "('custom_train',)", "DATASETS.TEST", "('custom_val',)")
    classes = ("DATASETS.CUSTOM.CLASSES", str(folder), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "4")
    return [*OPTS, *own, *classes, *more]


def test_config_refuses_sides_only_where_photos_are_mirrored(tmp_path: Path) -> None:
    folder = make_custom(tmp_path, ["a", "b"], YAML)
    told = r"label 2 of .*classes\.yaml is 'left sleeve'"
    with pytest.raises(InputError, match=told):
        load_model_config([], opts(folder))
    load_model_config([], opts(folder, "INPUT.FLIP_PROB", "0.0"))
    plain = ("TEST.AUG.ENABLED", "True", "TEST.AUG.FLIP", "False")
    load_model_config([], opts(folder, "INPUT.FLIP_PROB", "0.0", *plain))
    with pytest.raises(InputError, match=told):
        load_model_config([], opts(folder, "INPUT.FLIP_PROB", "0.0", "TEST.AUG.ENABLED", "True"))


def test_config_names_the_right_number_of_classes(tmp_path: Path) -> None:
    folder = make_custom(tmp_path, ["a", "b"])
    with pytest.raises(InputError, match="the data set custom_train has 4 classes: set it to 4"):
        load_model_config([], opts(folder, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "20"))


def test_config_describes_all_of_it(tmp_path: Path) -> None:
    train = make_custom(tmp_path / "train", [f"t{number}" for number in range(10)])
    val = make_custom(tmp_path / "val", ["v"])
    key = "DATASETS.CUSTOM."
    own = [f"{key}NAME", "custom_parts", f"{key}VAL_SHARE", "0.5"]
    own += [f"{key}IMAGES", str(train / "images"), f"{key}LABELS", str(train / "labels")]
    own += ["DATASETS.TRAIN", "('custom_parts_train',)", "DATASETS.TEST", "('custom_parts_val',)"]
    (tmp_path / "yaml").mkdir()
    (train / "classes.yaml").rename(tmp_path / "yaml" / "classes.yaml")
    load_model_config([], opts(tmp_path / "yaml", *own))
    assert 2 <= len(load_registered(["custom_parts_val"])) <= 8
    own += [f"{key}VAL_IMAGES", str(val / "images"), f"{key}VAL_LABELS", str(val / "labels")]
    load_model_config([], opts(tmp_path / "yaml", *own))
    assert len(load_registered(["custom_parts_train"])) == 10
    (entry,) = load_registered(["custom_parts_val"])
    assert entry["file_name"] == str(val / "images" / "v.jpg")
    assert entry["sem_seg_file_name"] == str(val / "labels" / "v.png")


def test_config_refuses_other_labels_of_the_same_number(tmp_path: Path) -> None:
    make_custom(tmp_path, ["a", "b"])
    register_custom(CustomPaths(str(tmp_path), name="custom_other"))
    other = make_custom(tmp_path, ["a"], "names: [background, hat, top, shoe]\n")
    with pytest.raises(InputError, match="label 1 is 'hair' in the data set custom_other_val and"):
        load_model_config([], opts(other, "DATASETS.TEST", "('custom_other_val',)"))


def test_own_labels_train_without_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_custom(tmp_path / "data", [f"p{number}" for number in range(6)])
    monkeypatch.syspath_prepend(str(REPOSITORY))
    validate = load_script("datasets/validate.py")
    command = [str(folder), "--write-index", "--sheet", str(tmp_path / "s.png"), "--jobs", "1"]
    validate.main(command)
    assert "custom_train.json" in capsys.readouterr().out
    train_net = load_script("train_net.py")
    run = opts(
        folder,
        *("SOLVER.MAX_ITER", "2", "MODEL.LOSS.CLASS_WEIGHTS", "sqrt_inverse"),
        *("OUTPUT_DIR", str(tmp_path / "out")),
    )
    yaml = tmp_path / "empty.yaml"
    yaml.write_text("VERSION: 2\n")
    results = train_net.main(["--config-file", str(yaml), *run])
    assert np.isfinite(results["sem_seg"]["mIoU"])
    assert "IoU-left sleeve" in results["sem_seg"]
    assert "schnet" in sys.modules


def test_stale_index_is_refused(tmp_path: Path) -> None:
    folder = make_custom(tmp_path, [f"p{number}" for number in range(6)])
    validate = load_script("datasets/validate.py")
    command = [str(folder), "--write-index", "--sheet", str(tmp_path / "s.png"), "--jobs", "1"]
    validate.main(command)
    data = open_custom(CustomPaths(str(folder)))
    assert {(e["height"], e["width"]) for e in load_custom(data, "train")} == {(48, 32)}
    counts = json.loads(data.index_path("train").read_text())["pixel_counts"]
    assert sum(counts) == 48 * 32 * len(load_custom(data, "train"))
    assert {(e["height"], e["width"]) for e in load_custom(data, "val")} == {(48, 32)}
    path = data.index_path("train")
    index = json.loads(path.read_text())
    for change in ({"ignore_label": 0}, {"classes": ["background", "hair", "left", "right"]}):
        path.write_text(json.dumps({**index, **change}))
        with pytest.raises(InputError, match=r"custom_train\.json is not of the labels"):
            load_custom(data, "train")
    path.write_text(json.dumps(index))
    assert len(load_custom(data, "train")) == len(index["records"])
    make_custom(folder, [f"p{number}" for number in range(7, 20)])
    with pytest.raises(InputError, match=r"custom_train\.json is not of the labels and images"):
        load_custom(data, "train")


def test_colour_masks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_custom(tmp_path / "data", [f"p{number}" for number in range(4)])
    for path in (folder / "labels").iterdir():
        save_image(
            path, np.dstack([patchwork((48, 32), num_classes=4)] * 2 + [patchwork((48, 32))])
        )
    validate = load_script("datasets/validate.py")
    with pytest.raises(InputError, match="4 of 4 pairs"):
        validate.main([str(folder), "--rows", "0", "--jobs", "1"])
    assert "is a picture in colours" in capsys.readouterr().out
    cfg = load_model_config([], opts(folder))
    with pytest.raises(InputError, match="is a picture in colours"):
        next(iter(build_train_loader(cfg)))
    entries = load_registered(["custom_val"])
    evaluator = build_evaluator(cfg, "custom_val", tmp_path / "out")
    with pytest.raises(InputError, match="is a picture in colours"):
        evaluator.add_labels(entries[0], np.zeros((48, 32), np.uint8))
