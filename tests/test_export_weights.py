"""A trained model as one file: the same predictions without any other file, and the way back."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import yaml
from base_files import base_opts, predict, train_a_little
from conftest import REPOSITORY
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from parsing_fakes import load_script
from tiny_lip import OPTS, make_lip

from schnet.checkpoint import ParsingCheckpointer, load_model_weights
from schnet.config import load_config
from schnet.data.catalog import register_datasets
from schnet.engine.evaluate import evaluate_weights
from schnet.errors import InputError
from schnet.export_file import is_export, read_export_header, write_export
from schnet.export_weights import export_checkpoint, export_to_checkpoint
from schnet.exported import build_trained_model, exported_config, load_exported
from schnet.inference import Parser

BEST = {"mIoU": 41.5}


class Run:
    """A run's folder: the bases' files, the best checkpoint, its config, and its model."""

    def __init__(self, folder: Path) -> None:
        register_datasets(str(folder / "data"))
        bases = base_opts(folder / "bases")
        own = ("OUTPUT_DIR", str(folder / "out"), "MODEL.DEVICE", "cuda")
        self.folder = folder
        self.bases = bases
        self.cfg = load_config([], [*OPTS, *bases, *own])
        self.config = folder / "out" / "config.yaml"
        self.weights = folder / "out" / "model_best.pth"
        self.model = train_a_little(build_model(load_config([], [*OPTS, *bases])))
        ParsingCheckpointer(self.model, str(folder / "out")).save_weights(
            "model_best", iteration=9, best=BEST
        )
        self.config.write_text(self.cfg.dump(), encoding="utf-8")

    def export(self, dtype: str = "float32") -> Path:
        """The run's model as one file."""
        output = self.folder / f"{dtype}.safetensors"
        if not output.exists():
            export_checkpoint(self.weights, output, dtype=dtype)
        return output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained tiny model whose bases came from files."""
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def without_bases(run: Run) -> Iterator[None]:
    """The bases' files are gone, as where the model is deployed; the exports are made."""
    for dtype in ("float32", "float16", "bfloat16"):
        run.export(dtype)
    folder = run.folder / "bases"
    hidden = folder.rename(run.folder / "hidden")
    yield
    hidden.rename(folder)


def _metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(str(path), framework="pt") as file:
        return file.metadata()


def test_it_holds_everything_and_says_what_it_is(run: Run) -> None:
    path = run.export()
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {*run.model.state_dict(), "clip.text_features", "clip.logit_scale"}
    said = _metadata(path)
    assert said["format"] == "schnet-export/1"
    assert yaml.safe_load(said["config"]) == yaml.safe_load(run.cfg.dump())
    labels = MetadataCatalog.get("lip_train")
    assert json.loads(said["classes"]) == labels.stuff_classes
    assert json.loads(said["palette"]) == [list(color) for color in labels.stuff_colors]
    assert json.loads(said["mirror_pairs"]) == [list(pair) for pair in labels.mirror_pairs]
    assert json.loads(said["prompts"]) == labels.prompts
    assert json.loads(said["metrics"]) == {"iteration": 9, "best": BEST, "evaluation": {}}
    bases = json.loads(said["bases"])
    assert bases["backbone.encoder."]["weights"] == run.bases[1]
    assert bases["clip."] == run.model.clip.source.as_dict()
    assert said["schnet_version"]


@pytest.mark.usefixtures("without_bases")
def test_it_alone_gives_the_models_predictions_to_the_bit(run: Run) -> None:
    cfg, model = load_exported(str(run.export()))
    assert torch.equal(predict(model), predict(run.model))
    assert not model.training
    assert cfg.is_frozen()
    assert cfg.MODEL.DEVICE == ("cuda" if torch.cuda.is_available() else "cpu")
    assert model.backbone.encoder.source == run.model.backbone.encoder.source
    assert model.clip.source == run.model.clip.source
    image = np.random.default_rng(0).integers(0, 255, (50, 40, 3)).astype(np.uint8)
    parser = Parser.from_config(cfg)
    assert parser.classes == tuple(MetadataCatalog.get("lip_val").stuff_classes)
    assert parser(image).labels.shape == (50, 40)


@pytest.mark.usefixtures("without_bases")
@pytest.mark.parametrize(("dtype", "bound"), [("float16", 5e-3), ("bfloat16", 5e-2)])
def test_half_types_halve_the_file_and_nearly_keep_the_predictions(
    run: Run, dtype: str, bound: float
) -> None:
    path = run.export(dtype)
    assert path.stat().st_size < 0.55 * run.export().stat().st_size
    stored = safetensors.torch.load_file(path)
    assert stored["backbone.encoder.pos_embed"].dtype == getattr(torch, dtype)
    assert stored["clip.text_features"].dtype == torch.float32
    _, model = load_exported(str(path))
    assert all(p.dtype == torch.float32 for p in model.parameters())
    found, wanted = predict(model), predict(run.model)
    assert not torch.equal(found, wanted)
    assert float((found - wanted).norm() / wanted.norm()) < bound
    # Rounded values are no file's: a checkpoint of this model must hold them.
    assert model.backbone.encoder.source is None


@pytest.mark.usefixtures("without_bases")
def test_evaluation_and_parser_take_it_without_the_bases(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lip(tmp_path / "data")
    register_datasets(str(tmp_path / "data"))
    opts = (*OPTS, *run.bases, "OUTPUT_DIR", str(tmp_path))
    exported = load_config([], [*opts, "MODEL.WEIGHTS", str(run.export())])
    found = evaluate_weights(exported)
    parsed = Parser.from_config(exported)
    (run.folder / "hidden").rename(run.folder / "bases")
    try:
        cfg = load_config([], [*opts, "MODEL.WEIGHTS", str(run.weights)])
        wanted = evaluate_weights(cfg)
        image = np.random.default_rng(0).integers(0, 255, (50, 40, 3)).astype(np.uint8)
        assert np.array_equal(parsed(image).labels, Parser.from_config(cfg)(image).labels)
    finally:
        (run.folder / "bases").rename(run.folder / "hidden")
    assert found["sem_seg"] == pytest.approx(wanted["sem_seg"], rel=0, abs=0, nan_ok=True)


@pytest.mark.usefixtures("without_bases")
def test_the_command_lines_take_it_without_the_bases(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No check on the way may ask for files that are not read."""
    folder = make_lip(tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    config = ("--config-file", str(run.config))
    own = ("MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out"))
    evaluation = (*config, "--eval-only", "MODEL.WEIGHTS", str(run.export()), *own)
    results = load_script("train_net.py").main(evaluation)
    assert results is not None and "mIoU" in results["sem_seg"]
    photo = next(folder.rglob("val_0.jpg"))
    demo = load_script("projects/SCHNet/demo.py")
    files = ("--weights", str(run.export()), "--input", str(photo), "--output", str(tmp_path / "d"))
    demo.main([*config, *files, "--opts", *own])
    assert (tmp_path / "d" / "val_0.png").is_file()


def test_exports_are_told_from_other_weights(run: Run, tmp_path: Path) -> None:
    assert is_export(str(run.export()))
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, foreign)
    for other in (str(foreign), str(run.weights), str(tmp_path / "gone.safetensors"), ""):
        assert not is_export(other)


def test_other_labels_than_its_own_are_refused(run: Run) -> None:
    opts = (*OPTS, "MODEL.WEIGHTS", str(run.export()), "DATASETS.TRAIN", "('cihp_train',)")
    with pytest.raises(InputError) as caught:
        build_trained_model(load_config([], opts))
    told = str(caught.value)
    assert told.startswith(f"MODEL.WEIGHTS names {run.export()}, which was exported for the labels")
    assert "Jumpsuits" in told and "cihp_train, which has" in told and "Torso-skin" in told


def test_other_phrases_are_reported(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    cfg = load_config([], [*OPTS, "MODEL.WEIGHTS", str(run.export())])
    metadata = MetadataCatalog.get("lip_train")
    prompts = [*metadata.prompts[:-1], ["boot"]]
    object.__setattr__(metadata, "prompts", prompts)
    try:
        with caplog.at_level(logging.WARNING):
            model = build_trained_model(cfg)
    finally:
        register_datasets(str(run.folder / "data"))
    assert "features of other phrases than lip_train" in caplog.text
    assert torch.equal(predict(model), predict(run.model))


def test_the_config_is_used_without_the_runs_data_sets(run: Run) -> None:
    """Their class lists may be files, and other data sets may have taken their names."""
    cfg = exported_config(str(run.export()))
    (name,) = cfg.DATASETS.TRAIN
    assert name.startswith("exported_") and cfg.DATASETS.TEST == (name,)
    labels = MetadataCatalog.get(name)
    assert labels.stuff_classes == MetadataCatalog.get("lip_train").stuff_classes
    assert [tuple(pair) for pair in labels.mirror_pairs] == [(14, 15), (16, 17), (18, 19)]
    assert exported_config(str(run.export())).DATASETS.TRAIN == (name,)
    assert cfg.MODEL.WEIGHTS == str(run.export())


def test_a_config_that_would_run_code_is_refused(run: Run, tmp_path: Path) -> None:
    header = read_export_header(run.export())
    assert header is not None
    mark = tmp_path / "ran"
    evil = f"!!python/object/apply:os.mkdir [{mark}]"
    path = tmp_path / "evil.safetensors"
    write_export(path, {"a": torch.ones(1)}, type(header)(**{**vars(header), "config": evil}))
    with pytest.raises(InputError, match="the config in .*evil.safetensors cannot be used"):
        load_exported(str(path))
    assert not mark.exists()


def test_a_training_may_start_from_it(run: Run) -> None:
    """The bases are built from their files, and must be those that it was trained with."""
    model = build_model(load_config([], [*OPTS, *run.bases]))
    load_model_weights(model, str(run.export()))
    assert torch.equal(predict(model), predict(run.model))
    assert model.backbone.encoder.source is not None
    other = base_opts(run.folder / "others", seed=5)
    with pytest.raises(InputError, match="trained with SAM tiny of .*whose values differ"):
        load_model_weights(build_model(load_config([], [*OPTS, *other])), str(run.export()))


def test_random_bases_need_no_fingerprint(tmp_path: Path) -> None:
    register_datasets()
    cfg = load_config([], [*OPTS, "OUTPUT_DIR", str(tmp_path)])
    model = train_a_little(build_model(cfg))
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    done = export_checkpoint(tmp_path / "bare.pth", tmp_path / "a.safetensors")
    assert (done.header.bases, done.header.iteration, done.header.best) == ({}, None, {})
    _, loaded = load_exported(str(done.path))
    assert torch.equal(predict(loaded), predict(model))
    back = export_to_checkpoint(done.path, tmp_path / "back")
    other = build_model(cfg)
    load_model_weights(other, str(back.path))
    assert torch.equal(predict(other), predict(model))


def _content(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


def test_the_way_back_gives_the_checkpoint_again(run: Run, tmp_path: Path) -> None:
    back = export_to_checkpoint(run.export(), tmp_path / "back")
    assert back.path == tmp_path / "back" / "model_exported.pth"
    ours, theirs = _content(back.path), _content(run.weights)
    assert set(ours) == set(theirs)
    assert set(ours["model"]) == set(theirs["model"])
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value) and ours["model"][name].dtype == value.dtype
    for entry in ("format", "bases", "iteration", "best"):
        assert ours[entry] == theirs[entry]
    config = tmp_path / "back" / "config.yaml"
    assert yaml.safe_load(config.read_text()) == yaml.safe_load(run.config.read_text())


def _train_on(weights: Path, config: Path, folder: Path) -> tuple[dict[str, torch.Tensor], float]:
    """Two steps of training and an evaluation by the command line, as a user would."""
    own = ("MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", "2")
    load_script("train_net.py").main(["--config-file", str(config), *own, "MODEL.DEVICE", "cpu"])
    model = _content(folder / "model_final.pth")["model"]
    evaluation = json.loads((folder / "inference" / "lip_val" / "evaluation.json").read_text())
    return model, evaluation["sem_seg"]["pACC"]


def test_what_comes_back_trains_and_evaluates_as_the_original(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lip(tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    back = export_to_checkpoint(run.export(), tmp_path / "back")
    first = _train_on(run.weights, run.config, tmp_path / "first")
    second = _train_on(back.path, back.path.with_name("config.yaml"), tmp_path / "second")
    assert first[1] == second[1]
    assert set(first[0]) == set(second[0])
    assert all(torch.equal(value, second[0][name]) for name, value in first[0].items())
    start = _content(run.weights)["model"]
    assert any(not torch.equal(value, start[name]) for name, value in first[0].items())


def test_what_a_half_type_rounded_comes_back_beside_the_exact_bases(
    run: Run, tmp_path: Path
) -> None:
    back = export_to_checkpoint(run.export("float16"), tmp_path / "back")
    assert {value.dtype for value in _content(back.path)["model"].values()} == {torch.float32}
    model = build_model(load_config([], [*OPTS, *run.bases]))
    load_model_weights(model, str(back.path))
    encoder = run.model.backbone.encoder.state_dict()
    for name, value in model.backbone.encoder.state_dict().items():
        assert torch.equal(value, encoder[name])
    assert 0 < float((predict(model) - predict(run.model)).abs().max()) < 0.1


def test_an_existing_output_is_never_replaced(run: Run, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    with pytest.raises(InputError, match="taken.safetensors exists: give another name"):
        export_checkpoint(run.weights, taken)
    for name in ("model_exported.pth", "config.yaml"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match=f"{name} exists: give another name"):
            export_to_checkpoint(run.export(), folder)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
    assert taken.read_text() == "mine"


def test_foreign_files_are_refused(run: Run, tmp_path: Path) -> None:
    new = tmp_path / "new.safetensors"
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, foreign)
    page = tmp_path / "page.safetensors"
    page.write_text("<html>not found</html>")
    for call, told in (
        (lambda: export_checkpoint(run.weights, tmp_path / "new.pth"), "end its name in .safeten"),
        (lambda: export_checkpoint(tmp_path / "gone.pth", new), "there is no file .*gone.pth"),
        (lambda: export_checkpoint(run.export(), new), "is an export already"),
        (lambda: export_checkpoint(foreign, new), "no config.yaml beside"),
        (
            lambda: export_checkpoint(foreign, new, config_files=[run.config]),
            "foreign.safetensors, which does not fit this model",
        ),
        (lambda: export_to_checkpoint(run.weights, tmp_path / "f"), "model_best.pth is no export"),
        (lambda: export_to_checkpoint(foreign, tmp_path / "f"), "foreign.safetensors is no export"),
        (lambda: export_to_checkpoint(page, tmp_path / "f"), "page.safetensors is no export"),
        (lambda: export_to_checkpoint(tmp_path / "gone", tmp_path / "f"), "there is no file"),
        (lambda: load_exported(str(foreign)), "no file that tools/export_weights.py wrote"),
    ):
        with pytest.raises(InputError, match=told):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == [foreign.name, page.name]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "schnet-export/2"}, "written by a newer version of schnet"),
        ({"classes": "[1"}, "the header of .* cannot be used"),
        ({"metrics": None}, "the header of .* cannot be used .KeyError: 'metrics'"),
        ({"derived": '["clip.gone"]'}, "which lacks clip.gone"),
        ({"config": "MODEL: {GONE: 1}"}, "the config in .* cannot be used .*GONE"),
    ],
)
def test_headers_that_cannot_be_used_are_refused(
    run: Run, tmp_path: Path, change: dict[str, str | None], told: str
) -> None:
    metadata = {**_metadata(run.export()), **change}
    path = tmp_path / "w.safetensors"
    tensors = safetensors.torch.load_file(run.export())
    safetensors.torch.save_file(tensors, path, {n: v for n, v in metadata.items() if v is not None})
    with pytest.raises(InputError, match=told):
        load_exported(str(path))


def test_a_weight_that_the_type_cannot_hold_is_refused(run: Run, tmp_path: Path) -> None:
    content = _content(run.weights)
    name = next(iter(content["model"]))
    content["model"][name].view(-1)[0] = 1e6
    torch.save(content, tmp_path / "large.pth")
    large = {"config_files": [run.config], "dtype": "float16"}
    with pytest.raises(
        InputError, match=f"{name} holds values up to 1e.06, too large for .*16: gi"
    ):
        export_checkpoint(tmp_path / "large.pth", tmp_path / "a.safetensors", **large)


def test_the_best_of_another_iteration_is_not_taken_for_its_own(run: Run, tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([p for p in run.model.parameters() if p.requires_grad])
    checkpointer = ParsingCheckpointer(run.model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_final", iteration=11, best={"mIoU": 99.0})
    evaluation = tmp_path / "evaluation.json"
    evaluation.write_text(json.dumps({"sem_seg": {"mIoU": 40.0}}))
    done = export_checkpoint(
        tmp_path / "model_final.pth",
        tmp_path / "a.safetensors",
        config_files=[run.config],
        evaluation=evaluation,
    )
    header = read_export_header(done.path)
    assert header is not None
    assert (header.iteration, header.best) == (11, {})
    assert header.evaluation == {"sem_seg": {"mIoU": 40.0}}
    evaluation.write_text("{")
    with pytest.raises(InputError, match="the evaluation .*evaluation.json cannot be read"):
        export_checkpoint(run.weights, tmp_path / "b.safetensors", evaluation=evaluation)


def test_a_full_disk_leaves_nothing(run: Run, tmp_path: Path) -> None:
    import resource

    code = (
        "import resource, sys; from pathlib import Path\n"
        "from schnet.errors import exit_on_input_error\n"
        "from schnet.export_file import read_export_header, write_export\n"
        "import torch\n"
        "header = read_export_header(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "with exit_on_input_error():\n"
        "    write_export(Path(sys.argv[2]), {'a': torch.ones(1_000_000)}, header)\n"
    )
    assert resource.RLIMIT_FSIZE  # this system has it
    command = [sys.executable, "-c", code, str(run.export()), str(tmp_path / "a.safetensors")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2, finished.stderr
    assert "error: the export" in finished.stderr and "File too large" in finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script, imported."""
    return load_script("tools/export_weights.py")


def test_the_command_goes_both_ways_and_says_what_it_wrote(
    run: Run, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.safetensors"
    tool.main([str(run.weights), "--output", str(output), "--dtype", "float16"])
    told = capsys.readouterr().out
    assert f"wrote {output}: " in told and f"{output.stat().st_size / 1e6:.1f} MB" in told
    assert "20 classes, weights exported as float16" in told and "best mIoU: 41.50" in told
    assert f"backbone.encoder: SAM tiny of {run.bases[1]}" in told
    tool.main([str(output), "--to-checkpoint", str(tmp_path / "back")])
    assert f"wrote {tmp_path / 'back' / 'model_exported.pth'}: " in capsys.readouterr().out
    with pytest.raises(InputError, match="do not go with --to-checkpoint"):
        tool.main([str(output), "--to-checkpoint", str(tmp_path / "b"), "--dtype", "float16"])


def test_the_command_refuses_in_one_line(run: Run, tmp_path: Path) -> None:
    script = str(REPOSITORY / "tools" / "export_weights.py")
    finished = subprocess.run(
        [sys.executable, script, str(run.weights), "--output", str(tmp_path / "a.bin")],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1].startswith("error: the output is ")
