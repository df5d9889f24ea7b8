"""What comes before a run: device, data sets, output folder, seed, log; and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIGS, REPOSITORY
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from tiny_lip import OPTS, make_lip, split_folders

from schnet.config import load_config
from schnet.data.index import DatasetIndex, IndexRecord, write_index
from schnet.errors import InputError
from schnet.logs import stop_logging
from schnet.run_config import write_run_config
from schnet.setup import (
    Resume,
    load_model_config,
    setup_evaluation,
    setup_training,
)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny LIP below the data root; the loggers are left as they were."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    yield make_lip(tmp_path / "data")
    stop_logging()


@pytest.fixture
def opts(tmp_path: Path) -> list[str]:
    return [*OPTS, "OUTPUT_DIR", str(tmp_path / "out")]


def test_a_folder_that_the_machines_do_not_share_is_refused(
    tmp_path: Path, opts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One machine would resume and the other start, and each wait for ever for the other."""
    _touch(tmp_path, "model_init.pth")
    # The other process, on the other machine, says the same of restarts and sees an empty folder.
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, False if own is True else own])
    with pytest.raises(InputError, match="give a folder that all machines share"):
        setup_training([], opts, Resume.AUTO)


def _touch(tmp_path: Path, *names: str) -> None:
    for name in names:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).touch()


def test_cpu_is_taken_where_there_is_no_gpu(
    opts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg, _ = setup_training([], [*opts, "MODEL.DEVICE", "cuda"], Resume.NEVER)
    assert cfg.MODEL.DEVICE == "cpu"
    assert "there is no GPU: running on the CPU" in (tmp_path / "out" / "log.txt").read_text()


def test_gpu_is_kept_where_there_is_one(opts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_model_config([], [*opts, "MODEL.DEVICE", "cuda"]).MODEL.DEVICE == "cuda"


def test_one_gpu_for_several_processes_is_refused(
    opts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_model_config([], [*opts, "MODEL.DEVICE", "cuda:1"])
    monkeypatch.setattr(comm, "get_world_size", lambda: 8)
    with pytest.raises(InputError, match="MODEL.DEVICE is cuda:1 with 8 processes"):
        load_model_config([], [*opts, "MODEL.DEVICE", "cuda:1"])


def test_unknown_device_is_refused(opts: list[str]) -> None:
    with pytest.raises(InputError, match="MODEL.DEVICE"):
        load_model_config([], [*opts, "MODEL.DEVICE", "gpu"])


def test_apples_gpu_is_refused_where_there_is_none(
    opts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert load_model_config([], [*opts, "MODEL.DEVICE", "mps"]).MODEL.DEVICE == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="MODEL.DEVICE is mps, which this machine has not"):
        load_model_config([], [*opts, "MODEL.DEVICE", "mps"])


def test_tools_get_the_data_set_without_its_files(
    tmp_path: Path, opts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    cfg = load_model_config([], opts)
    assert len(MetadataCatalog.get(cfg.DATASETS.TEST[0]).stuff_classes) == 20
    assert not (tmp_path / "out").exists()


def test_class_count_of_another_data_set_is_refused(opts: list[str]) -> None:
    with pytest.raises(InputError, match="NUM_CLASSES is 18 and the data set lip_train has 20"):
        load_model_config([], [*opts, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "18"])


def test_another_label_list_of_the_same_length_is_refused(opts: list[str]) -> None:
    with pytest.raises(InputError, match="label 10 is 'Torso-skin' in the data set cihp_val"):
        load_model_config([], [*opts, "DATASETS.TEST", "('lip_val', 'cihp_val')"])


def test_names_that_nothing_has_registered_are_refused(opts: list[str]) -> None:
    for key in ("MODEL.META_ARCHITECTURE", "MODEL.SEM_SEG_HEAD.NAME"):
        with pytest.raises(InputError, match=f"{key} is 'Foo'"):
            load_model_config([], [*opts, key, "Foo"])


def test_unknown_data_set_is_refused_with_the_known_ones(opts: list[str]) -> None:
    with pytest.raises(InputError, match=r"lop_train.*lip_train"):
        load_model_config([], [*opts, "DATASETS.TRAIN", "('lop_train',)"])


def test_missing_and_empty_data_are_refused_before_anything_is_written(
    tmp_path: Path, data: Path, opts: list[str]
) -> None:
    images, _ = split_folders(data, "val")
    for photo in images.iterdir():
        photo.unlink()
    (images.parent / "val_id.txt").unlink()
    with pytest.raises(InputError, match="lip_val is empty"):
        setup_training([], opts, Resume.NEVER)
    images.rmdir()
    with pytest.raises(InputError, match="val_images"):
        setup_training([], opts, Resume.NEVER)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_none_are_refused_before_a_run_writes(
    tmp_path: Path, opts: list[str]
) -> None:
    (tmp_path / "w.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS names .*w.pth, .*a Git-LFS pointer"):
        setup_training([], [*opts, "MODEL.WEIGHTS", str(tmp_path / "w.pth")], Resume.NEVER)
    assert not (tmp_path / "out").exists()


def test_missing_weights_are_refused_before_the_model_is_built(opts: list[str]) -> None:
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS names nothing.pth"):
        setup_training([], [*opts, "MODEL.WEIGHTS", "nothing.pth"], Resume.NEVER)
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS names nothing.pth"):
        setup_evaluation([], [*opts, "MODEL.WEIGHTS", "nothing.pth"], Resume.NEVER)


BASE_FILES = ["MODEL.SAM.WEIGHTS", "sam.pth", "MODEL.CLIP.WEIGHTS", "clip.pt"]
ONLY_CLIP = [
    *("MODEL.BACKBONE.NAME", "ClipBackbone", "MODEL.SRM.ENABLED", "False"),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2', 'res3']"),
]
NO_CLIP = ["MODEL.SRM.ENABLED", "False"]


@pytest.mark.parametrize(
    ("overrides", "checked"),
    [
        ([], ["SAM", "CLIP"]),
        (NO_CLIP, ["SAM"]),
        ([*NO_CLIP, "MODEL.SEM_SEG_HEAD.CLASSIFIER", "text"], ["SAM", "CLIP"]),
        (ONLY_CLIP, ["CLIP"]),
    ],
)
def test_files_of_the_bases_that_are_built_are_checked_before_the_data_sets(
    tmp_path: Path,
    opts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    checked: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    contents = {"SAM": ("sam.pth", b"<html>"), "CLIP": ("clip.pt", b"PK\x03\x04")}
    reasons = {"SAM": "an HTML page", "CLIP": "a truncated archive"}
    for name, content in contents.values():
        Path(name).write_bytes(content)
    opts = [*opts, *BASE_FILES, *overrides]
    for base in checked:
        for prepare in (setup_training, setup_evaluation):
            with pytest.raises(InputError, match=f"MODEL.{base}.WEIGHTS .*{reasons[base]}"):
                prepare([], opts, Resume.NEVER)
        torch.save({"a": torch.ones(1)}, contents[base][0])
    # Now the bases are as they should be, and the data sets' turn comes.
    load_model_config([], opts)
    with pytest.raises(InputError, match="nowhere"):
        setup_training([], opts, Resume.NEVER)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_name_a_bad_base_once(tmp_path: Path, opts: list[str]) -> None:
    (tmp_path / "sam.pth").write_bytes(b"<html>")
    opts = [*opts, "MODEL.SAM.WEIGHTS", str(tmp_path / "sam.pth")]
    base = ("--config-file", str(CONFIGS / "Base-SCHNet.yaml"))
    command = [sys.executable, "train_net.py", *base, "--num-gpus", "2", *opts]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("an HTML page, not a weight file") == 1
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("held", "resume", "continues"),
    [
        ([], Resume.NEVER, False),
        (["log.txt", "metrics.json"], Resume.NEVER, False),
        ([], Resume.AUTO, False),
        (["model_init.pth"], Resume.AUTO, True),
        (["model_init.pth"], Resume.REQUIRED, True),
    ],
)
def test_starts_or_continues(
    tmp_path: Path, opts: list[str], held: list[str], resume: Resume, continues: bool
) -> None:
    _touch(tmp_path, *held)
    assert setup_training([], opts, resume)[1] is continues


def test_restart_of_the_same_launch_continues_and_says_so(
    tmp_path: Path, opts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    _touch(tmp_path, "model_init.pth")
    with pytest.raises(InputError, match="holds checkpoints of another run"):
        setup_training([], opts, Resume.NEVER)
    write_run_config(load_config([], opts), 0)
    assert setup_training([], opts, Resume.NEVER)[1]
    log = tmp_path / "out" / "log.txt"
    assert "(SLURM_RESTART_COUNT is 1): --resume auto is implied" in log.read_text()


@pytest.mark.parametrize(
    ("held", "resume", "told"),
    [
        (["model_best.pth"], Resume.NEVER, "holds checkpoints of another run .*--resume"),
        (["other.pth"], Resume.AUTO, "holds checkpoints of another run"),
        ([], Resume.REQUIRED, "--resume finds no checkpoint"),
        (["model_best.pth"], Resume.REQUIRED, "--resume finds no checkpoint"),
    ],
)
def test_folder_that_does_not_fit_is_refused_untouched(
    tmp_path: Path, opts: list[str], held: list[str], resume: Resume, told: str
) -> None:
    _touch(tmp_path, *held)
    with pytest.raises(InputError, match=told):
        setup_training([], opts, resume)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("*")) == held


def test_class_frequencies_follow_the_index(data: Path, opts: list[str]) -> None:
    weighted = [*opts, "MODEL.LOSS.CLASS_WEIGHTS", "sqrt_inverse"]
    with pytest.raises(InputError, match="train.json"):
        setup_training([], weighted, Resume.NEVER)
    classes = tuple(MetadataCatalog.get("lip_train").stuff_classes)
    images, labels = (str(folder) for folder in split_folders(data, "train"))
    record = IndexRecord("train_0.jpg", "train_0.png", 48, 32)
    for first in (30, 10):  # the second time, the value changes
        counts = (first,) + (10,) * 19
        write_index(data / "train.json", DatasetIndex(classes, images, labels, counts, (record,)))
        setup_training([], weighted, Resume.NEVER)
        found = MetadataCatalog.get("lip_train").class_frequencies
        assert found == pytest.approx([count / sum(counts) for count in counts])


def test_seed_is_set_and_a_negative_one_is_drawn_and_kept(tmp_path: Path, opts: list[str]) -> None:
    setup_training([], opts, Resume.NEVER)
    first = torch.rand(1)
    setup_training([], opts, Resume.NEVER)
    assert torch.equal(first, torch.rand(1))
    drawn, _ = setup_training([], [*opts, "SEED", "-1"], Resume.NEVER)
    assert drawn.SEED >= 0
    write_run_config(drawn, 0)
    _touch(tmp_path, "model_init.pth")
    resumed, _ = setup_training([], [*opts, "SEED", "-1"], Resume.AUTO)
    assert resumed.SEED == drawn.SEED


def test_evaluation_needs_weights_and_writes_beside_the_run(
    tmp_path: Path, opts: list[str]
) -> None:
    with pytest.raises(InputError, match="--eval-only has no weights"):
        setup_evaluation([], opts, Resume.NEVER)
    with pytest.raises(InputError, match="--resume finds no checkpoint"):
        setup_evaluation([], opts, Resume.REQUIRED)
    _touch(tmp_path, "log.txt", "config.yaml")
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "out" / "model_init.pth")
    cfg = setup_evaluation([], opts, Resume.REQUIRED)
    assert cfg.MODEL.WEIGHTS == str(tmp_path / "out" / "model_init.pth")
    assert (tmp_path / "out" / "log.txt").read_text() == ""
    assert (tmp_path / "out" / "config.yaml").read_text() == ""
    assert (tmp_path / "out" / "evaluation" / "log.txt").read_text()


def test_run_config_is_kept_when_a_resumed_run_differs(tmp_path: Path, opts: list[str]) -> None:
    out = tmp_path / "out"
    write_run_config(load_config([], opts), 0)
    written = (out / "config.yaml").read_text()
    write_run_config(load_config([], opts), 4)
    assert [path.name for path in out.iterdir()] == ["config.yaml"]
    write_run_config(load_config([], [*opts, "SOLVER.MAX_ITER", "9"]), 4)
    assert (out / "config.yaml").read_text() == written
    assert (
        yaml.safe_load((out / "config_resumed_0000004.yaml").read_text())["SOLVER"]["MAX_ITER"] == 9
    )


def test_a_new_run_moves_another_config_out_of_its_way(tmp_path: Path, opts: list[str]) -> None:
    out = tmp_path / "out"
    write_run_config(load_config([], opts), 0)
    for number in (1, 2):
        before = (out / "config.yaml").read_text()
        write_run_config(load_config([], [*opts, "SOLVER.MAX_ITER", str(number)]), 0)
        assert (out / f"config_earlier_{number}.yaml").read_text() == before
        assert yaml.safe_load((out / "config.yaml").read_text())["SOLVER"]["MAX_ITER"] == number


def test_written_config_reads_back_the_same(tmp_path: Path, opts: list[str]) -> None:
    cfg = load_config([], opts)
    write_run_config(cfg, 0)
    again = load_config([tmp_path / "out" / "config.yaml"])
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_evaluation_of_a_run_passes_over_a_damaged_newest_checkpoint(
    tmp_path: Path, opts: list[str]
) -> None:
    _touch(tmp_path, "model_0000007.pth")
    with pytest.raises(InputError, match=r"model_0000007\.pth"):
        setup_evaluation([], opts, Resume.AUTO)
    whole = tmp_path / "out" / "model_0000003.pth"
    torch.save({"model": {"weight": torch.ones(1)}}, whole)
    assert setup_evaluation([], opts, Resume.AUTO).MODEL.WEIGHTS == str(whole)
    damaged = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_0000007.pth")]
    with pytest.raises(InputError, match=r"MODEL\.WEIGHTS names .*empty"):
        setup_evaluation([], [*opts, *damaged], Resume.NEVER)
