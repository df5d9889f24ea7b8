"""Which model a job parses with: loaded by each worker, and known by a digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from schnet.downloads import file_digest
from schnet.engines import ONNX, engine_of, load_photo_parser
from schnet.errors import InputError
from schnet.photo_parser import PhotoParser


@dataclass(frozen=True)
class ModelIdentity:
    """What the label maps depend on.

    Attributes:
        digest: SHA-256 of the weights and of the options.
        classes: K names, in label order.
        palette: K colours (r, g, b) in 0..255.
    """

    digest: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


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
    """

    weights: str
    device: str = "cpu"
    dtype: str = "auto"
    config_files: tuple[str, ...] = ()
    opts: tuple[str, ...] = ()
    threads: int = 1

    @property
    def is_onnx(self) -> bool:
        """Whether onnxruntime runs it."""
        return engine_of(self.weights) == ONNX

    def load(self) -> PhotoParser:
        """Load the model.

        Raises:
            InputError: a file is missing or cannot be used, or the device is not there.
        """
        return load_photo_parser(
            self.weights,
            engine_of(self.weights),
            threads=self.threads,
            device=self.device,
            dtype=self.dtype,
            config_files=self.config_files,
            opts=self.opts,
        )

    def identify(self) -> ModelIdentity:
        """Find the digest and the labels; no weights are loaded into a model of torch.

        Raises:
            InputError: a file is missing or cannot be used.
        """
        return self._identify_onnx() if self.is_onnx else self._identify_trained()

    def _identify_onnx(self) -> ModelIdentity:
        if self.config_files or self.opts:
            raise InputError(
                f"{self.weights} has its own config: leave --config-file and --opts out"
            )
        if not Path(self.weights).is_file():
            raise InputError(f"there is no file {self.weights}: give an exported model")
        parser = self.load()
        return ModelIdentity(file_digest(self.weights, "sha256"), parser.classes, parser.palette)

    def _identify_trained(self) -> ModelIdentity:
        from schnet.trained import find_weights, label_list, label_settings, trained_config

        if "://" in self.weights:
            raise InputError(f"{self.weights} is a URL: download it to where all workers read it")
        file = find_weights(self.weights)
        # The workers' device, which the driver's machine need not have, changes no label.
        cfg = trained_config(
            file, "cpu", self.dtype, config_files=self.config_files, opts=self.opts
        )
        classes, palette = label_list(cfg)
        known = json.dumps([file_digest(file, "sha256"), *label_settings(cfg), classes, palette])
        return ModelIdentity(hashlib.sha256(known.encode()).hexdigest(), classes, palette)
