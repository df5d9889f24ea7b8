"""A config for another number of processes than it was written for."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer

from schnet.errors import InputError


def scale_to_processes(cfg: CfgNode, num_processes: int) -> CfgNode:
    """Scale as Detectron2 does with SOLVER.REFERENCE_WORLD_SIZE, and our own keys along.

    With k times the reference's processes, a step has k times the images and k times the learning
    rate, and there are 1/k of the steps. SOLVER.EMA.DECAY becomes DECAY^k, so that the average
    looks back over as many images (Busbridge et al., How to Scale Your EMA, NeurIPS 2023).

    Args:
        cfg: the run's config; it is not changed.
        num_processes: of the run.

    Returns:
        A scaled copy, or the config itself where the reference is 0 or the number of processes.
        Periods that Detectron2 would round to 0, which means otherwise, become 1.

    Raises:
        InputError: IMS_PER_BATCH is no multiple of the reference.
    """
    solver, reference = cfg.SOLVER, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference in (0, num_processes):
        return cfg
    if solver.IMS_PER_BATCH % reference:
        raise InputError(
            f"config key SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}: it must be a multiple of "
            f"SOLVER.REFERENCE_WORLD_SIZE, {reference}"
        )
    scaled = DefaultTrainer.auto_scale_workers(cfg, num_processes)
    was_frozen = scaled.is_frozen()
    scaled.defrost()
    scaled.SOLVER.MAX_ITER = max(1, scaled.SOLVER.MAX_ITER)
    scaled.SOLVER.CHECKPOINT_PERIOD = max(1, scaled.SOLVER.CHECKPOINT_PERIOD)
    if cfg.TEST.EVAL_PERIOD:
        scaled.TEST.EVAL_PERIOD = max(1, scaled.TEST.EVAL_PERIOD)
    scaled.SOLVER.EMA.DECAY = solver.EMA.DECAY ** (num_processes / reference)
    if was_frozen:
        scaled.freeze()
    return scaled


def require_same_processes(cfg: CfgNode, began_with: int, num_processes: int) -> None:
    """Refuse to go on with a scaled run by other numbers than those it has come to by.

    Its iterations, rate and schedule are those of the processes it began with.

    Args:
        cfg: of the run; SOLVER.REFERENCE_WORLD_SIZE and OUTPUT_DIR count.
        began_with: processes that wrote the checkpoint.
        num_processes: of the run now.

    Raises:
        InputError: the numbers differ, and there is a reference.
    """
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference and began_with != num_processes:
        raise InputError(
            f"the run in OUTPUT_DIR {cfg.OUTPUT_DIR} was saved by {began_with} processes, there "
            f"are {num_processes}, and SOLVER.REFERENCE_WORLD_SIZE {reference} scales its "
            f"iterations by them: resume with {began_with} processes, or start in another "
            "OUTPUT_DIR with its checkpoint as MODEL.WEIGHTS"
        )
