"""Parsing by names given at run time: the text classifier over CLIP's features of other words.

What changes is the list that the text classifier compares a pixel with. SRM's f_sim is held: it
goes on mixing the text features of the labels that the model was trained for. SRM's gates have seen
no others; and so a name's scores do not depend on which other names are asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from schnet.config import override
from schnet.data.class_list import phrases_of, voc_color
from schnet.data.labels import IGNORE_LABEL, Color
from schnet.data.sides import find_mirror_pairs, plain_name, side_of
from schnet.errors import InputError
from schnet.exported import build_trained_model
from schnet.modeling.clip import build_clip_model
from schnet.modeling.clip_text import encode_prompts
from schnet.modeling.head import TextClassifier
from schnet.modeling.meta_arch import SCHNet
from schnet.parsing import background_numbers
from schnet.weight_files import check_weights

logger = logging.getLogger(__name__)

# Half-precision exports round a unit vector by far less; other weights give another one altogether.
MIN_COSINE = 0.9999


@dataclass(frozen=True)
class Words:
    """Names to parse by.

    Attributes:
        names: different ones; their position is their label.
        phrases: for each name those that were given with it; none where it came alone.
    """

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]

    @property
    def palette(self) -> tuple[Color, ...]:
        """A colour each, by the names' order alone: black for the background, else Pascal VOC's."""
        background = background_numbers(self.names)
        colors = iter([voc_color(number) for number in range(1, 1 + len(self.names))])
        return tuple(
            (0, 0, 0) if number in background else next(colors) for number in range(len(self.names))
        )

    def prompts(self, trained: Sequence[str], known: Sequence[Sequence[str]]) -> list[list[str]]:
        """Choose the phrases of each name.

        Args:
            trained: names of the labels that the model was trained for.
            known: their phrases.

        Returns:
            For each name the phrases given with it; or, for a name that the model was trained for,
            those of its training; or those that this package knows for it; or the name itself.
        """
        own = {plain_name(name): list(part) for name, part in zip(trained, known, strict=True)}
        return [
            list(given) or own.get(plain_name(name)) or list(phrases_of(name))
            for name, given in zip(self.names, self.phrases, strict=True)
        ]


class WordClassifier(nn.Module):
    """A text classifier over text features of its own, whatever features it is called with."""

    text: torch.Tensor

    def __init__(self, classifier: TextClassifier, text: torch.Tensor) -> None:
        """Take the trained classifier and the text features (K, E), unit length."""
        super().__init__()
        self.classifier = classifier
        self.register_buffer("text", text, persistent=False)

    def forward(self, features: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """Features (B, D, h, w) to logits (B, K, h, w), in fp32; `text` is not used."""
        return self.classifier(features, self.text)


def read_words(classes: str | Sequence[str]) -> Words:
    """Read names as they are given.

    Args:
        classes: names, or one text with commas between them. `name=phrase|phrase` gives a name its
            phrases for CLIP.

    Raises:
        InputError: fewer than 2 names or more than 255, an empty name or phrase, or one name
            twice, in whatever writing.
    """
    entries = classes.split(",") if isinstance(classes, str) else list(classes)
    if not 2 <= len(entries) <= IGNORE_LABEL:
        raise InputError(
            f"{len(entries)} names are given to parse by: give 2 to {IGNORE_LABEL}, such as "
            "background, hat"
        )
    names, phrases = [], []
    for number, entry in enumerate(entries, start=1):
        name, separator, given = (part.strip() for part in entry.partition("="))
        parts = tuple(part.strip() for part in given.split("|")) if separator else ()
        if not name or not all(parts):
            lacking = "phrase" if name else "name"
            raise InputError(
                f"number {number} of the names to parse by is {entry!r}, with an empty {lacking}: "
                "give a name, or name=phrase|phrase"
            )
        names.append(name)
        phrases.append(parts)
    plain = [plain_name(name) for name in names]
    for number, name in enumerate(plain):
        if name in plain[:number]:
            first = names[plain.index(name)]
            raise InputError(
                f"the names to parse by have {first!r} and {names[number]!r}, which are the same: "
                "leave one out"
            )
    return Words(tuple(names), tuple(phrases))


def build_word_model(
    cfg: CfgNode, words: Words, *, hold_f_sim: bool = True
) -> tuple[CfgNode, nn.Module]:
    """Build a trained model that parses by other names than it was trained for.

    CLIP is read once more, for its text tower, which is dropped again.

    Args:
        cfg: of `schnet.trained.trained_config`; MODEL.CLIP.WEIGHTS names CLIP's file, also for an
            export.
        words: the names.
        hold_f_sim: let SRM's f_sim mix the text features of the training labels, as in training;
            False lets it mix those of the names, so that each name changes all names' scores.

    Returns:
        The config to parse with, whose data set has the names; and the model, in evaluation mode.

    Raises:
        InputError: the model's classifier is none of text, CLIP's file is not there or not the one
            that the model was trained with, a phrase is too long, or mirrored views are asked for
            and a side has no other.
    """
    _require_text_classifier(cfg)
    if not background_numbers(words.names):
        logger.warning(
            "none of the names to parse by is background: every pixel gets one of %s",
            ", ".join(words.names),
        )
    by_words = _config_of(cfg, words)
    weights = _clip_file(cfg)
    model = cast(SCHNet, build_trained_model(cfg).eval())
    clip, head = model.clip, model.sem_seg_head
    # That a text classifier is there was looked at above, and it has CLIP beside it.
    assert clip is not None and isinstance(head.classifier, TextClassifier)
    text = _text_features(cfg, words, weights, clip.text_features.cpu()).to(model.device)
    if not hold_f_sim:
        clip.text_features = text
    head.register_module("classifier", WordClassifier(head.classifier, text).eval())
    return by_words, model


def _require_text_classifier(cfg: CfgNode) -> None:
    if cfg.MODEL.SEM_SEG_HEAD.CLASSIFIER != "text":
        raise InputError(
            f"{cfg.MODEL.WEIGHTS} has a {cfg.MODEL.SEM_SEG_HEAD.CLASSIFIER} classifier, which "
            "knows its training labels alone: to parse by other names, train with "
            "MODEL.SEM_SEG_HEAD.CLASSIFIER text"
        )


def _clip_file(cfg: CfgNode) -> str:
    """The value of MODEL.CLIP.WEIGHTS, which is there to be read."""
    weights = cfg.MODEL.CLIP.WEIGHTS
    if weights == "random":
        logger.warning(
            "%s was trained on a random CLIP, to which names mean nothing: expect noise for names "
            "that it was not trained for",
            cfg.MODEL.WEIGHTS,
        )
        return weights
    try:
        return check_weights(weights, "MODEL.CLIP.WEIGHTS")
    except InputError as error:
        raise InputError(
            f"parsing by names needs CLIP's text tower, and {error}; or give the file as "
            "clip_weights (--clip-weights)"
        ) from None


def _text_features(cfg: CfgNode, words: Words, weights: str, trained: torch.Tensor) -> torch.Tensor:
    """The names' features (K, E), by the CLIP that made the training labels', `trained`."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    node = cfg.MODEL.CLIP
    clip = build_clip_model(node.VARIANT, weights)
    # One label tells one CLIP from another; all of them take a CPU long.
    (again,) = encode_prompts(clip, metadata.prompts[:1], node.PROMPT_TEMPLATES)
    if float(again @ trained[0].float()) < MIN_COSINE:
        raise InputError(
            f"{weights} is not the CLIP that {cfg.MODEL.WEIGHTS} was trained with: it gives other "
            "features of a training label; give that file as clip_weights (--clip-weights), and "
            "MODEL.CLIP.PROMPT_TEMPLATES as in training"
        )
    prompts = words.prompts(metadata.stuff_classes, metadata.prompts)
    return encode_prompts(clip, prompts, node.PROMPT_TEMPLATES)


def _config_of(cfg: CfgNode, words: Words) -> CfgNode:
    """The config with the names as its labels, which are a data set's without files."""
    labels = {
        "stuff_classes": list(words.names),
        "stuff_colors": [list(color) for color in words.palette],
        "mirror_pairs": list(find_mirror_pairs(words.names)),
        "ignore_label": IGNORE_LABEL,
    }
    if cfg.TEST.AUG.ENABLED and cfg.TEST.AUG.FLIP:
        paired = {label for pair in find_mirror_pairs(words.names) for label in pair}
        for label, name in enumerate(words.names):
            if side_of(name) and label not in paired:
                raise InputError(
                    f"TEST.AUG.FLIP mirrors photos, and none of the names is the other side of "
                    f"{name!r}: name both sides, or set TEST.AUG.FLIP False"
                )
    # One data set a list: Detectron2 refuses other values under a name that it knows.
    name = f"words_{hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:12]}"
    if name not in MetadataCatalog.list():
        MetadataCatalog.get(name).set(**labels, evaluator_type="parsing", labels_from=name)
    own = ["DATASETS.TEST", str((name,)), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", str(len(words.names))]
    return override(cfg, own)
