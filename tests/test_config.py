"""Reading a config: layers, overrides, and one sentence for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import get_cfg

from schnet.config import add_schnet_config, load_config
from schnet.config_checks import CHECKS
from schnet.errors import InputError


def _write(path: Path, text: str) -> Path:
    path.write_text(f"VERSION: 2\n{text}", encoding="utf-8")
    return path


def test_later_files_and_overrides_win(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.yaml", "SOLVER:\n  MAX_ITER: 10\n  BASE_LR: 0.5\nSEED: 1\n")
    second = _write(tmp_path / "b.yaml", "SOLVER:\n  MAX_ITER: 20\n")
    cfg = load_config([first, second], ["SEED", "7"])
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SEED) == (20, 0.5, 7)


def test_base_of_a_file_is_read(tmp_path: Path) -> None:
    _write(tmp_path / "base.yaml", "SEED: 5\n")
    child = tmp_path / "child.yaml"
    child.write_text("_BASE_: base.yaml\n")
    assert load_config([child]).SEED == 5


def test_result_is_frozen() -> None:
    with pytest.raises(AttributeError):
        load_config([]).SEED = 3


def test_every_checked_key_exists_and_its_default_passes() -> None:
    cfg = get_cfg()
    add_schnet_config(cfg)
    for key, (allowed, wanted) in CHECKS.items():
        node = cfg
        for name in key.split("."):
            node = node[name]
        assert allowed(node), f"{key}: {node!r} is not {wanted}"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["MODEL.SAM.VARIANT", "vit_x"], r"MODEL.SAM.VARIANT is 'vit_x'.*vit_b, vit_l, vit_h"),
        (["MODEL.CLIP.VARIANT", "RN102"], r"MODEL.CLIP.VARIANT is 'RN102'.*RN101"),
        (["MODEL.SAM.WEIGHTS", ""], r"MODEL.SAM.WEIGHTS is ''.*`random`"),
        (["MODEL.CLIP.WEIGHTS", " "], r"MODEL.CLIP.WEIGHTS is ' '"),
        (["MODEL.SEM_SEG_HEAD.NUM_CLASSES", "1"], r"NUM_CLASSES is 1: .*\[2, 255\]"),
        (["MODEL.SEM_SEG_HEAD.FUSE_DIM", "12"], "FUSE_DIM is 12.*multiple of 8"),
        (["MODEL.SRM.CLIP_STAGES", "[1, 2, 3, 4]"], "CLIP_STAGES.*list of 5"),
        (["MODEL.SRM.CLIP_STAGES", "[0, 2, 3, 4, 4]"], "CLIP_STAGES.*1, 2, 3 or 4"),
        (["MODEL.CLIP.INPUT_SCALE", "0.0"], "INPUT_SCALE is 0.0"),
        (["MODEL.FTM.RHO_INIT", "-0.1"], "RHO_INIT is -0.1.*at least 0"),
        (["INPUT.FLIP_PROB", "1.5"], r"FLIP_PROB is 1.5.*\[0, 1\]"),
        (["INPUT.SCALE_RANGE", "[2.0, 1.0]"], "SCALE_RANGE.*must not exceed"),
        (["INPUT.SIZE", "[8, 512]"], "INPUT.SIZE"),
        (["INPUT.SIZE", "[500, 512]"], r"INPUT.SIZE is \[500, 512\].*multiple of 16"),
        (["INPUT.CROP", "centre"], "CROP is 'centre'.*random, letterbox"),
        (["INPUT.ROTATION_SIGMA", "-1.0"], "ROTATION_SIGMA is -1.0"),
        (["INPUT.ROTATION_PROB", "2.0"], "ROTATION_PROB is 2.0"),
        (["DATASETS.CUSTOM.NAME", "my set"], "CUSTOM.NAME is 'my set'.*letters"),
        (["DATASETS.CUSTOM.VAL_SHARE", "1.0"], "VAL_SHARE is 1.0"),
        (["TEST.PROTOCOL", "argmax"], "PROTOCOL is 'argmax'.*warp_labels"),
        (["TEST.AUG.SCALES", "[]"], "SCALES is"),
        (["TEST.AUG.SCALES", "[1.0, 0.0]"], "SCALES is"),
        (["TEST.SLIDING_WINDOW.OVERLAP", "1.0"], "OVERLAP is 1.0"),
        (["TEST.BOUNDARY_TOLERANCE", "-1"], "BOUNDARY_TOLERANCE is -1"),
        (
            ["TEST.SLIDING_WINDOW.ENABLED", "True", "TEST.PROTOCOL", "warp_labels"],
            "windows are not letterboxed",
        ),
        (["SOLVER.BASE_LR", "0.0"], "BASE_LR is 0.0.*above 0"),
        (["SOLVER.BASE_LR", "float('nan')"], "SOLVER.BASE_LR|overrides"),
        (["SOLVER.MAX_ITER", "0"], "MAX_ITER is 0"),
        (["SOLVER.KEEP_CHECKPOINTS", "0"], "KEEP_CHECKPOINTS is 0"),
        (["TEST.BEST_METRIC", " "], "BEST_METRIC is ' '.*name of a metric"),
        (
            ["MODEL.LOSS.CE_WEIGHT", "0.0", "MODEL.LOSS.LOVASZ_WEIGHT", "0.0"],
            "CE_WEIGHT and MODEL.LOSS.LOVASZ_WEIGHT are both 0",
        ),
        (["MODEL.BACKBONE.NAME", "ClipBackbone"], "MODEL.SRM.ENABLED is True with .*ClipBackbone"),
        (["DATASETS.TEST", "()"], "DATASETS.TRAIN and DATASETS.TEST"),
        (["SEED", "a word"], "the overrides cannot be used"),
        (["MODEL.NO_SUCH_KEY", "1"], "overrides cannot be used.*NO_SUCH_KEY"),
        (["SEED"], "'SEED' are not pairs"),
    ],
)
def test_impossible_values_are_one_sentence(overrides: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        load_config([], overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MODEL:\n  SAN: 1\n", "MODEL.SAN"),
        ("SEED: [\n", "cannot be used"),
        ("SEED: many\n", "cannot be used"),
        ("- 1\n- 2\n", "cannot be used"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"broken.yaml.*{told}") as caught:
        load_config([file])
    assert "\n" not in str(caught.value)


def test_missing_file_is_named() -> None:
    with pytest.raises(InputError, match="no config file no/such.yaml"):
        load_config(["no/such.yaml"])


@pytest.mark.parametrize(
    "opts",
    [
        ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['stage4']"],
        ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2']", "MODEL.SRM.ENABLED", "False"],
        ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "[]", "MODEL.SRM.ENABLED", "False"],
        [
            "MODEL.SEM_SEG_HEAD.IN_FEATURES",
            "['stage1', 'stage0', 'stage2', 'stage3', 'stage4']",
        ],
    ],
)
def test_maps_that_the_backbone_does_not_offer_in_order_are_refused(opts: list[str]) -> None:
    with pytest.raises(InputError, match=r"IN_FEATURES is .*SamBackbone offers \['stage0'"):
        load_config([], opts)


def test_some_of_the_maps_will_do_without_srm() -> None:
    opts = ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "['stage1', 'stage4']", "MODEL.SRM.ENABLED", "False"]
    assert load_config([], opts).MODEL.SEM_SEG_HEAD.IN_FEATURES == ["stage1", "stage4"]


@pytest.mark.parametrize("template", ["{} {x}", "no slot", "{"])
def test_templates_that_take_no_phrase_are_refused(template: str) -> None:
    with pytest.raises(InputError, match="PROMPT_TEMPLATES"):
        load_config([], ["MODEL.CLIP.PROMPT_TEMPLATES", repr([template])])
