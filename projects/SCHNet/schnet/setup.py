"""What every entry point does first: config, data sets, device, output folder, log, seed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng

import schnet.modeling  # noqa: F401  registers the architectures
from schnet.checkpoint import choose_for_all, find_checkpoints, latest_checkpoint
from schnet.config import load_config
from schnet.data.catalog import (
    class_frequencies,
    load_registered,
    register_custom,
    register_datasets,
    require_registered,
)
from schnet.data.custom import CustomPaths, require_mirror_pairs
from schnet.errors import InputError
from schnet.evaluation.watched_metric import build_watched_metric
from schnet.export_file import is_export
from schnet.logs import start_logging
from schnet.restarts import find_restart
from schnet.run_config import CONFIG_FILE, read_run_config
from schnet.wandb_package import import_wandb
from schnet.weight_files import check_weights

logger = logging.getLogger(__name__)

EVALUATION_FOLDER = "evaluation"

PathLike = str | os.PathLike[str]


class Resume(Enum):
    """What a run does about checkpoints that its output folder holds."""

    NEVER = "never"
    """Start; a folder with checkpoints is refused."""
    REQUIRED = "required"
    """Continue; a folder without a checkpoint is refused."""
    AUTO = "auto"
    """Continue where there is a checkpoint, start where there is none."""


def load_model_config(config_files: Sequence[PathLike], opts: Sequence[str] = ()) -> CfgNode:
    """Read the config for a tool that needs the model and no training data.

    The files of SAM and CLIP are located, fetched into the cache where they are remote, and
    checked to be weight files; no other file is touched.

    Registers the data sets, so that `MetadataCatalog.get(cfg.DATASETS.TEST[0])` has the classes,
    palette and prompts.

    Args:
        config_files: YAML files, later ones on top.
        opts: alternating keys and values.

    Returns:
        A frozen config whose device exists and whose class count is the data set's.

    Raises:
        InputError: the config is wrong, does not fit its data sets, or names no weight files.
    """
    cfg = load_config(config_files, opts).clone()
    cfg.defrost()
    _resolve_device(cfg)
    cfg.freeze()
    register_datasets()
    _register_custom(cfg)
    _check_registered(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _check_classes(cfg, name)
    _check_mirroring(cfg)
    _check_bases(cfg)
    return cfg


def setup_training(
    config_files: Sequence[PathLike], opts: Sequence[str], resume: Resume
) -> tuple[CfgNode, bool]:
    """Prepare a training run, in each of its processes; writes nothing but the log.

    Args:
        config_files: YAML files, later ones on top.
        opts: alternating keys and values.
        resume: what to do about checkpoints in OUTPUT_DIR; NEVER is AUTO where torchrun or SLURM
            start this run again.

    Returns:
        The config of the run, frozen, with a seed; and whether to continue.

    Raises:
        InputError: the config, a data set, MODEL.WEIGHTS or the output folder cannot be used, or
            Weights & Biases is wanted and not installed.
    """
    cfg = load_model_config(config_files, opts)
    build_watched_metric(cfg)
    if cfg.WANDB.ENABLED:
        import_wandb()
    restart = find_restart(cfg.OUTPUT_DIR) if resume is Resume.NEVER else ""
    # The main process's word counts: what a restart is known by may be its alone.
    restart = comm.all_gather(restart)[0]
    continues = _decide_resume(cfg.OUTPUT_DIR, Resume.AUTO if restart else resume)
    _require_one_folder(cfg.OUTPUT_DIR, continues)
    # Their files are missing now rather than after the model is built.
    load_registered(cfg.DATASETS.TRAIN)
    for name in cfg.DATASETS.TEST:
        load_registered([name])
    _register_class_frequencies(cfg)
    if cfg.MODEL.WEIGHTS and not continues:
        check_weights(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    cfg = _resolve_seed(cfg, continues)
    start_logging(Path(cfg.OUTPUT_DIR) / "log.txt", comm.get_rank())
    _log_run(cfg)
    if restart:
        logger.info("this run was started again (%s): --resume auto is implied", restart)
    seed_all_rng(cfg.SEED)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    torch.backends.cudnn.deterministic = not cfg.CUDNN_BENCHMARK
    comm.synchronize()
    return cfg, continues


def setup_evaluation(
    config_files: Sequence[PathLike], opts: Sequence[str], resume: Resume
) -> CfgNode:
    """Prepare an evaluation, in each of its processes; a run's own files stay as they are.

    Args:
        config_files: YAML files, later ones on top.
        opts: alternating keys and values.
        resume: REQUIRED takes the newest checkpoint of OUTPUT_DIR that is not damaged, AUTO does
            where there is one; otherwise MODEL.WEIGHTS is evaluated.

    Returns:
        The config, frozen; MODEL.WEIGHTS is a file that exists.

    Raises:
        InputError: the config, a data set or the weights cannot be used.
    """
    cfg = load_model_config(config_files, opts).clone()
    cfg.defrost()
    newest = latest_checkpoint(cfg.OUTPUT_DIR)
    if resume is Resume.REQUIRED or (resume is Resume.AUTO and newest is not None):
        _decide_resume(cfg.OUTPUT_DIR, resume)
        cfg.MODEL.WEIGHTS = choose_for_all(cfg.OUTPUT_DIR)
    if not cfg.MODEL.WEIGHTS:
        raise InputError(
            "--eval-only has no weights to evaluate: give MODEL.WEIGHTS <file>, or --resume for "
            f"the newest checkpoint of OUTPUT_DIR {cfg.OUTPUT_DIR}"
        )
    cfg.MODEL.WEIGHTS = check_weights(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    cfg.freeze()
    for name in cfg.DATASETS.TEST:
        load_registered([name])
    start_logging(Path(cfg.OUTPUT_DIR) / EVALUATION_FOLDER / "log.txt", comm.get_rank())
    _log_run(cfg)
    seed_all_rng(max(cfg.SEED, 0))
    comm.synchronize()
    return cfg


def _resolve_device(cfg: CfgNode) -> None:
    """Fall back to the CPU where there is no GPU; `_log_run` says so when logging has begun."""
    if ":" in cfg.MODEL.DEVICE and comm.get_world_size() > 1:
        raise InputError(
            f"config key MODEL.DEVICE is {cfg.MODEL.DEVICE} with {comm.get_world_size()} "
            "processes, each of which takes a GPU of its own: give cuda, and choose GPUs by "
            "CUDA_VISIBLE_DEVICES"
        )
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.DEVICE.startswith("mps") and not torch.backends.mps.is_available():
        raise InputError(
            f"config key MODEL.DEVICE is {cfg.MODEL.DEVICE}, which this machine has not: give cpu"
        )


def _check_registered(cfg: CfgNode) -> None:
    """Refuse names that no module has registered; Detectron2 would end in a KeyError."""
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.SEM_SEG_HEAD.NAME", cfg.MODEL.SEM_SEG_HEAD.NAME, SEM_SEG_HEADS_REGISTRY),
    ):
        if name not in registry:
            raise InputError(f"config key {key} is {name!r}, which is not registered: correct it")


def _check_classes(cfg: CfgNode, name: str) -> None:
    """The data set must have as many classes as the head, and those it is trained on."""
    require_registered(name)
    classes = MetadataCatalog.get(name).stuff_classes
    if len(classes) != cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES:
        raise InputError(
            f"config key MODEL.SEM_SEG_HEAD.NUM_CLASSES is {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES} "
            f"and the data set {name} has {len(classes)} classes: set it to {len(classes)} or "
            "take another data set"
        )
    trained = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_classes
    for label, (ours, theirs) in enumerate(zip(trained, classes, strict=True)):
        if ours != theirs:
            raise InputError(
                f"label {label} is {theirs!r} in the data set {name} and {ours!r} in "
                f"{cfg.DATASETS.TRAIN[0]}: name data sets of one label list in DATASETS"
            )


def _register_custom(cfg: CfgNode) -> None:
    """Register the user's own data set, where the config describes one."""
    own = cfg.DATASETS.CUSTOM
    if own.CLASSES:
        register_custom(
            CustomPaths(
                own.CLASSES,
                own.NAME,
                own.IMAGES,
                own.LABELS,
                own.VAL_IMAGES,
                own.VAL_LABELS,
                own.VAL_SHARE,
            )
        )


def _check_mirroring(cfg: CfgNode) -> None:
    """Where photos are mirrored, labels of sides must change places."""
    mirrored = list(cfg.DATASETS.TRAIN) if cfg.INPUT.FLIP_PROB > 0 else []
    if cfg.TEST.AUG.ENABLED and cfg.TEST.AUG.FLIP:
        mirrored += cfg.DATASETS.TEST
    for name in mirrored:
        metadata = MetadataCatalog.get(name)
        require_mirror_pairs(
            metadata.stuff_classes, metadata.mirror_pairs, metadata.get("labels_from", name)
        )


def _check_bases(cfg: CfgNode) -> None:
    """Find the files of the bases that this config builds, and refuse what is no weight file."""
    if is_export(cfg.MODEL.WEIGHTS):
        return
    only_clip = cfg.MODEL.BACKBONE.NAME == "ClipBackbone"
    reads_text = cfg.MODEL.SRM.ENABLED or cfg.MODEL.SEM_SEG_HEAD.CLASSIFIER == "text"
    for base, is_built in (("SAM", not only_clip), ("CLIP", only_clip or reads_text)):
        weights = cfg.MODEL[base].WEIGHTS
        if is_built and weights != "random":
            check_weights(weights, f"MODEL.{base}.WEIGHTS")


def _decide_resume(output_dir: str, resume: Resume) -> bool:
    """Whether to continue from a checkpoint of the folder."""
    if resume is not Resume.NEVER and latest_checkpoint(output_dir) is not None:
        return True
    if resume is Resume.REQUIRED:
        raise InputError(
            f"--resume finds no checkpoint to continue from in OUTPUT_DIR {output_dir}: correct "
            "OUTPUT_DIR, or start without --resume"
        )
    held = find_checkpoints(output_dir)
    if held:
        raise InputError(
            f"OUTPUT_DIR {output_dir} holds checkpoints of another run ({held[-1].name}): "
            "give --resume to continue it, or another OUTPUT_DIR"
        )
    return False


def _require_one_folder(output_dir: str, continues: bool) -> None:
    """Refuse a folder that is another one on another machine: one would start, one continue."""
    if len(set(comm.all_gather(continues))) > 1:
        raise InputError(
            f"OUTPUT_DIR {output_dir} holds a checkpoint for some of the run's processes and none "
            "for others: give a folder that all machines share"
        )


def _register_class_frequencies(cfg: CfgNode) -> None:
    """Give the class weights' source to the training set's metadata, where the loss wants it."""
    if cfg.MODEL.LOSS.CLASS_WEIGHTS == "none":
        return
    name = cfg.DATASETS.TRAIN[0]
    MetadataCatalog.get(name).class_frequencies = class_frequencies(name)


def _resolve_seed(cfg: CfgNode, continues: bool) -> CfgNode:
    """Replace a negative seed: by the run's own where it continues, else by a drawn one."""
    if cfg.SEED >= 0:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    earlier = Path(cfg.OUTPUT_DIR) / CONFIG_FILE
    if continues and earlier.exists():
        cfg.SEED = read_run_config(earlier)["SEED"]
    else:
        seed_all_rng(None)
        cfg.SEED = int(comm.shared_random_seed())
    cfg.freeze()
    return cfg


def _log_run(cfg: CfgNode) -> None:
    if comm.is_main_process():
        logger.debug("environment:\n%s", collect_env_info())
    logger.debug("config:\n%s", cfg.dump())
    if not torch.cuda.is_available():
        logger.info("there is no GPU: running on the CPU, %d threads", torch.get_num_threads())
    logger.info("output: %s; processes: %d", cfg.OUTPUT_DIR, comm.get_world_size())
