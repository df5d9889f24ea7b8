"""The quickstart's steps and its closing report."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from conftest import REPOSITORY
from parsing_fakes import load_script

from schnet.config import load_config

RESULTS = {
    "protocol": "logits first",
    "images": 3,
    "classes": ["Background", "Hat", "Scarf"],
    "sem_seg": {
        "mIoU": 61.25,
        "pACC": 93.5,
        "IoU-Background": 97.0,
        "IoU-Hat": 25.5,
        "IoU-Scarf": None,
    },
}


@pytest.fixture
def quickstart() -> ModuleType:
    return load_script(REPOSITORY / "tools" / "quickstart.py")


def test_the_report_tells_scores_classes_and_files(quickstart: ModuleType) -> None:
    text = quickstart.report(RESULTS)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "mIoU 61.25 pixel accuracy 93.50" in lines
    assert "Hat 25.50" in lines
    assert "Scarf -" in lines
    for name in ("metrics.json", "model_best.pth", "contact_sheet.png"):
        assert f"output/quickstart/{name}" in text


def test_its_paths_are_those_of_its_config(quickstart: ModuleType) -> None:
    cfg = load_config([REPOSITORY / quickstart.CONFIG])
    assert str(quickstart.OUTPUT) == cfg.OUTPUT_DIR
    assert quickstart.RESULTS.parent.name == cfg.DATASETS.TEST[0]


def test_a_step_that_fails_ends_the_run_with_its_code(
    quickstart: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    quickstart.run_step("one", "-c", "print('hello')")
    assert "hello" in capfd.readouterr().out
    with pytest.raises(SystemExit) as caught:
        quickstart.run_step("two", "-c", "import sys; sys.exit(7)")
    assert caught.value.code == 7


def test_steps_run_with_this_python(quickstart: ModuleType, capfd: pytest.CaptureFixture) -> None:
    quickstart.run_step("which", "-c", "import sys; print(sys.executable)")
    assert sys.executable in capfd.readouterr().out
