"""Evaluation of a weight file, apart from any training."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from schnet.engine.hooks import Results
from schnet.engine.trainer import ParsingTrainer
from schnet.evaluation.parsing_evaluation import build_evaluator
from schnet.exported import build_trained_model
from schnet.setup import EVALUATION_FOLDER


def evaluate_weights(cfg: CfgNode) -> Results:
    """Evaluate MODEL.WEIGHTS on every data set of DATASETS.TEST, as TEST says.

    Args:
        cfg: config with existing MODEL.WEIGHTS: a checkpoint, a state dict or an export.

    Returns:
        The results, by task and metric; by data set first where there are several. The main
        process writes them below OUTPUT_DIR/evaluation/<data set>/.

    Raises:
        InputError: the weights do not fit the model, or a file of a data set cannot be used.
    """
    model = build_trained_model(cfg, ParsingTrainer.build_model)
    folder = Path(cfg.OUTPUT_DIR) / EVALUATION_FOLDER
    evaluators = [build_evaluator(cfg, name, folder / name) for name in cfg.DATASETS.TEST]
    return ParsingTrainer.test(cfg, model, evaluators)
