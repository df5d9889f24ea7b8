"""From what a user names to the weights, the config and the device that are meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from parsing_fakes import write_tiny_run

from schnet.errors import InputError
from schnet.trained import choose_device, find_weights, trained_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with `model_best.pth` and `config.yaml`."""
    return write_tiny_run(tmp_path_factory.mktemp("run"))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_a_runs_best_checkpoint_is_taken(run: Path) -> None:
    assert find_weights(run) == str(run / "model_best.pth")
    assert find_weights(str(run)) == str(run / "model_best.pth")
    assert find_weights(run / "model_best.pth") == str(run / "model_best.pth")


def test_else_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for iteration in (7, 12):
        state = {"model": {}, "iteration": iteration}
        torch.save(state, folder / f"model_{iteration:07d}.pth")
    assert find_weights(folder) == str(folder / "model_0000012.pth")


def test_a_folder_with_one_export(tmp_path: Path) -> None:
    touch(tmp_path, "a.safetensors")
    assert find_weights(tmp_path) == str(tmp_path / "a.safetensors")
    touch(tmp_path, "b.safetensors")
    with pytest.raises(InputError, match="several exports .a.safetensors, b.safetensors.*one file"):
        find_weights(tmp_path)


def test_other_files_of_weights_are_no_runs(tmp_path: Path) -> None:
    touch(tmp_path, "sam_vit_b.pth")
    with pytest.raises(InputError, match="no export, but sam_vit_b.pth: give the path of one file"):
        find_weights(tmp_path)
    touch(tmp_path, "a.safetensors")
    assert find_weights(tmp_path) == str(tmp_path / "a.safetensors")
    torch.save({"model": {}, "iteration": 7}, tmp_path / "model_0000007.pth")
    assert find_weights(tmp_path) == str(tmp_path / "model_0000007.pth")


def test_damaged_checkpoints_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "model_0000012.pth")
    with pytest.raises(InputError, match=r"not damaged \(model_0000012.pth\): restore") as refused:
        find_weights(tmp_path)
    assert "resume" not in str(refused.value) and "OUTPUT_DIR" not in str(refused.value)
    torch.save({"model": {}, "iteration": 7}, tmp_path / "model_0000007.pth")
    assert find_weights(tmp_path) == str(tmp_path / "model_0000007.pth")
    assert "model_0000012.pth, which is damaged" in caplog.text
    assert "model_0000007.pth is taken instead" in caplog.text
    assert "continues" not in caplog.text and "--resume" not in caplog.text


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder .*nothing"):
        find_weights(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no model: give the path"):
        find_weights(tmp_path)
    assert find_weights("https://example.org/a.pth") == "https://example.org/a.pth"


def test_the_config_beside_a_checkpoint_is_taken(run: Path) -> None:
    cfg = trained_config(run, "cpu", opts=["TEST.AUG.ENABLED", "True"])
    assert cfg.MODEL.WEIGHTS == str(run / "model_best.pth") and cfg.MODEL.SAM.VARIANT == "tiny"
    assert (cfg.MODEL.DEVICE, cfg.TEST.DTYPE, cfg.TEST.AUG.ENABLED) == ("cpu", "auto", True)
    assert cfg.is_frozen()
    assert trained_config(run, "cpu", "float32").TEST.DTYPE == "float32"
    assert trained_config(run, opts=["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"


def test_another_config_may_be_given(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.pth"
    moved.write_bytes((run / "model_best.pth").read_bytes())
    with pytest.raises(InputError, match="there is no config.yaml beside .*moved.pth"):
        trained_config(moved)
    more = tmp_path / "more.yaml"
    more.write_text("INPUT:\n  SIZE: [64, 32]\n")
    cfg = trained_config(moved, "cpu", config_files=[run / "config.yaml", more])
    assert list(cfg.INPUT.SIZE) == [64, 32] and cfg.MODEL.WEIGHTS == str(moved)


def test_strange_types_and_overrides_are_refused(run: Path) -> None:
    with pytest.raises(InputError, match="dtype is 'float16': give one of auto, float32, bfloat16"):
        trained_config(run, dtype="float16")
    with pytest.raises(InputError, match="NO.SUCH"):
        trained_config(run, opts=["NO.SUCH", "1"])


Patch = Callable[[bool, bool], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Patch:
    def there(cuda: bool, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if cuda else 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return there


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")],
)
def test_the_fastest_device_is_chosen(machine: Patch, cuda: bool, mps: bool, device: str) -> None:
    machine(cuda, mps)
    assert choose_device() == device


def test_under_torchrun_each_process_has_a_gpu_of_its_own(
    machine: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(True, False)
    for rank, device in (("0", "cuda:0"), ("1", "cuda:1"), ("3", "cuda:1"), ("x", "cuda")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert choose_device() == choose_device("cuda") == device
    assert choose_device("cuda:0") == "cuda:0" and choose_device("cpu") == "cpu"
    # As where CUDA_VISIBLE_DEVICES shows one alone.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == "cuda"


def test_a_device_that_is_asked_for_must_be_there(machine: Patch) -> None:
    machine(True, False)
    assert choose_device("cpu") == "cpu" and choose_device("cuda:1") == "cuda:1"
    for name in ("mps", "cuda:2"):
        with pytest.raises(InputError, match=f"'{name}', which this machine has not: give auto"):
            choose_device(name)
    machine(False, True)
    assert choose_device("mps") == "mps"
    with pytest.raises(InputError, match="'cuda:0', which this machine has not"):
        choose_device("cuda:0")
    for name in ("gpu", "", "cudax", "cuda:", "cuda:x", "cpu:0"):
        with pytest.raises(InputError, match=f"the device is '{name}': give auto, cpu, cuda, mps"):
            choose_device(name)
