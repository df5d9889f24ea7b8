"""The report at the end of a training, with the best weights' predictions."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn

from schnet.checkpoint import load_model_weights
from schnet.data.mapper import TestMapper
from schnet.engine.best import BEST_CHECKPOINT
from schnet.engine.modes import evaluation_mode
from schnet.evaluation.argmax import predicted_labels
from schnet.evaluation.test_time import build_label_model
from schnet.modeling.frozen import count_parameters
from schnet.reporting.headline import ParameterRow
from schnet.reporting.report import Predictor, write_report
from schnet.visualization import ByteArray

logger = logging.getLogger(__name__)


class ReportHook(HookBase):
    """Writes the report when a training has ended, early or not; on the main process.

    It must come after the hook of the writers, which close their files in `after_train` too.
    """

    def __init__(self, draw: Callable[[], Path]) -> None:
        """Take what draws the report.

        Args:
            draw: writes it and gives its path.
        """
        self._draw = draw

    def after_train(self) -> None:
        """Draw the report, unless an error or a preemption is what ended the training.

        The weights are safe by now: a report that cannot be drawn costs a warning and no more.
        """
        if sys.exc_info()[0] is not None:
            return
        try:
            logger.info("wrote %s", self._draw())
        except Exception as error:
            logger.warning(
                "the training is complete, and its report could not be drawn (%s: %s): put that "
                "right and make it with tools/report.py",
                type(error).__name__,
                error,
                exc_info=True,
            )


def build_report_hook(cfg: CfgNode, model: nn.Module) -> ReportHook:
    """Make the hook of a run.

    Args:
        cfg: the run's config.
        model: the trained model itself; it shows the best weights for as long as the report takes.
    """
    return ReportHook(lambda: draw_report(cfg, model, best_weights(cfg)))


def best_weights(cfg: CfgNode) -> Path | None:
    """The run's best checkpoint; None where it kept none."""
    path = Path(cfg.OUTPUT_DIR) / f"{BEST_CHECKPOINT}.pth"
    return path if path.is_file() else None


def draw_report(cfg: CfgNode, model: nn.Module, weights: Path | None) -> Path:
    """Write the report of a run's folder with a model's predictions of its best and worst images.

    Args:
        cfg: OUTPUT_DIR, and what `Parser.from_config` reads; the data sets are registered.
        model: the model itself, without a wrapper; unchanged afterwards.
        weights: a checkpoint to predict with; None takes the model's own weights.

    Returns:
        The file.

    Raises:
        InputError: the weights do not fit, or `write_report` refuses.
    """
    name = "the last weights" if weights is None else weights.name
    with _borrowed(model, weights):
        predictor = Predictor(build_predict(cfg, model), name)
        return write_report(Path(cfg.OUTPUT_DIR), predictor, parameter_rows(model))


def build_predict(cfg: CfgNode, model: nn.Module) -> Callable[[Mapping[str, Any]], ByteArray]:
    """Make a function from a data set's dict to labels (H, W), as an evaluation predicts them."""
    test_model, mapper = build_label_model(cfg, model), TestMapper(cfg)

    def predict(dataset_dict: Mapping[str, Any]) -> ByteArray:
        with torch.inference_mode():
            return predicted_labels(test_model([mapper(dict(dataset_dict))])[0])

    return predict


def parameter_rows(model: nn.Module) -> list[ParameterRow]:
    """Count the parameters of the model's parts; a part of both kinds is told by its own parts."""
    rows = []
    for name, part in model.named_children():
        trained, frozen = count_parameters(part)
        if not trained or not frozen:
            rows.append(ParameterRow(name, trained, frozen))
            continue
        rows += [
            ParameterRow(f"{name}.{inner}", *count_parameters(child))
            for inner, child in part.named_children()
        ]
    return [row for row in rows if row.trained or row.frozen]


@contextlib.contextmanager
def _borrowed(model: nn.Module, weights: Path | None) -> Iterator[None]:
    """Put other weights into a model meanwhile, in evaluation mode; then its own are back.

    A second model would need the memory of the frozen bases twice. These stay as they are, so
    that only what trains is put aside, on the CPU.
    """
    own = _changeable(model) if weights is not None else {}
    try:
        if weights is not None:
            load_model_weights(model, str(weights), "the report's weights")
        with evaluation_mode(model):
            yield
    finally:
        with torch.no_grad():
            for name, tensor in model.state_dict(keep_vars=True).items():
                if name in own:
                    tensor.copy_(own[name])


def _changeable(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trained parameters and of all buffers."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in model.state_dict(keep_vars=True).items()
        if tensor.requires_grad or not isinstance(tensor, nn.Parameter)
    }
