"""Tiny videos, written and read by OpenCV alone, and a parser that has scores for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from parsing_fakes import ThresholdModel

from schnet.data.mapper import TestMapper
from schnet.inference import Parser

# The matrix of an MP4's track header, for frames as stored and for frames to turn by 90 degrees.
_AS_STORED = bytes.fromhex("00010000 00000000 00000000 00000000 00010000".replace(" ", ""))
_TURNED = bytes.fromhex("00000000 00010000 00000000 ffff0000 00000000".replace(" ", ""))


def write_video(path: Path, frames: Sequence[np.ndarray], rate: float = 12.5) -> Path:
    """Write frames (H, W, 3), RGB; of MP4s the codec is MPEG-4, of AVIs Motion JPEG."""
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def turn_video(path: Path) -> None:
    """Say in an MP4 that its frames are to be turned, as a phone does that was held upright."""
    data = path.read_bytes()
    # Of the movie, and then of the track.
    at = data.index(_AS_STORED, data.index(b"tkhd"))
    path.write_bytes(data[:at] + _TURNED + data[at + len(_TURNED) :])


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """Read all frames, RGB, and the rate."""
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    frames = []
    while True:
        found, frame = capture.read()
        if not found:
            capture.release()
            return frames, rate
        frames.append(frame[..., ::-1])


def bright_right(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames that are black on the left and, growing from right to left, white on the right."""
    frames = []
    for number in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, width // 2 - 2 * number :] = 255
        frames.append(frame)
    return frames


def video_parser() -> Parser:
    """A parser of `background` and `bright` with scores; its model keeps what it was given."""
    metadata = Metadata(
        stuff_classes=["background", "bright"], stuff_colors=[[0, 0, 0], [9, 200, 7]]
    )
    model = ThresholdModel()
    return Parser(model, TestMapper(box=(32, 32)), metadata, score_model=model)  # type: ignore[arg-type]
