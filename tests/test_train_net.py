"""train_net.py end to end on a tiny data set, and what it says about bad input."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from parsing_fakes import load_script
from tiny_lip import HEIGHT, OPTS, WIDTH, make_lip, save, split_folders

from schnet.logs import stop_logging

train_net = load_script("train_net.py")
REPOSITORY = Path(train_net.__file__).resolve().parent
CONFIG = REPOSITORY / "projects" / "SCHNet" / "configs" / "Base-SCHNet.yaml"

Change = Callable[[Path], None]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny LIP below the data root; the loggers are left as they were."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    yield make_lip(tmp_path / "data")
    stop_logging()


def _words(tmp_path: Path, *options: str, opts: tuple[str, ...] = ()) -> list[str]:
    folder = ("OUTPUT_DIR", str(tmp_path / "out"))
    return ["--config-file", str(CONFIG), *options, *OPTS, *folder, *opts]


def _main(tmp_path: Path, *options: str, opts: tuple[str, ...] = ()) -> dict[str, dict[str, float]]:
    results = train_net.main(_words(tmp_path, *options, opts=opts))
    assert results is not None
    return results


def _refusal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, *options: str, opts: tuple[str, ...] = ()
) -> str:
    """Run what must be refused: exit code 2 and one sentence, which is returned."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        train_net.main(_words(tmp_path, *options, opts=opts))
    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert "Traceback" not in shown.out + shown.err
    lines = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_trains_resumes_and_evaluates_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run through everything a user does, as each step needs the one before."""
    out = tmp_path / "out"
    results = _main(tmp_path)
    assert {"mIoU", "pACC", "mACC", "IoU-Left-shoe"} <= set(results["sem_seg"])
    assert (out / "config.yaml").is_file()
    before = _digests(out)

    told = _refusal(capsys, tmp_path)
    assert f"OUTPUT_DIR {out} holds checkpoints of another run" in told
    assert _digests(out) == before

    weights = ("MODEL.WEIGHTS", str(out / "model_final.pth"))
    again = _main(tmp_path, "--eval-only", opts=weights)
    assert again["sem_seg"] == pytest.approx(results["sem_seg"], rel=0, abs=0, nan_ok=True)
    unchanged = {k: v for k, v in _digests(out).items() if not k.startswith("evaluation/")}
    assert unchanged == before
    written = json.loads((out / "evaluation" / "lip_val" / "evaluation.json").read_text())
    assert written["sem_seg"]["mIoU"] == pytest.approx(results["sem_seg"]["mIoU"])

    _main(tmp_path, "--resume", opts=("SOLVER.MAX_ITER", "6"))
    last = torch.load(out / "model_final.pth", weights_only=True)
    assert last["iteration"] == 5
    iterations = [
        json.loads(x)["iteration"] for x in (out / "metrics.json").read_text().split("\n") if x
    ]
    assert iterations == [1, 3, 5]  # the evaluations' and the last

    newest = _main(tmp_path, "--eval-only", "--resume")
    assert newest != results


def test_starts_with_resume_auto_in_bfloat16_with_workers(tmp_path: Path) -> None:
    opts = (
        *("SOLVER.AMP.ENABLED", "True", "DATALOADER.NUM_WORKERS", "1", "SOLVER.MAX_ITER", "1"),
        *("MODEL.SAM.FREEZE", "False", "MODEL.SEM_SEG_HEAD.CLASSIFIER", "text"),
    )
    assert _main(tmp_path, "--resume", "auto", opts=opts)["sem_seg"]
    state = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["model"]
    assert all(value.dtype is not torch.bfloat16 for value in state.values())


@pytest.mark.parametrize(
    ("options", "opts", "told"),
    [
        ((), ("MODEL.SAM.VARIANT", "vit_x"), "MODEL.SAM.VARIANT is 'vit_x'"),
        ((), ("MODEL.CLIP.VARIANT", "RN102"), "MODEL.CLIP.VARIANT is 'RN102'"),
        ((), ("MODEL.SAM.WEIGHTS", "no/sam.pth"), "MODEL.SAM.WEIGHTS names no/sam.pth"),
        ((), ("MODEL.CLIP.WEIGHTS", "no/clip.pt"), "MODEL.CLIP.WEIGHTS names no/clip.pt"),
        ((), ("MODEL.WEIGHTS", "no/model.pth"), "MODEL.WEIGHTS names no/model.pth"),
        ((), ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "18"), "NUM_CLASSES is 18 and the data set"),
        ((), ("DATASETS.TEST", "('lip_tset',)"), "lip_tset"),
        (("--resume",), (), "--resume finds no checkpoint"),
        (("--eval-only",), (), "--eval-only has no weights"),
        (("--num-gpus", "0"), ("SEED",), "are not pairs"),
        ((), ("--eval-only",), "--eval-only stands among"),
        (("--config-file", "no/such.yaml"), (), "no config file no/such.yaml"),
    ],
)
def test_impossible_runs_are_refused_and_leave_no_checkpoint(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    opts: tuple[str, ...],
    told: str,
) -> None:
    assert told in _refusal(capsys, tmp_path, *options, opts=opts)
    assert not list((tmp_path / "out").glob("*.pth"))
    assert not (tmp_path / "out" / "config.yaml").exists()


def _label_21(folder: Path) -> None:
    for label in split_folders(folder, "train")[1].iterdir():
        save(label, np.full((HEIGHT, WIDTH), 21))


def _small_label(folder: Path) -> None:
    for label in split_folders(folder, "train")[1].iterdir():
        save(label, np.zeros((HEIGHT - 8, WIDTH)))


def _broken_image(folder: Path) -> None:
    for image in split_folders(folder, "train")[0].iterdir():
        image.write_bytes(b"no image")


def _small_test_label(folder: Path) -> None:
    for label in split_folders(folder, "val")[1].iterdir():
        save(label, np.zeros((HEIGHT - 8, WIDTH)))


def _no_images(folder: Path) -> None:
    images = split_folders(folder, "train")[0]
    for path in (*images.iterdir(), images.parent / "train_id.txt"):
        path.unlink()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_label_21, ["train_", ".png", "21"]),
        (_small_label, ["train_", "48", "40"]),
        (_broken_image, ["train_", ".jpg"]),
        (_small_test_label, ["val_", "48", "40"]),
        (_no_images, ["lip_train is empty"]),
    ],
)
def test_bad_files_are_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    data: Path,
    change: Change,
    told: list[str],
    workers: int,
) -> None:
    change(data)
    sentence = _refusal(capsys, tmp_path, opts=("DATALOADER.NUM_WORKERS", str(workers)))
    assert all(part in sentence for part in told), sentence


def test_resuming_with_other_trained_parameters_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _main(tmp_path, opts=("SOLVER.MAX_ITER", "1"))
    before = _digests(tmp_path / "out")
    told = _refusal(
        capsys, tmp_path, "--resume", opts=("SOLVER.MAX_ITER", "2", "MODEL.SAM.FREEZE", "False")
    )
    assert f"differ from those of {tmp_path / 'out' / 'model_final.pth'} (optimizer" in told
    assert told.endswith("resume with the run's config.yaml or start a new OUTPUT_DIR")
    after = _digests(tmp_path / "out")
    assert {name: after[name] for name in before if name != "log.txt"} == {
        name: digest for name, digest in before.items() if name != "log.txt"
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk")
def test_full_disk_while_training_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The metrics' file stands for all: its writes fail from the first on."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").symlink_to("/dev/full")
    told = _refusal(capsys, tmp_path)
    assert "No space left on device): free space or choose another folder" in told
    assert "Traceback" not in (tmp_path / "out" / "log.txt").read_text()


def test_weights_of_another_class_count_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _main(tmp_path, opts=("SOLVER.MAX_ITER", "1"))
    state = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)["model"]
    weights = tmp_path / "eighteen.pth"
    torch.save({name: v[:18] if v.shape[:1] == (20,) else v for name, v in state.items()}, weights)
    before = _digests(tmp_path / "out")
    told = _refusal(capsys, tmp_path, "--eval-only", opts=("MODEL.WEIGHTS", str(weights)))
    assert "trained for 18 classes" in told
    assert _digests(tmp_path / "out") == {**_digests(tmp_path / "out"), **before}


def test_two_processes_say_bad_input_once_and_exit_with_2(tmp_path: Path, data: Path) -> None:
    """As a user starts it: a real process, with two of its own."""
    _broken_image(data)
    done = subprocess.run(
        [sys.executable, "train_net.py", *_words(tmp_path, "--num-gpus", "2")],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
