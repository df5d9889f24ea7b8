"""The model of a Ray job: its labels, and a digest of all that label maps depend on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from word_models import TEXT, noise, write_run

from schnet.errors import InputError
from schnet.inference import Parser
from schnet.ray_pipeline.model_choice import ModelChoice
from schnet.remap import load_remap


def _config_of(sam: str, clip: str) -> Callable[[ModelChoice], CfgNode]:
    bases = {"SAM": CfgNode({"WEIGHTS": sam}), "CLIP": CfgNode({"WEIGHTS": clip})}
    return lambda _: CfgNode({"MODEL": CfgNode(bases)})


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


def test_files_of_the_bases_do_not_depend_on_where_a_worker_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("own"), *TEXT).resolve()
    choice = ModelChoice(str(run), opts=("TEST.DTYPE", "float32"))
    named, pinned = (run / "config.yaml").read_text(), choice.pinned()
    assert "WEIGHTS: own/bases/clip.pt" in named and "WEIGHTS: own/bases/sam.pth" in named
    bases = tmp_path / "own" / "bases"
    sam, clip = (
        ("MODEL.SAM.WEIGHTS", f"{bases}/sam.pth"),
        ("MODEL.CLIP.WEIGHTS", f"{bases}/clip.pt"),
    )
    assert pinned.opts == (*choice.opts, *sam, *clip)
    assert pinned.identify() == choice.identify()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    photo = noise(40, 30)
    assert pinned.load()(photo).labels.shape == (40, 30)
    with pytest.raises(InputError, match=r"names own/bases/sam.pth, which is no file"):
        choice.load()


def test_names_of_bases_that_are_no_files_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "own", bases=False)
    assert ModelChoice(str(run)).pinned() == ModelChoice(str(run))
    other = replace(ModelChoice("model.onnx"), threads=2)
    assert other.pinned() == other
    named = ModelChoice(str(run), opts=("MODEL.SAM.WEIGHTS", "sam_vit_b"))
    monkeypatch.setattr(ModelChoice, "_trained_config", _config_of("sam_vit_b", "https://a/b.pt"))
    assert named.pinned() == named


def test_what_does_not_go_together_is_refused(choice: ModelChoice) -> None:
    with pytest.raises(InputError, match="--clip-weights is for --classes"):
        replace(choice, clip_weights="clip.pt").identify()
    with pytest.raises(InputError, match="has its own labels"):
        ModelChoice("model.onnx", classes=("a",)).identify()
    with pytest.raises(InputError, match="no label list or file viking"):
        replace(choice, remap="viking").identify()
