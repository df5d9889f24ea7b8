"""A series of seeds: what is trained, what is reported, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from parsing_fakes import load_script
from PIL import Image
from report_runs import CLASSES, register_dolls, write_config, write_evaluation

from schnet.errors import InputError
from schnet.reporting.run_files import read_evaluation
from schnet.reporting.seeds import spread_of, write_summary

tool = load_script("tools/train_seeds.py")

# Stands in for train_net.py: notes its arguments, and writes what a run writes, its mIoU the seed.
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
words = sys.argv[1:]
value = lambda name: words[len(words) - 1 - words[::-1].index(name) + 1]
seed, out = int(value("SEED")), Path(value("OUTPUT_DIR"))
base = Path(__file__).parent
with open(base / "calls.txt", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
codes = json.loads((base / "codes.json").read_text())
if codes.get(str(seed)) == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (base / "waiting").touch()
    time.sleep(60)
if codes.get(str(seed)) == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if codes.get(str(seed)):
    sys.exit(codes[str(seed)])
content = json.loads((base / "evaluation.json").read_text())
content["sem_seg"]["mIoU"] = 50.0 + seed
folder = out / "inference" / "dolls_val"
folder.mkdir(parents=True, exist_ok=True)
(folder / "evaluation.json").write_text(json.dumps(content))
"""


class _Series:
    """A folder with the fake script, and the arguments of a series."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.script = folder / "fake.py"
        self.script.write_text(FAKE, encoding="utf-8")
        write_evaluation(folder, register_dolls(folder / "data"))
        write_config(folder)
        self.codes()

    def codes(self, **codes: int | str) -> None:
        """Choose what the seeds end with."""
        plain = {name.removeprefix("seed"): code for name, code in codes.items()}
        (self.folder / "codes.json").write_text(json.dumps(plain), encoding="utf-8")

    def words(self, *seeds: int, opts: tuple[str, ...] = ()) -> list[str]:
        """The command line."""
        given = ["--seeds", *map(str, seeds), "OUTPUT_DIR", str(self.out), *opts]
        return ["--config-file", str(self.folder / "config.yaml"), *given]

    def run(self, *seeds: int, opts: tuple[str, ...] = ()) -> int:
        """Run the series in this process."""
        return int(tool.main(self.words(*seeds, opts=opts), script=self.script))

    def calls(self) -> list[list[str]]:
        """The arguments of all runs so far."""
        file = self.folder / "calls.txt"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def series(tmp_path: Path) -> _Series:
    return _Series(tmp_path)


def test_each_seed_is_trained_and_the_spread_reported(
    series: _Series, capsys: pytest.CaptureFixture[str]
) -> None:
    assert series.run(0, 1, 5, opts=("SOLVER.MAX_ITER", "9")) == 0
    calls = series.calls()
    assert len(calls) == 3
    assert calls[2][2:6] == ["--num-gpus", "1", "--resume", "auto"]
    assert calls[2][-4:] == ["SEED", "5", "OUTPUT_DIR", str(series.out / "seed_5")]
    assert ["SOLVER.MAX_ITER", "9"] == calls[2][8:10]

    content = json.loads((series.out / "seeds.json").read_text(encoding="utf-8"))
    metrics = content["datasets"]["dolls_val"]["metrics"]
    assert metrics["mIoU"] == {
        "values": {"0": 50.0, "1": 51.0, "5": 55.0},
        "mean": 52.0,
        "deviation": pytest.approx(statistics.stdev([50, 51, 55])),
        "minimum": 50.0,
        "maximum": 55.0,
    }
    assert set(metrics) == {"mIoU", "pACC", "mACC", "mBF", *(f"IoU-{name}" for name in CLASSES)}
    table = (series.out / "seeds.txt").read_text(encoding="utf-8")
    row = next(line for line in table.splitlines() if line.startswith("| mIoU "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["mIoU", "52.00", "2.65", "50.00", "55.00", "50.00", "51.00", "55.00"]
    assert "by hand" in table
    with Image.open(series.out / "seeds.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    shown = capsys.readouterr().out
    assert "seed 5 (3 of 3)" in shown and "| mIoU " in shown


def test_finished_seeds_are_not_trained_again(series: _Series) -> None:
    series.codes(seed1=3)
    assert series.run(0, 1) == 3
    assert len(series.calls()) == 2
    series.codes()
    assert series.run(0, 1, 2) == 0
    assert [call[-3] for call in series.calls()] == ["0", "1", "1", "2"]


def test_finished_seeds_of_another_config_are_not_mixed_in(series: _Series) -> None:
    assert series.run(0) == 0
    with pytest.raises(InputError, match=r"seed_0 was trained with another config .*SOLVER"):
        series.run(0, 1, opts=("SOLVER.MAX_ITER", "7"))
    assert len(series.calls()) == 1


def test_a_failing_seed_is_named_and_the_others_are_reported(
    series: _Series, capsys: pytest.CaptureFixture[str]
) -> None:
    series.codes(seed1=7, seed2="kill")
    assert series.run(0, 1, 2, 3) == 7
    assert len(series.calls()) == 4
    shown = capsys.readouterr()
    assert "seed 1 failed with exit code 7" in shown.err
    assert f"seed 2 failed with exit code {128 + signal.SIGKILL}" in shown.err
    assert "not finished: seed 1, 2" in shown.err
    content = json.loads((series.out / "seeds.json").read_text(encoding="utf-8"))
    values = content["datasets"]["dolls_val"]["metrics"]["mIoU"]["values"]
    assert values == {"0": 50.0, "3": 53.0}


def test_a_preempted_seed_ends_the_series(series: _Series) -> None:
    series.codes(seed0=4, seed1=75)
    assert series.run(0, 1, 2) == 75
    assert len(series.calls()) == 2
    assert not (series.out / "seeds.json").exists()


def test_a_signal_reaches_the_run_and_its_code_is_passed_on(series: _Series) -> None:
    series.codes(seed1="wait")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]; from pathlib import Path; import train_seeds; "
        "sys.exit(train_seeds.main(sys.argv[3:], script=Path(sys.argv[2])))"
    )
    words = [str(REPOSITORY / "tools"), str(series.script), *series.words(0, 1, 2)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], env=os.environ.copy())
    try:
        for _ in range(600):
            if (series.folder / "waiting").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 75
    finally:
        process.kill()
    assert len(series.calls()) == 2
    assert (series.out / "seeds.json").is_file()


@pytest.mark.parametrize("seeds", [(-1,), (2, 2)])
def test_seeds_are_different_numbers_from_0(series: _Series, seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"--seeds is"):
        series.run(*seeds)


def test_foreign_files_stay(series: _Series) -> None:
    series.out.mkdir()
    (series.out / "seeds.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"seeds.txt was not written by"):
        series.run(0)
    assert series.calls() == []


def test_a_damaged_record_is_named(series: _Series) -> None:
    folder = series.out / "seed_0"
    folder.mkdir(parents=True)
    (folder / "seed.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"seed.json is no record of a seed"):
        series.run(0)


def test_spread_leaves_out_what_is_undefined() -> None:
    spread = spread_of({0: 1.0, 1: None, 2: float("nan"), 3: 4.0})
    assert (spread.mean, spread.minimum, spread.maximum) == (2.5, 1.0, 4.0)
    assert spread.deviation == pytest.approx(1.5 * 2**0.5)
    assert spread.values[2] is None
    alone = spread_of({0: 1.0})
    assert (alone.mean, alone.deviation) == (1.0, None)
    nothing = spread_of({0: None})
    assert (nothing.mean, nothing.deviation, nothing.minimum) == (None, None, None)


def test_several_data_sets_are_reported_side_by_side(series: _Series) -> None:
    evaluation = read_evaluation(series.folder / "evaluation.json")
    text = write_summary(series.folder, {"a": {0: evaluation}, "b": {0: evaluation}})
    assert text.startswith("a, 1 seed, protocol") and "\nb, 1 seed, protocol" in text
    with Image.open(series.folder / "seeds.png") as picture:
        assert picture.width > 1200
