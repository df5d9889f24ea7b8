"""Image in, parsing out, by an exported ONNX file: onnxruntime, NumPy, OpenCV and Pillow alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from schnet.errors import InputError
from schnet.graph_export.fitting import (
    Fitted,
    FloatArray,
    fit_photo,
    labels_of,
    probabilities_of,
)
from schnet.graph_export.metadata import KEY, GraphMetadata
from schnet.parsing import ByteArray, Parsing
from schnet.photo_parser import PhotoParser

INPUT_NAME, OUTPUT_NAME = "image", "logits"


class OnnxParser(PhotoParser):
    """Parses photos on the CPU with a file of `tools/export.py`; neither torch nor Detectron2.

    Attributes:
        metadata: what the file says of itself.
    """

    def __init__(self, run: Callable[[FloatArray], FloatArray], metadata: GraphMetadata) -> None:
        """Take the parts.

        Args:
            run: the graph, (B, 3, H, W) fp32 RGB 0..255 to logits (B, K, h, w) fp32.
            metadata: the graph's.
        """
        super().__init__(metadata.classes, metadata.palette)
        self._run = run
        self.metadata = metadata

    @classmethod
    def load(cls, path: str | os.PathLike[str], threads: int | None = None) -> OnnxParser:
        """Load an exported file.

        Args:
            path: the `.onnx` file; no other is needed.
            threads: that onnxruntime computes with; None takes all cores.

        Raises:
            InputError: onnxruntime is not installed, the file is missing or is no export of
                `tools/export.py`, or `threads` is below 1.
        """
        if threads is not None and threads < 1:
            raise InputError(f"the number of threads is {threads}: give 1 or more")
        session = open_session(path, threads)
        entries = session.get_modelmeta().custom_metadata_map
        return cls(partial(run_session, session), _read_metadata(path, entries))

    def parse_arrays(
        self, images: Sequence[ByteArray], probabilities: bool = False
    ) -> list[Parsing]:
        """See `PhotoParser.parse_arrays`; one by one, since a photo alone uses all cores."""
        return [self._parse(image, probabilities) for image in images]

    def probabilities_of(self, image: ByteArray) -> FloatArray:
        """Probabilities of one upright photo.

        Args:
            image: (H, W, 3), uint8, RGB.

        Returns:
            (K, H, W), fp32. Under the protocol `warp_labels` these are the scores brought to the
            photo's size, and their argmax may differ from the label map at the parts' edges.
        """
        fitted = fit_photo(image, self.metadata)
        return probabilities_of(self._logits(fitted), fitted)

    def _parse(self, image: ByteArray, probabilities: bool) -> Parsing:
        fitted = fit_photo(image, self.metadata)
        logits = self._logits(fitted)
        labels = labels_of(logits, fitted, self.metadata)
        scores: Callable[[], FloatArray] = partial(self.probabilities_of, image)
        if probabilities:
            found = probabilities_of(logits, fitted)
            scores = lambda: found  # noqa: E731
        return Parsing(labels, self.classes, self.palette, image, scores)

    def _logits(self, fitted: Fitted) -> FloatArray:
        return self._run(fitted.image)[0]


def open_session(path: str | os.PathLike[str], threads: int | None = None) -> Any:
    """Open an ONNX file with onnxruntime, on the CPU.

    Args:
        path: the file.
        threads: None takes all cores.

    Raises:
        InputError: onnxruntime is not installed, or the file is missing or no ONNX model.
    """
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}: give an .onnx file that tools/export.py wrote")
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            "onnxruntime is not installed, which runs exported models: pip install 'schnet[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds share no class below Exception
        raise InputError(
            f"{path} is no model that onnxruntime can open ({' '.join(str(error).split())}): give "
            "an .onnx file that tools/export.py wrote"
        ) from error


def run_session(session: Any, images: FloatArray) -> FloatArray:
    """Images (B, 3, H, W) to logits (B, K, h, w), both fp32."""
    return session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def _read_metadata(path: str | os.PathLike[str], entries: dict[str, str]) -> GraphMetadata:
    if KEY not in entries:
        raise InputError(
            f"{path} is an ONNX model, but none that tools/export.py wrote: export the weights "
            "with it"
        )
    try:
        return GraphMetadata.from_json(entries[KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"what {path} says of itself cannot be used ({type(error).__name__}: {error}): export "
            "the weights again with this version"
        ) from error
