"""The whole model: what is frozen, what learns, sizes, order, and every ablation by config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import CONFIGS
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from schnet.errors import InputError
from schnet.modeling import SCHNet


def _images(*sizes: tuple[int, int], labels: bool = True) -> list[dict[str, Any]]:
    inputs = []
    for height, width in sizes:
        entry = {"image": torch.randint(0, 256, (3, height, width), dtype=torch.uint8)}
        if labels:
            entry["sem_seg"] = torch.randint(0, 4, (height, width))
        inputs.append(entry)
    return inputs


def _train_steps(model: SCHNet, steps: int, *, lr: float = 0.05) -> None:
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(_images((32, 48), (32, 48))).values()).backward()
        optimizer.step()


def test_frozen_weights_and_buffers_do_not_change_by_a_bit(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    model = build_model(tiny_cfg())
    frozen = {**model.backbone.encoder.state_dict(prefix="sam."), **model.clip.state_dict()}
    before = {name: value.clone() for name, value in frozen.items()}
    text = model.clip.text_features.clone()
    _train_steps(model, 2)
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(frozen[name], value) for name, value in before.items())
    assert torch.equal(model.clip.text_features, text)
    modes = {m.training for part in (model.clip, model.backbone.encoder) for m in part.modules()}
    assert modes == {False}
    assert model.training and model.sem_seg_head.training and model.backbone.ftm.training


@pytest.mark.parametrize("classifier", ["linear", "text"])
def test_every_trained_parameter_has_a_gradient_and_learns_by_the_third_step(
    tiny_cfg: Callable[..., CfgNode], classifier: str
) -> None:
    model = build_model(tiny_cfg(["MODEL.SEM_SEG_HEAD.CLASSIFIER", classifier]))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"backbone", "sem_seg_head"}
    assert all(name.startswith(("backbone.ftm.", "sem_seg_head.")) for name in trained)
    _train_steps(model, 1)
    assert [name for name, p in trained.items() if p.grad is None] == []
    _train_steps(model, 2)
    still = [name for name, p in trained.items() if not (p.grad != 0).any()]
    assert still == []


def test_with_rho_zero_and_a_fresh_srm_the_features_are_plain_sams(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    model = build_model(tiny_cfg(["MODEL.FTM.RHO_INIT", "0.0"])).eval()
    seen = {}
    model.sem_seg_head.decoder.register_forward_pre_hook(
        lambda module, args: seen.update(features=args[0], images=args[1])
    )
    with torch.no_grad():
        model(_images((48, 32), labels=False))
        plain = model.backbone(seen["images"])
    assert all(torch.equal(seen["features"][name], plain[name]) for name in plain)


@torch.no_grad()
def test_an_images_result_does_not_depend_on_its_neighbours_and_order_is_kept(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    model = build_model(tiny_cfg()).eval()
    inputs = _images((48, 32), (17, 33), (48, 32), (1, 1), (17, 33), labels=False)
    together = model(inputs)
    for entry, result in zip(inputs, together, strict=True):
        alone = model([entry])[0]["sem_seg"]
        assert result["sem_seg"].shape == (4, *entry["image"].shape[1:])
        assert result["sem_seg"].dtype == torch.float32
        assert torch.allclose(result["sem_seg"], alone, atol=1e-4)


@torch.no_grad()
def test_results_come_at_the_size_asked_for(tiny_cfg: Callable[..., CfgNode]) -> None:
    model = build_model(tiny_cfg()).eval()
    entry = {**_images((40, 24), labels=False)[0], "height": 101, "width": 57}
    assert model([entry])[0]["sem_seg"].shape == (4, 101, 57)


def test_labels_may_come_as_bytes(tiny_cfg: Callable[..., CfgNode]) -> None:
    model = build_model(tiny_cfg())
    wide = _images((32, 48))
    narrow = [{**entry, "sem_seg": entry["sem_seg"].to(torch.uint8)} for entry in wide]
    wanted = model(wide)
    assert all(torch.equal(value, wanted[name]) for name, value in model(narrow).items())


def test_losses_of_mixed_sizes_are_the_mean_over_images(tiny_cfg: Callable[..., CfgNode]) -> None:
    model = build_model(tiny_cfg()).train()
    inputs = _images((32, 32), (48, 32), (32, 32))
    together = model(inputs)
    alone = [model([entry]) for entry in inputs]
    for name, value in together.items():
        assert torch.allclose(value, sum(x[name] for x in alone) / 3, atol=1e-5)


def test_srm_and_feedback_act_once_trained(tiny_cfg: Callable[..., CfgNode]) -> None:
    inputs = _images((32, 48), labels=False)
    results = {}
    for name, opts in {
        "full": [],
        "no_feedback": ["MODEL.SRM.FEEDBACK", "False"],
        "other_stages": ["MODEL.SRM.CLIP_STAGES", "[4, 4, 4, 4, 4]"],
    }.items():
        torch.manual_seed(0)
        model = build_model(tiny_cfg(opts)).eval()
        for module in model.sem_seg_head.srm:
            generator = torch.Generator().manual_seed(1)
            with torch.no_grad():
                module.up.weight.copy_(torch.randn(module.up.weight.shape, generator=generator))
        with torch.no_grad():
            results[name] = model(inputs)[0]["sem_seg"]
    assert not torch.allclose(results["full"], results["no_feedback"])
    assert not torch.allclose(results["full"], results["other_stages"])


ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("*.yaml"))


def test_the_ablations_asked_for_are_there() -> None:
    assert ABLATIONS == [
        "clip_only",
        "full_finetune",
        "no_feedback",
        "no_ftm",
        "no_srm",
        "sam_only",
    ]


@pytest.mark.parametrize("base", ["lip", "quickstart"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_trains_and_parses(
    name: str, base: str, tiny_cfg: Callable[..., CfgNode]
) -> None:
    files = [CONFIGS / f"{base}.yaml", CONFIGS / "ablations" / f"{name}.yaml"]
    model = build_model(tiny_cfg(files=files))
    has_sam = name != "clip_only"
    has_srm = name not in ("sam_only", "clip_only", "no_srm")
    has_ftm = name in ("no_feedback", "no_srm")
    assert (model.clip is not None) is has_srm
    assert (model.sem_seg_head.srm is not None) is has_srm
    assert has_sam is hasattr(model.backbone, "encoder")
    assert (getattr(model.backbone, "ftm", None) is not None) is has_ftm
    assert model.sem_seg_head.feedback is (name != "no_feedback")
    if has_sam:
        trained = [p.requires_grad for p in model.backbone.encoder.parameters()]
        # The quickstart trains its random SAM; the baseline of a frozen one says so itself.
        free = name == "full_finetune" or (base == "quickstart" and name != "sam_only")
        assert set(trained) == {free}
    _train_steps(model, 1)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        assert model.eval()(_images((20, 30)))[0]["sem_seg"].shape == (4, 20, 30)


@torch.no_grad()
def test_the_text_classifier_serves_any_label_list(tiny_cfg: Callable[..., CfgNode]) -> None:
    opts = ["MODEL.SEM_SEG_HEAD.CLASSIFIER", "text", "MODEL.SRM.ENABLED", "False"]
    torch.manual_seed(0)
    model = build_model(tiny_cfg(opts)).eval()
    inputs = _images((32, 32), labels=False)
    logits = model(inputs)[0]["sem_seg"]
    order = [3, 1, 0, 2]
    metadata = MetadataCatalog.get("parts_train")
    prompts = [metadata.prompts[i] for i in order]
    MetadataCatalog.pop("parts_train")
    MetadataCatalog.get("parts_train").set(prompts=prompts)
    other = build_model(tiny_cfg(opts))
    other.load_state_dict(model.state_dict())
    assert torch.allclose(other.eval()(inputs)[0]["sem_seg"], logits[order], atol=1e-4)


def test_class_weights_come_from_the_training_sets_frequencies(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    MetadataCatalog.get("parts_train").set(class_frequencies=[0.7, 0.1, 0.1, 0.1])
    weights = build_model(tiny_cfg()).sem_seg_head.loss.class_weights
    assert weights is None
    opts = ["MODEL.LOSS.CLASS_WEIGHTS", "sqrt_inverse"]
    weights = build_model(tiny_cfg(opts)).sem_seg_head.loss.class_weights
    assert weights[0] < weights[1] == weights[3]


def test_a_label_list_without_prompts_is_refused(tiny_cfg: Callable[..., CfgNode]) -> None:
    with pytest.raises(InputError, match="nowhere_train.*prompts"):
        build_model(tiny_cfg(["DATASETS.TRAIN", "('nowhere_train',)"]))


def test_building_draws_nothing_from_the_seed_but_the_trained_parts(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(build_model(tiny_cfg()).state_dict())
    same = {name for name, value in states[0].items() if torch.equal(value, states[1][name])}
    assert all(n in same for n in states[0] if n.startswith(("backbone.encoder.", "clip.")))
    assert "backbone.ftm.tokens" not in same


@torch.no_grad()
def test_under_autocast_the_residual_stream_stays_fp32_and_ftm_is_felt(
    tiny_cfg: Callable[..., CfgNode],
) -> None:
    model = build_model(tiny_cfg()).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        maps = model.backbone(x)
        f = model.backbone.encoder.embed(x)
        tuned = model.backbone.ftm(0, f)
    assert {m.dtype for m in maps.values()} == {torch.float32}
    assert (tuned != f).float().mean() > 0.99
    plain = model.backbone(x)
    for name, expected in plain.items():
        assert (maps[name] - expected).norm() / expected.norm() < 1e-2
