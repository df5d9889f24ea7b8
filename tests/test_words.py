"""Parsing by names given at run time: exact on a tiny CLIP of a file, or refused."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from base_files import write_clip
from word_models import TEXT, logits, noise, write_run

from schnet.data.labels import LIP_CLASSES, LIP_PALETTE
from schnet.errors import InputError
from schnet.export_weights import export_checkpoint
from schnet.inference import Parser
from schnet.modeling.clip import build_clip_model
from schnet.modeling.clip_text import encode_prompts
from schnet.words import Words, read_words

NAMES = ["background", "hat", "left sleeve", "Face", "shoe=shoe|boot"]
IMAGE = noise(50, 70)
# Sums of the same numbers in another order, of logits up to 5.
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: a text classifier, SRM, and a CLIP of a file."""
    return write_run(tmp_path_factory.mktemp("words"), *TEXT)


@pytest.fixture(scope="module")
def by_names(run: Path) -> Parser:
    return load(run, NAMES)


def load(run: Path, classes: str | Sequence[str], **options: object) -> Parser:
    return Parser.load(run, device="cpu", dtype="float32", classes=classes, **options)  # type: ignore[arg-type]


def test_labels_have_the_names_and_colours_of_their_own(by_names: Parser) -> None:
    parsing = by_names(IMAGE)
    assert parsing.classes == ("background", "hat", "left sleeve", "Face", "shoe")
    assert parsing.labels.shape == (50, 70) and len(np.unique(parsing.labels)) > 1
    assert parsing.palette[0] == (0, 0, 0) and len(set(parsing.palette)) == 5
    assert np.allclose(by_names(IMAGE, probabilities=True).probabilities.sum(axis=0), 1, atol=1e-5)


def test_another_order_permutes_the_logits(run: Path, by_names: Parser) -> None:
    order = [3, 0, 4, 2, 1]
    other = logits(load(run, [NAMES[number] for number in order]), IMAGE)
    assert torch.allclose(other, logits(by_names, IMAGE)[order], atol=ROUNDING)
    assert not torch.allclose(other, logits(by_names, IMAGE), atol=0.01)


def test_a_subset_has_the_logits_of_the_whole_where_f_sim_is_held(
    run: Path, by_names: Parser
) -> None:
    whole = logits(by_names, IMAGE)[1:3]
    assert torch.allclose(logits(load(run, NAMES[1:3]), IMAGE), whole, atol=ROUNDING)
    free = logits(load(run, NAMES[1:3], hold_f_sim=False), IMAGE)
    assert not torch.allclose(free, whole, atol=1e-3), "f_sim has no say in this model"


def test_the_training_labels_give_the_trained_logits(run: Path) -> None:
    trained = Parser.load(run, device="cpu", dtype="float32")
    again = load(run, LIP_CLASSES, hold_f_sim=False)
    assert torch.equal(logits(again, IMAGE), logits(trained, IMAGE))
    assert np.array_equal(again(IMAGE).labels, trained(IMAGE).labels)


def test_synonyms_of_identical_prompts_give_identical_maps(run: Path, by_names: Parser) -> None:
    synonyms = ["wall=background|scene without a person", "cap=hat|cap", *NAMES[2:], "hut=hat"]
    other = load(run, synonyms)
    found = logits(other, IMAGE)
    assert torch.allclose(found[:5], logits(by_names, IMAGE), atol=ROUNDING)
    assert not torch.allclose(found[5], found[1], atol=1e-3), "one phrase is as good as two"
    assert other.classes[:2] == ("wall", "cap")


def test_features_are_made_as_in_training(run: Path, by_names: Parser) -> None:
    clip = build_clip_model("tiny", str(run.parent / "bases" / "clip.pt"))
    templates = [
        "a photo of a person's {}.",
        "a photo of the {} of a person.",
        "a close-up photo of a {}.",
        "{} in a photo of people.",
    ]
    expected = encode_prompts(clip, [["left sleeve"], ["shoe", "boot"]], templates)
    model = by_names._score_model
    assert model is not None
    assert torch.equal(model.sem_seg_head.classifier.text[[2, 4]], expected)
    names = [name for name, _ in model.named_parameters()]
    assert not any("token_embedding" in name for name in names), "the text tower was not dropped"


def test_an_export_needs_the_clip_file(run: Path, by_names: Parser, tmp_path: Path) -> None:
    clip = run.parent / "bases" / "clip.pt"
    file = tmp_path / "words.safetensors"
    export_checkpoint(run / "model_best.pth", file)
    found = load(file, NAMES, clip_weights=clip)
    assert torch.allclose(logits(found, IMAGE), logits(by_names, IMAGE), atol=ROUNDING)
    moved = clip.rename(tmp_path / "elsewhere.pt")
    try:
        with pytest.raises(InputError, match="needs CLIP's text tower.*clip_weights"):
            load(file, NAMES)
        with pytest.raises(InputError, match="clip.pt"):
            load(run, NAMES)
        again = load(run, NAMES, clip_weights=moved)
        assert torch.equal(logits(again, IMAGE), logits(by_names, IMAGE))
    finally:
        moved.rename(clip)
    for seed, shift in ((2, 0.0), (1, 0.1)):
        other = write_clip(tmp_path / f"other_{seed}.pt", seed, shift)
        with pytest.raises(InputError, match="is not the CLIP that .* was trained with"):
            load(file, NAMES, clip_weights=other)
    with pytest.raises(InputError, match="which was trained with CLIP tiny"):
        load(run, NAMES, clip_weights=other)


def test_a_half_precision_export_knows_its_clip(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "half.safetensors"
    export_checkpoint(run / "model_best.pth", file, dtype="float16")
    assert load(file, NAMES)(IMAGE).labels.shape == (50, 70)


def test_a_random_clip_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_run(tmp_path, *TEXT, bases=False)
    with caplog.at_level(logging.WARNING):
        load(run, ["background", "hat"])
    assert "random CLIP, to which names mean nothing" in caplog.text


def test_names_without_background_are_warned_of(
    run: Path, by_names: Parser, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(run, "hat, shoe")
    assert "every pixel gets one of hat, shoe" in caplog.text


def test_a_linear_classifier_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, bases=False)
    with pytest.raises(InputError, match="model_best.pth has a linear classifier"):
        load(run, NAMES)


def test_mirrored_views_swap_the_sides_of_the_names(run: Path) -> None:
    views = ["TEST.AUG.ENABLED", "True", "TEST.AUG.SCALES", "[1.0]"]
    names = ["background", "left sleeve", "right sleeve"]
    image = np.ascontiguousarray(noise(32, 32)[:, ::-1])
    parser = load(run, names, opts=views)
    straight, mirrored = (parser(i, probabilities=True) for i in (image, image[:, ::-1]))
    expected = straight.probabilities[[0, 2, 1], :, ::-1]
    assert np.allclose(mirrored.probabilities, expected, atol=1e-5)
    with pytest.raises(InputError, match="none of the names is the other side of 'left sleeve'"):
        load(run, names[:2], opts=views)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([], "0 names are given"),
        (["hat"], "1 names are given"),
        ([f"n{i}" for i in range(256)], "256 names are given"),
        (["hat", " "], "number 2 .* an empty name"),
        ("hat,,shoe", "number 2 .* an empty name"),
        (["=hat", "shoe"], "number 1 .* an empty name"),
        (["hat=", "shoe"], "number 1 .* an empty phrase"),
        (["hat=cap|", "shoe"], "number 1 .* an empty phrase"),
        (["left arm", "hat", "Left-Arm=arm"], "'left arm' and 'Left-Arm', which are the same"),
    ],
)
def test_impossible_names_are_refused(classes: str | Sequence[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_words(classes)


def test_a_phrase_too_long_for_clip_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="give a shorter phrase"):
        load(run, ["background", f"hat={'very ' * 80}large hat"])


def test_phrases_come_from_where_they_are_known() -> None:
    words = read_words("Hat, glove, left sleeve, my_thing, cap = a cap | beret")
    assert words.names == ("Hat", "glove", "left sleeve", "my_thing", "cap")
    assert words.prompts(["background", "hat"], [["wall"], ["bonnet"]]) == [
        ["bonnet"],
        ["glove", "gloved hand"],
        ["left sleeve"],
        ["my thing"],
        ["a cap", "beret"],
    ]


def test_all_colours_differ_and_the_background_is_black() -> None:
    names = (*(f"name {number}" for number in range(200)), "Background")
    palette = Words(names, ((),) * 201).palette
    assert palette[200] == (0, 0, 0) and len(set(palette)) == 201
    assert palette == Words(names, ((),) * 201).palette
    near = [sum(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in _pairs(palette[:20])]
    assert min(near) >= 64
    assert palette[:3] != LIP_PALETTE[:3]


def _pairs(colors: Sequence[Sequence[int]]) -> list[tuple[Sequence[int], Sequence[int]]]:
    return list(itertools.combinations(colors, 2))
