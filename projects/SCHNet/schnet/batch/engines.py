"""The parser that a command line asks for, and what tells it from another.

Each engine is imported when it is chosen: an exported model needs neither torch nor Detectron2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schnet.batch.run_file import RunIdentity, digest_of
from schnet.downloads import file_digest
from schnet.engines import ONNX, TORCH, engine_of, load_photo_parser, pin_weights
from schnet.errors import InputError
from schnet.photo_parser import PhotoParser

AUTO = "auto"
ENGINES = (AUTO, TORCH, ONNX)


@dataclass(frozen=True)
class EngineOptions:
    """What a command line says of the model.

    Attributes:
        weights: what the engine loads.
        engine: of `ENGINES`.
        device: `auto` or a name of torch.
        dtype: `auto`, `float32` or `bfloat16`.
        config_files: of a checkpoint.
        opts: config overrides, alternating keys and values.
        classes: names to parse by, or None for the model's own.
        clip_weights: CLIP's file, for `classes`.
        remap: name or YAML file of another vocabulary, or None.
    """

    weights: str
    engine: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    config_files: tuple[str, ...] = ()
    opts: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    clip_weights: str | None = None
    remap: str | None = None

    def chosen(self) -> str:
        """The engine; `auto` goes by the file's ending.

        Raises:
            InputError: an option is given that the engine has not.
        """
        engine = engine_of(self.weights) if self.engine == AUTO else self.engine
        if engine == ONNX:
            for option, value in (
                ("--device", self.device != "auto"),
                ("--dtype", self.dtype != "auto"),
                ("--config-file", self.config_files),
                ("--opts", self.opts),
                ("--classes", self.classes is not None),
                ("--clip-weights", self.clip_weights),
            ):
                if value:
                    raise InputError(
                        f"{option} is of --engine torch: an exported file is as it is; leave the "
                        "option out, or give the checkpoint"
                    )
        return engine

    def pinned(self) -> EngineOptions:
        """The same with the one file of weights that a folder stands for.

        Raises:
            InputError: there is none, or an option is given that the engine has not.
        """
        return replace(self, weights=pin_weights(self.weights, self.chosen()))


def load_parser(options: EngineOptions) -> PhotoParser:
    """Load the model.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    engine = options.chosen()
    if engine == ONNX:
        return load_photo_parser(options.weights, engine, threads=_threads(os.environ))
    words: dict[str, Any] = {}
    if options.classes is not None:
        words = {"classes": list(options.classes), "clip_weights": options.clip_weights}
    elif options.clip_weights:
        raise InputError("--clip-weights is for --classes: give names to parse by, or leave it out")
    return load_photo_parser(
        options.weights,
        engine,
        device=options.device,
        dtype=options.dtype,
        config_files=options.config_files,
        opts=options.opts,
        **words,
    )


def identity_of(options: EngineOptions) -> RunIdentity:
    """What label maps depend on; the device is no part of it, nor is where the files are.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    engine = options.chosen()
    parts = {"the engine": engine}
    if engine == ONNX:
        parts["the weights"] = _file_digest(options.weights, "the exported model")
    else:
        parts |= _torch_parts(options)
    if options.classes is not None:
        parts["--classes"] = ", ".join(options.classes)
        if options.clip_weights:
            parts["--clip-weights"] = _file_digest(options.clip_weights, "CLIP's file")
    if options.remap:
        path = Path(options.remap)
        parts["--remap"] = _file_digest(path, "the remap") if path.is_file() else options.remap
    return RunIdentity(parts)


def _threads(environment: Mapping[str, str]) -> int | None:
    """This process's share of the cores where torchrun started several here; None for all."""
    local = environment.get("LOCAL_WORLD_SIZE", "")
    if not local.isdecimal() or int(local) < 2:
        return None
    return max(1, (os.cpu_count() or 1) // int(local))


def _torch_parts(options: EngineOptions) -> dict[str, str]:
    from schnet.trained import label_settings, trained_config
    from schnet.weight_files import locate_weights

    cfg = trained_config(
        options.weights,
        options.device,
        options.dtype,
        config_files=options.config_files,
        opts=options.opts,
        clip_weights=options.clip_weights if options.classes is not None else None,
    )
    weights = _file_digest(locate_weights(cfg.MODEL.WEIGHTS, "--weights"), "the weights")
    settings = digest_of("\n".join(label_settings(cfg)))
    return {"the weights": weights, "the model's config": settings}


def _file_digest(path: str | os.PathLike[str], kind: str) -> str:
    try:
        return file_digest(path, "sha256")
    except OSError as error:
        raise InputError(
            f"{kind} {os.fspath(path)} cannot be read ({error.strerror}): correct the path"
        ) from None


def class_list(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(","))
