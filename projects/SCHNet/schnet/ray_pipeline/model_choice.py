"""Which model a job parses with: loaded by each worker, and known by a digest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schnet.downloads import file_digest
from schnet.engines import ONNX, engine_of, load_photo_parser
from schnet.errors import InputError
from schnet.photo_parser import PhotoParser
from schnet.remap import RemappedParser, load_remap

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@dataclass(frozen=True)
class ModelIdentity:
    """What the label maps depend on.

    Attributes:
        digest: SHA-256 of the weights and of the options.
        classes: K names, in label order.
        palette: K colours (r, g, b) in 0..255.
        unmapped: what has no counterpart in the label list that is asked for, in a sentence.
    """

    digest: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    unmapped: str = ""


@dataclass(frozen=True)
class ModelChoice:
    """A model by its files, which all workers see under the same paths.

    Attributes:
        weights: what `schnet.inference.Parser.load` takes, or an exported `.onnx` file.
        device: where it runs, a name of torch; the CPU where it is an `.onnx` file.
        dtype: see `Parser.load`.
        config_files: see `Parser.load`.
        opts: see `Parser.load`.
        threads: that an `.onnx` file runs with; torch takes Ray's OMP_NUM_THREADS.
        classes: see `Parser.load`.
        clip_weights: see `Parser.load`.
        remap: name or YAML file of another label list, see `schnet.remap`.
    """

    weights: str
    device: str = "cpu"
    dtype: str = "auto"
    config_files: tuple[str, ...] = ()
    opts: tuple[str, ...] = ()
    threads: int = 1
    classes: tuple[str, ...] | None = None
    clip_weights: str | None = None
    remap: str | None = None

    @property
    def is_onnx(self) -> bool:
        """Whether onnxruntime runs it."""
        return engine_of(self.weights) == ONNX

    def load(self) -> PhotoParser:
        """Load the model.

        Raises:
            InputError: a file is missing or cannot be used, or the device is not there.
        """
        parser = load_photo_parser(
            self.weights,
            engine_of(self.weights),
            threads=self.threads,
            device=self.device,
            dtype=self.dtype,
            config_files=self.config_files,
            opts=self.opts,
            classes=None if self.classes is None else list(self.classes),
            clip_weights=self.clip_weights,
        )
        if self.remap is None:
            return parser
        return RemappedParser(parser, load_remap(self.remap, parser.classes))

    def pinned(self) -> ModelChoice:
        """The same model, by paths that do not depend on the directory a process runs in.

        Workers of a cluster run where `ray start` did. Official names, `random` and URLs stay.

        Raises:
            InputError: a file is missing or cannot be used.
        """
        # An `.onnx` file has no bases; a URL is refused by `identify`, which says why.
        if self.is_onnx or "://" in self.weights:
            return self
        model, opts = self._trained_config().MODEL, list(self.opts)
        for base, file in (("SAM", model.SAM.WEIGHTS), ("CLIP", model.CLIP.WEIGHTS)):
            if os.path.isfile(file):
                opts += [f"MODEL.{base}.WEIGHTS", os.path.abspath(file)]
        return replace(self, opts=tuple(opts))

    def identify(self) -> ModelIdentity:
        """Find the digest and the labels; a model of torch is loaded for `classes` alone.

        Raises:
            InputError: a file is missing or cannot be used.
        """
        known = self._identify_onnx() if self.is_onnx else self._identify_trained()
        if self.remap is None:
            return known
        remap = load_remap(self.remap, known.classes)
        path = Path(self.remap)
        what = file_digest(path, "sha256") if path.is_file() else self.remap
        digest = hashlib.sha256(json.dumps([known.digest, what]).encode()).hexdigest()
        return ModelIdentity(digest, remap.classes, remap.palette, remap.describe_unmapped())

    def _identify_onnx(self) -> ModelIdentity:
        if self.config_files or self.opts:
            raise InputError(
                f"{self.weights} has its own config: leave --config-file and --opts out"
            )
        if self.classes is not None or self.clip_weights:
            raise InputError(
                f"{self.weights} has its own labels: leave --classes and --clip-weights out, or "
                "give the checkpoint"
            )
        if not Path(self.weights).is_file():
            raise InputError(f"there is no file {self.weights}: give an exported model")
        parser = self.load()
        return ModelIdentity(file_digest(self.weights, "sha256"), parser.classes, parser.palette)

    def _identify_trained(self) -> ModelIdentity:
        from schnet.trained import find_weights, label_list, label_settings

        if "://" in self.weights:
            raise InputError(f"{self.weights} is a URL: download it to where all workers read it")
        file = find_weights(self.weights)
        cfg = self._trained_config()
        classes, palette = label_list(cfg)
        parts: list[Any] = [file_digest(file, "sha256"), *label_settings(cfg)]
        if self.classes is not None:
            parser = replace(self, device="cpu", remap=None).load()
            classes, palette = parser.classes, parser.palette
            parts.append(self.classes)
            if self.clip_weights:
                parts.append(file_digest(self.clip_weights, "sha256"))
        elif self.clip_weights:
            raise InputError(
                "--clip-weights is for --classes: give names to parse by, or leave it out"
            )
        known = json.dumps(parts)
        return ModelIdentity(hashlib.sha256(known.encode()).hexdigest(), classes, palette)

    def _trained_config(self) -> CfgNode:
        from schnet.trained import trained_config

        return trained_config(
            self.weights,
            # The workers' device, which the driver's machine need not have, changes no label.
            "cpu",
            self.dtype,
            config_files=self.config_files,
            opts=self.opts,
            clip_weights=None if self.classes is None else self.clip_weights,
        )
