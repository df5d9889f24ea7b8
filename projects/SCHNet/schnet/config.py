"""Every config key of SCHNet: meaning, unit, allowed values, source; and how a config is read.

Keys that Detectron2 declares already are listed only where SCHNet gives them another default or a
narrower meaning. `load_config` is the one way from files and overrides to a checked config.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg

from schnet.config_checks import check_config
from schnet.config_merge import merge_file, merge_overrides


def add_schnet_config(cfg: CN) -> None:
    """Declare SCHNet's keys, with their defaults, in a config of Detectron2's; in place."""
    _add_model_keys(cfg)
    _add_tuning_keys(cfg)
    _add_head_keys(cfg)
    _add_data_keys(cfg)
    _add_input_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)
    _add_wandb_keys(cfg)


def _add_model_keys(cfg: CN) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SCHNet"
    # SamBackbone, or ClipBackbone for Figure 1's CLIP-only baseline.
    cfg.MODEL.BACKBONE.NAME = "SamBackbone"
    # SAM's own normalisation, RGB, range 0..255 (segment_anything, sam.py). CLIP has its own.
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    # The whole model's checkpoint, read before training or evaluation; "" starts without one.
    cfg.MODEL.WEIGHTS = ""

    cfg.MODEL.SAM = CN()
    # Size of SAM's image encoder: vit_b, vit_l, vit_h (official), tiny (ours, for CPUs and tests).
    cfg.MODEL.SAM.VARIANT = "vit_l"
    # Path, URL, official name (sam_vit_b, sam_vit_l, sam_vit_h) or the literal `random`.
    cfg.MODEL.SAM.WEIGHTS = "sam_vit_l"
    # True keeps SAM's weights as they are (the paper); False trains them too.
    cfg.MODEL.SAM.FREEZE = True
    # Factor on SOLVER.BASE_LR for SAM's own weights where FREEZE is False; > 0.
    cfg.MODEL.SAM.LR_FACTOR = 0.1
    # True recomputes activations in the backward pass instead of keeping them: less memory, more
    # time, the same gradients. RECOMPUTED says which.
    cfg.MODEL.SAM.ACTIVATION_CHECKPOINTING = False
    # `layer`: all of a layer, its FTM included, for the least memory. `mlp`: a layer's MLP alone,
    # which saves about half as much for a quarter of the time (tools/benchmark.py training).
    cfg.MODEL.SAM.RECOMPUTED = "layer"
    # True runs a frozen SAM by the kernels of modeling/fast_layer.py: the same result but for
    # rounding, in less time and memory. False, or a SAM that trains, takes the plain layers.
    cfg.MODEL.SAM.FAST = True

    cfg.MODEL.CLIP = CN()
    # CLIP model: RN50, RN101, RN50x4, ViT-B/32, ViT-B/16, ViT-L/14 (official), tiny (ours).
    # RN101 is our reading of 'a 512-d class embedding, four blocks' (Figures 2 and 3).
    cfg.MODEL.CLIP.VARIANT = "RN101"
    # Path, URL, official name (clip_rn101, ...) or the literal `random`.
    cfg.MODEL.CLIP.WEIGHTS = "clip_rn101"
    # CLIP's input side relative to the image's, before rounding to its stride; in (0, 4].
    cfg.MODEL.CLIP.INPUT_SCALE = 0.5
    # True folds the tower's batch norms into its convolutions and runs it channels-last: the same
    # result but for rounding, in less time. False takes the `clip` package's layers as they are.
    cfg.MODEL.CLIP.FAST = True
    # Sentences that a part's phrases are put into, `{}` for the phrase; their text embeddings are
    # averaged (the ensembling of CLIP's own zero-shot recipe). The paper's prompts are not known.
    cfg.MODEL.CLIP.PROMPT_TEMPLATES = [
        "a photo of a person's {}.",
        "a photo of the {} of a person.",
        "a close-up photo of a {}.",
        "{} in a photo of people.",
    ]


def _add_tuning_keys(cfg: CN) -> None:
    cfg.MODEL.FTM = CN()
    # Figure 4: adapters after every SAM layer.
    cfg.MODEL.FTM.ENABLED = True
    # m, learnable tokens per layer; >= 1. The paper's figure has m x c; 100 is our reading.
    cfg.MODEL.FTM.NUM_TOKENS = 100
    # r, width of the MLP that all layers share; >= 1.
    cfg.MODEL.FTM.HIDDEN_DIM = 128
    # Start of the learnable rho of each layer; 0 gives plain SAM to the bit.
    cfg.MODEL.FTM.RHO_INIT = 1e-3

    cfg.MODEL.SRM = CN()
    # Figure 3: CLIP's semantics added at the five points of SAM.
    cfg.MODEL.SRM.ENABLED = True
    # True: the strengthened map goes on into SAM's next stage; False: only the head sees it.
    cfg.MODEL.SRM.FEEDBACK = True
    # The CLIP stage (1..4) that each of the five points takes.
    cfg.MODEL.SRM.CLIP_STAGES = [1, 2, 3, 4, 4]
    # The down projection's output width relative to SAM's width; in (0, 1].
    cfg.MODEL.SRM.BOTTLENECK_RATIO = 0.25


def _add_head_keys(cfg: CN) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME = "SRMHead"
    # Number of labels, background included; must equal the data set's.
    head.NUM_CLASSES = 20
    # Label that no loss and no metric counts.
    head.IGNORE_VALUE = 255
    head.IN_FEATURES = ["stage0", "stage1", "stage2", "stage3", "stage4"]
    # Channels of the fused map at stride 16; a multiple of 8 (GroupNorm).
    head.FUSE_DIM = 256
    # Residual convolution blocks at stride 16 after fusing; >= 0.
    head.FUSE_BLOCKS = 2
    # Channels of the image stem and decoder at strides 2, 4 and 8; multiples of 8.
    head.STEM_DIMS = [32, 64, 128]
    # Residual convolution blocks at each of the stem's strides 4 and 8, and in the decoder; >= 0.
    head.STEM_BLOCKS = 1
    # linear: 1x1 convolution; text: cosine to CLIP's text features times a learned scale.
    head.CLASSIFIER = "linear"
    # True starts a training from MODEL.WEIGHTS without their classifier, which starts anew: on
    # other labels than they were trained for. Evaluation always loads all.
    cfg.MODEL.WEIGHTS_IGNORE_CLASSIFIER = False

    cfg.MODEL.LOSS = CN()
    # Weights of the cross-entropy and the Lovasz-softmax term; >= 0, not both 0.
    cfg.MODEL.LOSS.CE_WEIGHT = 1.0
    cfg.MODEL.LOSS.LOVASZ_WEIGHT = 1.0
    # Class weights of the cross-entropy: none, or sqrt_inverse (1/sqrt of the class's share of the
    # training pixels, from the data set's index; an average pixel weighs 1).
    cfg.MODEL.LOSS.CLASS_WEIGHTS = "none"
    # Each loss looks at every n-th row and column of the full-resolution map; >= 1. More than 1
    # only where looking at all pixels, and sorting them for the Lovasz term, is too slow (CPU).
    cfg.MODEL.LOSS.CE_STRIDE = 1
    cfg.MODEL.LOSS.LOVASZ_STRIDE = 1


def _add_data_keys(cfg: CN) -> None:
    cfg.DATASETS.TRAIN = ("lip_train",)
    cfg.DATASETS.TEST = ("lip_val",)

    # One's own labels: registered as <NAME>_train and <NAME>_val, to be named in DATASETS.TRAIN
    # and DATASETS.TEST. Relative paths start at the folder that the command is run in.
    cfg.DATASETS.CUSTOM = CN()
    # Path of a classes.yaml (names; optionally colors, mirror_pairs, prompts), or of the folder
    # that holds one; "" means no data set of one's own. datasets/README.md shows the format.
    cfg.DATASETS.CUSTOM.CLASSES = ""
    # Letters, digits, `_` and `-`; no name of a published data set.
    cfg.DATASETS.CUSTOM.NAME = "custom"
    # Folders of the photos and of their index PNGs, searched at all depths; "" takes `images` and
    # `labels` beside the classes.yaml.
    cfg.DATASETS.CUSTOM.IMAGES = ""
    cfg.DATASETS.CUSTOM.LABELS = ""
    # Folders of the validation split; "" holds VAL_SHARE of the images out instead.
    cfg.DATASETS.CUSTOM.VAL_IMAGES = ""
    cfg.DATASETS.CUSTOM.VAL_LABELS = ""
    # Share of the images that validate, chosen by their names alone; in (0, 1).
    cfg.DATASETS.CUSTOM.VAL_SHARE = 0.1


def _add_input_keys(cfg: CN) -> None:
    cfg.INPUT.FORMAT = "RGB"
    # Height and width in pixels of a training crop, multiples of 16 (of 224: SAM's windows need no
    # padding), and the box a test image is fitted into.
    cfg.INPUT.SIZE = [512, 512]
    # Box for testing, height and width; [0, 0] takes INPUT.SIZE.
    cfg.INPUT.SIZE_TEST = [0, 0]
    # How a training image gets to INPUT.SIZE: `random` crops or pads it at a random place;
    # `letterbox` puts its middle on the crop's middle, as parsers of single people train.
    cfg.INPUT.CROP = "random"
    # A training image is first fitted into INPUT.SIZE, then scaled by a factor drawn from here
    # (log-uniform), then cropped or padded to INPUT.SIZE; 0 < low <= high.
    cfg.INPUT.SCALE_RANGE = [0.75, 1.5]
    # Probability of turning an image about the middle of its crop, in [0, 1], and the standard
    # deviation of the angle, in degrees, >= 0; angles beyond two of them are cut to two.
    cfg.INPUT.ROTATION_PROB = 0.6
    cfg.INPUT.ROTATION_SIGMA = 30.0
    # Probability of mirroring an image, its left and right labels swapped; in [0, 1].
    cfg.INPUT.FLIP_PROB = 0.5
    # Colour jitter: largest relative change of brightness, contrast and saturation, and largest
    # turn of the hue as a fraction of the colour circle; each >= 0, hue <= 0.5.
    cfg.INPUT.COLOR_JITTER = CN()
    cfg.INPUT.COLOR_JITTER.BRIGHTNESS = 0.3
    cfg.INPUT.COLOR_JITTER.CONTRAST = 0.3
    cfg.INPUT.COLOR_JITTER.SATURATION = 0.3
    cfg.INPUT.COLOR_JITTER.HUE = 0.05


def _add_solver_keys(cfg: CN) -> None:
    # Processes that the numbers here are meant for; 0 takes them as they are. With k times as many,
    # a step has k times the images (IMS_PER_BATCH) and k times the rate (BASE_LR); MAX_ITER,
    # WARMUP_ITERS, CHECKPOINT_PERIOD and TEST.EVAL_PERIOD are divided by k (periods and MAX_ITER
    # stay >= 1), so that the images of a run stay as many; EMA.DECAY becomes DECAY^k. Not scaled:
    # ACCUMULATE_STEPS (a process's share of a step stays as large), MAX_BAD_STEPS and what counts
    # single images. Such a run resumes with as many processes as it was begun with only.
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 0
    # AdamW on the trained parameters; learning rate of a batch of IMS_PER_BATCH images.
    cfg.SOLVER.BASE_LR = 2e-4
    cfg.SOLVER.WEIGHT_DECAY = 0.01
    cfg.SOLVER.BETAS = [0.9, 0.999]
    # Linear warm-up from WARMUP_FACTOR over WARMUP_ITERS, then (1 - t)^POLY_POWER to the end.
    cfg.SOLVER.WARMUP_FACTOR = 0.01
    cfg.SOLVER.WARMUP_ITERS = 1000
    cfg.SOLVER.POLY_POWER = 0.9
    # Gradient clipping by the norm of all gradients together (CLIP_VALUE, the largest norm).
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    # AMP.ENABLED: autocast to AMP.DTYPE outside the losses, on CUDA and on CPU. DTYPE: bfloat16;
    # float16, with a gradient scaler; auto takes bfloat16 where the device has it, else float16.
    cfg.SOLVER.AMP.ENABLED = True
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Each step's batch goes through the model in so many parts of equal size, whose gradients add
    # up to the whole batch's; IMS_PER_BATCH stays the images of a step; >= 1.
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    # Steps of a run that may be skipped because a loss or gradient is not finite; one more stops
    # it, so that 0 stops at the first; >= 0. Their images go to OUTPUT_DIR/bad_batches. What
    # float16's gradient scaler skips while it looks for its scale does not count.
    cfg.SOLVER.MAX_BAD_STEPS = 0
    # Exponential moving average of the trained weights: evaluated and kept as the best model
    # instead of the last step's. DECAY: share of the average that stays at each step, in [0, 1);
    # step n of a run (from 0) keeps at most (1 + n) / (10 + n), the first one nothing.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.999
    # Periodic checkpoints kept, newest first; the best one is kept besides; >= 1.
    cfg.SOLVER.KEEP_CHECKPOINTS = 3
    # Training images that may turn out broken: each is named, left out and replaced by another;
    # one more stops the run, so that 0 stops at the first; >= 0.
    cfg.DATALOADER.MAX_BAD_IMAGES = 0
    # Random number seed of initialisation, augmentation and order; negative draws one.
    cfg.SEED = 0


def _add_test_keys(cfg: CN) -> None:
    # The metric that marks the best checkpoint and ends a run early: mIoU, pACC, mACC, fwIoU, mBF,
    # IoU-<class> or any other of an evaluation's names, or val/loss.
    cfg.TEST.BEST_METRIC = "mIoU"
    # Whether its highest or its lowest value is the best: max, min, or auto (min for losses).
    cfg.TEST.BEST_MODE = "auto"
    # Evaluations in a row without a new best value by MIN_DELTA (in the metric's own unit, >= 0)
    # after which the run ends; 0 never ends it early.
    cfg.TEST.EARLY_STOPPING = CN()
    cfg.TEST.EARLY_STOPPING.PATIENCE = 0
    cfg.TEST.EARLY_STOPPING.MIN_DELTA = 0.0
    # Images of each test set, spread over it, that the validation loss is the mean of: as the
    # training loss, without augmentation; 0 computes none, -1 takes all.
    cfg.TEST.LOSS_IMAGES = 200
    # Images of the first test set whose photo, truth and prediction are drawn for TensorBoard at
    # each evaluation, and best and worst ones of each in the report at the end; >= 0.
    cfg.TEST.SAMPLE_IMAGES = 4
    # Images of one size that are evaluated together, or windows of one photo; >= 1.
    cfg.TEST.BATCH_SIZE = 1
    # Type that evaluation and inference compute in: float32; bfloat16 (autocast, logits in fp32);
    # auto takes bfloat16 where the device has units for it, else float32.
    cfg.TEST.DTYPE = "float32"
    # How a prediction gets to the photo's own size, where it is compared with the truth; the
    # number's line in the log says which. `upsample_logits`: the logits are resized, then argmax.
    # `warp_labels` (the literature's for LIP): the photo is letterboxed to the test box, argmax
    # there, and the label map is warped back to the nearest label.
    cfg.TEST.PROTOCOL = "upsample_logits"
    # Distance in pixels within which a boundary counts as found (boundary F-score); >= 0.
    cfg.TEST.BOUNDARY_TOLERANCE = 2
    # Test-time augmentation: probabilities averaged over the scales (relative to the test box, or
    # to the photo's own resolution with windows) and over the mirrored image, left and right
    # swapped back. MIN_SIZES and MAX_SIZE are not read.
    cfg.TEST.AUG.ENABLED = False
    cfg.TEST.AUG.SCALES = [0.75, 1.0, 1.25]
    cfg.TEST.AUG.FLIP = True
    # Large photos at their own resolution, in overlapping windows of the test box's size whose
    # probabilities are averaged, instead of fitting the photo into the box. A photo that is
    # smaller than a window is fitted into it.
    cfg.TEST.SLIDING_WINDOW = CN()
    cfg.TEST.SLIDING_WINDOW.ENABLED = False
    # Smallest share of a window's side that it has in common with the next one; in [0, 1).
    cfg.TEST.SLIDING_WINDOW.OVERLAP = 0.33
    # Write predictions as index PNGs with the data set's palette, named as the photos; or also put
    # them into the zip that the test servers of LIP and CIHP take.
    cfg.TEST.SAVE_PREDICTIONS = False
    cfg.TEST.SUBMISSION_ZIP = False


def _add_wandb_keys(cfg: CN) -> None:
    # Metrics and sample images to Weights & Biases too, where its package is installed. NAME of the
    # run in its PROJECT; "" takes OUTPUT_DIR. Its own environment variables hold (WANDB_MODE, ...).
    cfg.WANDB = CN()
    cfg.WANDB.ENABLED = False
    cfg.WANDB.PROJECT = "schnet"
    cfg.WANDB.NAME = ""


def override(cfg: CN, opts: Sequence[str]) -> CN:
    """A checked, frozen copy of a config with KEY VALUE overrides on top.

    Raises:
        InputError: see `load_config`.
    """
    cfg = cfg.clone()
    cfg.defrost()
    merge_overrides(cfg, list(opts))
    check_config(cfg)
    cfg.freeze()
    return cfg


def load_config(files: Sequence[str | os.PathLike[str]], opts: Sequence[str] = ()) -> CN:
    """Read config files, each on top of the one before, then KEY VALUE overrides, and check all.

    Args:
        files: YAML files; each may name a `_BASE_`. A file of `configs/ablations/` goes after a
            data set's.
        opts: alternating keys and values, as on the command line.

    Returns:
        A frozen config.

    Raises:
        InputError: a file is missing or no YAML, a key is unknown, a value has the wrong type or
            is impossible.
    """
    cfg = get_cfg()
    add_schnet_config(cfg)
    for file in files:
        merge_file(cfg, file)
    return override(cfg, opts)
