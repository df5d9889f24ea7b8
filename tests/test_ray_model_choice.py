"""The model of a Ray job: its labels, and a digest of all that label maps depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from word_models import TEXT, noise, write_run

from schnet.errors import InputError
from schnet.inference import Parser
from schnet.ray_pipeline.model_choice import ModelChoice
from schnet.remap import load_remap


@pytest.fixture(scope="module")
def choice(tmp_path_factory: pytest.TempPathFactory) -> ModelChoice:
    """A run with a text classifier on files of its bases."""
    run = write_run(tmp_path_factory.mktemp("run"), *TEXT)
    return ModelChoice(str(run), dtype="float32")


def test_labels_of_another_list(choice: ModelChoice) -> None:
    remapped, photo = replace(choice, remap="ppp"), noise(40, 30)
    known, own = remapped.identify(), choice.identify()
    expected = load_remap("ppp", own.classes)
    assert known.classes == expected.classes and known.palette == expected.palette
    assert known.unmapped == expected.describe_unmapped() != "" and own.unmapped == ""
    assert known.digest != own.digest == choice.identify().digest
    parsing = remapped.load()(photo)
    labels = expected.apply(Parser.load(choice.weights, dtype="float32")(photo).labels)
    assert np.array_equal(parsing.labels, labels) and parsing.classes == expected.classes


def test_a_remap_file_is_known_by_its_content(choice: ModelChoice, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    digests = set()
    for name in ("head", "top"):
        file.write_text(f"classes: [background, {name}]\nmap: {{hat: {name}}}\ndefault: background")
        known = replace(choice, remap=str(file)).identify()
        assert known.classes == ("background", name)
        digests.add(known.digest)
    assert len(digests) == 2


def test_names_given_at_run_time(choice: ModelChoice) -> None:
    named = replace(choice, classes=("background", "hat", "shoe=shoe|boot"))
    known, photo = named.identify(), noise(40, 30)
    assert known.classes == ("background", "hat", "shoe")
    other = replace(choice, classes=("background", "hat", "shoe=shoe")).identify()
    assert len({known.digest, other.digest, choice.identify().digest}) == 3
    parser = Parser.load(choice.weights, dtype="float32", classes=named.classes)
    assert np.array_equal(named.load()(photo).labels, parser(photo).labels)


def test_a_clip_file_that_was_moved(tmp_path: Path) -> None:
    run = write_run(tmp_path / "own", *TEXT)
    moved = (tmp_path / "own" / "bases" / "clip.pt").rename(tmp_path / "clip.pt")
    named = ModelChoice(str(run), classes=("background", "hat"), clip_weights=str(moved))
    assert named.identify().classes == ("background", "hat")


def test_what_does_not_go_together_is_refused(choice: ModelChoice) -> None:
    with pytest.raises(InputError, match="--clip-weights is for --classes"):
        replace(choice, clip_weights="clip.pt").identify()
    with pytest.raises(InputError, match="has its own labels"):
        ModelChoice("model.onnx", classes=("a",)).identify()
    with pytest.raises(InputError, match="no label list or file viking"):
        replace(choice, remap="viking").identify()
