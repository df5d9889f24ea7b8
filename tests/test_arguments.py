"""The command line: layers of configs, the ways to resume, overrides at the end."""

from __future__ import annotations

import pytest

from schnet.engine.arguments import parse_arguments
from schnet.errors import InputError
from schnet.setup import Resume

FILE = ["--config-file", "a.yaml"]


def test_config_files_are_layers_in_order() -> None:
    args = parse_arguments([*FILE, "--config-file", "b.yaml"])
    assert args.config_file == ["a.yaml", "b.yaml"]
    assert args.opts == []
    assert args.dist_url == "auto"


@pytest.mark.parametrize(
    ("words", "resume"),
    [
        ([], Resume.NEVER),
        (["--resume"], Resume.REQUIRED),
        (["--resume", "auto"], Resume.AUTO),
        (["--resume=auto"], Resume.AUTO),
    ],
)
def test_resume_takes_auto_and_no_override(words: list[str], resume: Resume) -> None:
    args = parse_arguments([*FILE, *words, "SEED", "1"])
    assert args.resume is resume
    assert args.opts == ["SEED", "1"]


def test_option_after_bare_resume_is_still_an_option() -> None:
    args = parse_arguments(["--resume", *FILE, "--eval-only", "--num-gpus", "2"])
    assert args.resume is Resume.REQUIRED
    assert args.eval_only
    assert args.num_gpus == 2


def test_option_among_the_overrides_is_refused() -> None:
    with pytest.raises(InputError, match="--eval-only stands among the KEY VALUE overrides"):
        parse_arguments([*FILE, "SEED", "1", "--eval-only"])


def test_no_gpu_means_one_cpu_process() -> None:
    args = parse_arguments([*FILE, "--num-gpus", "0", "SEED", "1"])
    assert args.num_gpus == 1
    assert args.opts == ["SEED", "1", "MODEL.DEVICE", "cpu"]


def test_config_file_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--eval-only"])
    assert caught.value.code == 2
    assert "--config-file" in capsys.readouterr().err
