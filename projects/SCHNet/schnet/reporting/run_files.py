"""What a run's folder tells about the run; nothing is built, and what is missing stays empty."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from schnet.checkpoint import FINAL_CHECKPOINT
from schnet.errors import InputError
from schnet.evaluation.per_image import PER_IMAGE_FILE, ImageScore, read_scores
from schnet.evaluation.report import RESULT_FILE
from schnet.reporting.history import Best, History, read_history
from schnet.run_config import CONFIG_FILE

LOG_FILE = "log.txt"
EVALUATION_FOLDERS = ("inference", "evaluation")
"""Of a training, and of `--eval-only`."""

_STARTED = re.compile(r"training iterations (\d+) to \d+\s*$")
_STOPPED = re.compile(r"training ends before its last iteration: (.*\S)")
_ENVIRONMENT = re.compile(r"^\[.*DEBUG: environment:\s*$")
_RULE = re.compile(r"^-{3,}[ -]*$")


@dataclass(frozen=True)
class Evaluation:
    """One data set's `evaluation.json`, and what lies beside it.

    Attributes:
        folder: where it was read from.
        dataset: registered name.
        protocol: one line: how the predictions were made.
        images: how many were evaluated.
        classes: K names.
        metrics: percent, by name; None where undefined.
        pixels: (K, K) pixel counts, rows the truth, columns the prediction.
        scores: of the images, from `per_image.csv`; None where there is no such file.
    """

    folder: Path
    dataset: str
    protocol: str
    images: int
    classes: Sequence[str]
    metrics: Mapping[str, float | None]
    pixels: npt.NDArray[np.int64]
    scores: Sequence[ImageScore] | None


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        folder: OUTPUT_DIR.
        config: what `config.yaml` holds; empty where there is none.
        config_texts: the config files as they are, by name, the run's own first.
        history: the run's numbers.
        evaluations: the newest of each data set.
        resumes: iterations that a process continued from.
        environment: names and values, as the newest process logged them.
        stop_reason: why the run ended before its last iteration; empty where it did not.
    """

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    config_texts: Mapping[str, str] = field(default_factory=dict)
    history: History = field(default_factory=lambda: History(()))
    evaluations: Sequence[Evaluation] = ()
    resumes: Sequence[int] = ()
    environment: Sequence[tuple[str, str]] = ()
    stop_reason: str = ""

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of a config key such as `SOLVER.MAX_ITER`."""
        value: Any = self.config
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value

    @property
    def datasets(self) -> list[str]:
        """The names of DATASETS.TEST."""
        return [str(name) for name in self.setting("DATASETS.TEST", ())]

    @property
    def best_metric(self) -> str:
        """TEST.BEST_METRIC."""
        return str(self.setting("TEST.BEST_METRIC", "mIoU"))

    @cached_property
    def best(self) -> Best | None:
        """The best value of TEST.BEST_METRIC, as the run's numbers have it."""
        mode = str(self.setting("TEST.BEST_MODE", "auto"))
        return self.history.best(self.best_metric, mode, self.datasets)

    @property
    def is_finished(self) -> bool:
        """Whether the run wrote its final checkpoint."""
        return (self.folder / f"{FINAL_CHECKPOINT}.pth").is_file()


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        InputError: it is no folder of a run, or one of its files is damaged.
    """
    history = read_history(folder)
    texts = _config_texts(folder)
    if not history.records and CONFIG_FILE not in texts:
        raise InputError(
            f"{folder} holds neither metrics.json nor {CONFIG_FILE}: give the OUTPUT_DIR of a run "
            "of train_net.py"
        )
    config = _parse_yaml(folder / CONFIG_FILE, texts.get(CONFIG_FILE, ""))
    log = _read_log(folder / LOG_FILE)
    run = Run(
        folder,
        config,
        texts,
        history,
        resumes=sorted(log.resumes),
        environment=log.environment,
        stop_reason=log.stop_reason,
    )
    held = sorted(path.parent.name for path in folder.glob(f"inference/*/{RESULT_FILE}"))
    found = [_newest_evaluation(folder, name) for name in run.datasets or held]
    return replace(run, evaluations=[evaluation for evaluation in found if evaluation is not None])


def _config_texts(folder: Path) -> dict[str, str]:
    paths = [folder / CONFIG_FILE, *sorted(folder.glob("config_resumed_*.yaml"))]
    return {
        path.name: path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file()
    }


def _parse_yaml(path: Path, text: str) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f"the run's config {path} cannot be read ({' '.join(str(error).split())}): restore it"
        ) from error
    return content if isinstance(content, Mapping) else {}


@dataclass
class _Log:
    """What the log tells, of its newest process where it holds several."""

    resumes: set[int] = field(default_factory=set)
    stop_reason: str = ""
    environment: list[tuple[str, str]] = field(default_factory=list)


def _read_log(path: Path) -> _Log:
    log = _Log()
    if not path.is_file():
        return log
    rules = 2
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if started := _STARTED.search(line):
                log.stop_reason = ""
                log.resumes |= {int(started.group(1))} - {0}
            elif stopped := _STOPPED.search(line):
                log.stop_reason = stopped.group(1)
            elif _ENVIRONMENT.match(line):
                rules, log.environment = 0, []
            elif rules < 2 and _RULE.match(line):
                rules += 1
            elif rules == 1:
                # The values' column is two blanks away; below it are more than we show.
                name, _, value = line.strip().partition("  ")
                log.environment.append((name, value.strip()))
    return log


def _newest_evaluation(folder: Path, dataset: str) -> Evaluation | None:
    paths = [folder / kind / dataset / RESULT_FILE for kind in EVALUATION_FOLDERS]
    found = [path for path in paths if path.is_file()]
    if not found:
        return None
    return read_evaluation(max(found, key=lambda path: path.stat().st_mtime))


def read_evaluation(path: Path) -> Evaluation:
    """Read an `evaluation.json` and the `per_image.csv` beside it.

    Raises:
        InputError: one of them is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Evaluation(
            folder=path.parent,
            dataset=content["dataset"],
            protocol=content["protocol"],
            images=content["images"],
            classes=content["classes"],
            metrics=content["sem_seg"],
            pixels=np.array(content["confusion_matrix"]["pixels"], dtype=np.int64),
            scores=_read_scores(path.with_name(PER_IMAGE_FILE)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not as an evaluation writes it ({type(error).__name__}: {error}): evaluate "
            "again with train_net.py --eval-only"
        ) from error


def _read_scores(path: Path) -> tuple[ImageScore, ...] | None:
    """The images that have an mIoU; None where there is no file."""
    if not path.is_file():
        return None
    try:
        return tuple(score for score in read_scores(path) if math.isfinite(score.mIoU))
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path} is not as an evaluation writes it ({type(error).__name__}: {error}): evaluate "
            "again with train_net.py --eval-only"
        ) from error
