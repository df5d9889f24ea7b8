"""The training run: model, optimizer, loaders, hooks, and the loop over the steps."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, EventWriter
from torch import nn

import schnet.modeling  # noqa: F401  registers the architectures
from schnet.checkpoint import ParsingCheckpointer, latest_checkpoint, load_model_weights
from schnet.data.broken import BrokenImages
from schnet.data.loader import CheckedLoader, build_test_loader, build_train_loader
from schnet.engine.best import BestCheckpointHook
from schnet.engine.early_stopping import EarlyStoppingHook
from schnet.engine.ema import ModelEma
from schnet.engine.hooks import CheckpointHook, EvaluationHook, Results
from schnet.engine.optimizer import build_lr_scheduler, build_optimizer
from schnet.engine.preemption import PreemptionSignals
from schnet.engine.report_hook import build_report_hook
from schnet.engine.run_state import RunState
from schnet.engine.samples import SampleImagesHook, build_sample_images
from schnet.engine.step import build_step_trainer
from schnet.engine.summary import parameter_table
from schnet.engine.validation import add_validation_losses, require_losses
from schnet.engine.writers import WRITE_PERIOD, WriterHook, build_writers
from schnet.errors import InputError, Preempted, storage_error
from schnet.evaluation.autocast import inference_dtype
from schnet.evaluation.parsing_evaluation import ParsingEvaluator, build_evaluator
from schnet.evaluation.test_time import build_label_model
from schnet.evaluation.watched_metric import build_watched_metric
from schnet.scaling import require_same_processes, scale_to_processes

logger = logging.getLogger(__name__)


class ParsingTrainer(DefaultTrainer):
    """Detectron2's trainer with SCHNet's parts.

    Call `resume_or_load`, then `train`. A run that is resumed goes on as if it had not stopped:
    weights, optimizer, schedule, order and augmentation of the images, random numbers of each
    process, best value, smoothed metrics, and an evaluation that was under way.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build everything but the training loader, which `train` builds.

        Args:
            cfg: the run's config; its seed is not negative.
        """
        # Not DefaultTrainer's: it wraps for CUDA only, starts the loader before the iteration is
        # known, and makes a checkpointer that leaves the optimizer out (0.6).
        TrainerBase.__init__(self)
        cfg = scale_to_processes(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.stop_reason: str | None = None
        model = self.build_model(cfg)
        require_losses(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        self._ema = ModelEma(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        self._trainer = build_step_trainer(cfg, _distribute(model), optimizer, self._ema)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = ParsingCheckpointer(
            model,
            cfg.OUTPUT_DIR,
            optimizer=optimizer,
            scheduler=self.scheduler,
            trainer=weakref.proxy(self),
            **({} if self._ema is None else {"ema": self._ema}),
        )
        self._signals = PreemptionSignals()
        self._state = RunState(cfg.DATALOADER.MAX_BAD_IMAGES)
        self._saver = CheckpointHook(
            self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.KEEP_CHECKPOINTS
        )
        self._evaluation = EvaluationHook(
            cfg.TEST.EVAL_PERIOD,
            self._evaluate,
            self._saver.save_before_evaluation,
            self._signals.interruptible,
        )
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest undamaged checkpoint of OUTPUT_DIR, or start from MODEL.WEIGHTS.

        Raises:
            InputError: the checkpoint or the weights cannot be used.
        """
        if not resume:
            model = self.cfg.MODEL
            if model.WEIGHTS:
                load_model_weights(
                    self.checkpointer.model,
                    model.WEIGHTS,
                    ignore_classifier=model.WEIGHTS_IGNORE_CLASSIFIER,
                )
            return
        saved = self.checkpointer.resume(self.cfg.OUTPUT_DIR)
        self.start_iter = saved["iteration"] + 1
        self._state.rng = saved.get("rng")
        if self._state.rng is not None:
            require_same_processes(self.cfg, len(self._state.rng), comm.get_world_size())
        else:
            self._state.draws = self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH

    def train(self) -> Results:
        """Run all iterations that are left.

        Returns:
            The latest evaluation's results; empty on other processes than the main one.

        Raises:
            InputError: bad input was met; raised as it is, without a traceback in the log.
            OSError: the disk is full or a folder may not be used; likewise.
            Preempted: SIGTERM or SIGUSR1 came; the run is saved, on all processes.
        """
        logger.info("training iterations %d to %d", self.start_iter, self.max_iter)
        state = self._state
        self._trainer.use_loader(self.build_train_loader(self.cfg, state.draws, state.broken))
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage, self._signals:
            unwritten = self.start_iter - 1 if self._evaluation.pending else None
            state.restore(self.storage, self.cfg.SEED, self.start_iter, unwritten)
            self.before_train()
            try:
                self._run_steps()
            except InputError:
                raise
            except Preempted:
                self._tell_preempted()
                raise
            except Exception as error:
                if storage_error(error) is not None:
                    raise
                if self._signals.received is not None:
                    # The other processes are being ended too, and their group breaks.
                    self._tell_preempted(error)
                    raise Preempted from error
                logger.exception("training stopped at iteration %d", self.iter)
                raise
            finally:
                self._trainer.use_loader(())  # the workers end here
                self.after_train()
        return self._evaluation.results

    def _run_steps(self) -> None:
        if self._evaluation.pending:
            self._complete_iteration()
        self.iter = self.start_iter
        # One past the last iteration at the end, by which hooks tell a finished run.
        while self.iter < self.max_iter and self.stop_reason is None:
            self.before_step()
            self.run_step()
            stop = self._state.finish_step(
                self.cfg.SOLVER.IMS_PER_BATCH, self._signals.received is not None
            )
            self.after_step()
            if stop and self.iter + 1 < self.max_iter and self.stop_reason is None:
                self._saver.save(self.iter)
                raise Preempted
            self.iter += 1

    def stop_early(self, reason: str) -> None:
        """Take no further step; called by a hook, on all processes, which tells why in words."""
        self.stop_reason = reason
        logger.info("training ends before its last iteration: %s", reason)

    def _complete_iteration(self) -> None:
        """Do what was left of the iteration before: its evaluation, and what comes after that."""
        self.iter = self.storage.iter = self.start_iter - 1
        for hook in self._hooks[self._hooks.index(self._evaluation) :]:
            hook.after_step()

    def _tell_preempted(self, error: Exception | None = None) -> None:
        logger.warning(
            "%s came in iteration %d%s; %s is saved: continue with --resume",
            self._signals.received or "a signal to another process",
            self.iter,
            "" if error is None else f", which could not be finished ({error})",
            latest_checkpoint(self.cfg.OUTPUT_DIR),
        )

    def build_hooks(self) -> list[HookBase]:
        """Timer, schedule, evaluation, what depends on it, writers, checkpoints; in this order."""
        test, evaluation = self.cfg.TEST, self._evaluation
        metric = build_watched_metric(self.cfg)
        stopping = test.EARLY_STOPPING
        chosen: list[HookBase] = [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            evaluation,
            EarlyStoppingHook(evaluation, metric, stopping.PATIENCE, stopping.MIN_DELTA),
        ]
        if comm.is_main_process():
            weights = self._evaluated_weights
            chosen.append(BestCheckpointHook(evaluation, self.checkpointer, metric, weights))
            if test.SAMPLE_IMAGES > 0:
                samples = build_sample_images(self.cfg, self.checkpointer.model)
                chosen.append(SampleImagesHook(evaluation, samples, weights))
            chosen += [
                WriterHook(evaluation, self.build_writers(), WRITE_PERIOD),
                build_report_hook(self.cfg, self.checkpointer.model),
            ]
        return [*chosen, self._saver]

    def build_writers(self) -> list[EventWriter]:
        """Terminal and log, and the files; see `schnet.engine.writers`."""
        return build_writers(self.cfg, self.max_iter)

    def state_dict(self) -> dict[str, Any]:
        """What the run has come to, in plain types.

        Returns:
            `hooks` (states by the name of their class), `step`, and the entries of `RunState`.
        """
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._own_hooks()}
        return {
            "hooks": {name: state for name, state in states.items() if state},
            "step": self._trainer.state_dict(),
            **self._state.state_dict(self.storage),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the states; hooks that are not on this process have none."""
        for hook in self._own_hooks():
            state = state_dict["hooks"].get(type(hook).__qualname__)
            if state:
                hook.load_state_dict(state)
        # Format 1 has neither: `resume_or_load` knows the position by its iteration.
        if "step" in state_dict:
            self._trainer.load_state_dict(state_dict["step"])
            self._state.load_state_dict(state_dict)

    def _own_hooks(self) -> list[HookBase]:
        # The schedule's state is saved beside the optimizer's, not by its hook as well.
        own = EvaluationHook | EarlyStoppingHook | BestCheckpointHook
        return [hook for hook in self._hooks if isinstance(hook, own)]

    def _evaluate(self) -> Results:
        """Evaluate the model itself: DDP's forward belongs to training."""
        model = self.checkpointer.model
        with self._evaluated_weights():
            results = self.test(self.cfg, model)
            return add_validation_losses(self.cfg, model, inference_dtype(self.cfg), results)

    def _evaluated_weights(self) -> AbstractContextManager[None]:
        """Put the weights that are evaluated, and kept as the best, into the model meanwhile."""
        return nullcontext() if self._ema is None else self._ema.applied()

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | None = None,
    ) -> Results:
        """Evaluate a model as TEST says: protocol, test-time augmentation, windows.

        The one place where a model is wrapped for evaluation, the periodic ones of a training
        included: there, too, each scale and mirroring costs another pass over the test set.

        Args:
            cfg: DATASETS.TEST, TEST and INPUT count.
            model: the model itself, in any mode; it is in that mode again afterwards.
            evaluators: one a test set, of outputs with `labels`; None builds them.

        Returns:
            The results, by task and metric; by data set first where there are several. Empty on
            other processes than the main one.

        Raises:
            InputError: a file of a data set cannot be used, or the data sets' mirror pairs.
        """
        return dict(super().test(cfg, build_label_model(cfg, model), evaluators))

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model and log once which of its parameters train."""
        model = build_model(cfg)
        logger.info("parameters:\n%s", parameter_table(model))
        logger.debug("model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """Build AdamW; see `schnet.engine.optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule; see `schnet.engine.optimizer`."""
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(
        cls, cfg: CfgNode, start_draw: int = 0, broken: BrokenImages | None = None
    ) -> CheckedLoader:
        """Build the endless loader, from the draw that a resumed run has come to."""
        return build_train_loader(cfg, start_draw, broken)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> CheckedLoader:
        """Build the loader of a test set."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ParsingEvaluator:
        """Build the evaluator, which writes below OUTPUT_DIR/inference."""
        return build_evaluator(cfg, dataset_name)


def _distribute(model: nn.Module) -> nn.Module:
    """Wrap the model where there are several processes, on GPUs or CPUs."""
    on_gpu = next(model.parameters()).device.type == "cuda"
    with warnings.catch_warnings():
        # `broadcast_buffers` is being renamed; both Detectron2 and older PyTorch know this name.
        warnings.simplefilter("ignore", FutureWarning)
        return create_ddp_model(
            model,
            broadcast_buffers=False,
            device_ids=[comm.get_local_rank()] if on_gpu else None,
        )
