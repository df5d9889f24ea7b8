"""Videos and cameras frame by frame, read and written by OpenCV; a video is whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from schnet.data.files import atomic_path
from schnet.errors import InputError
from schnet.visualization import ByteArray

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
"""What a video is encoded by, for its name's ending: of what OpenCV's own builds can encode, the
most widely read."""

MAX_RATE = 240.0
# OpenCV estimates the frames of some containers, by a duration that is rounded.
_TOLERATED_FRAMES, _TOLERATED_SHARE = 2, 0.01


class FrameSource:
    """The frames of a video file or a camera, upright, one at a time.

    Attributes:
        name: what it is, for messages.
        rate: frames a second; None where it is not told.
        frames: how many there should be; None where it is not told, as by cameras.
        read: frames that have been given so far.
    """

    def __init__(self, capture: Any, name: str) -> None:
        """Take an opened `cv2.VideoCapture`; `open_video` and `open_camera` make one."""
        self._capture = capture
        # Phones store frames as the sensor has them, and how they were held beside them.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.name = name
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= MAX_RATE else None
        frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(frames) if 0 < frames < 1 << 53 else None
        self.read = 0

    def __iter__(self) -> Iterator[ByteArray]:
        """Give the frames left, each (H, W, 3) uint8 RGB."""
        while True:
            found, frame = self._capture.read()
            if not found or frame is None:
                return
            self.read += 1
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)

    def shortfall(self) -> str | None:
        """Say what is missing, after the last frame: None where the file was read as it promised.

        Returns:
            A sentence where frames are missing beyond what rounding explains.
        """
        if self.frames is None:
            return None
        missing = self.frames - self.read
        if missing <= max(_TOLERATED_FRAMES, _TOLERATED_SHARE * self.frames):
            return None
        return (
            f"{self.name} is damaged or cut off: {self.read} of its {self.frames} frames could be "
            "read, and those are in the result; get the whole file, and parse it again"
        )

    def close(self) -> None:
        """Let go of the file or camera."""
        self._capture.release()


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[FrameSource]:
    """Open a video file.

    Raises:
        InputError: it is missing, or OpenCV cannot read it.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no video {file}: give the path of a file")
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise InputError(
            f"the video {file} cannot be read: it is no video, is cut off at its end, or has a "
            "codec that OpenCV lacks; convert it to H.264 in MP4, or get the whole file"
        )
    with contextlib.closing(FrameSource(capture, f"the video {file}")) as source:
        yield source


@contextlib.contextmanager
def open_camera(number: int) -> Iterator[FrameSource]:
    """Open a camera of this machine.

    Args:
        number: the first is 0.

    Raises:
        InputError: there is none, or it is in use.
    """
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise InputError(
            f"there is no camera {number} to read: connect one, close the program that uses it, or "
            "give another number with --webcam"
        )
    # The newest frame rather than a queue of old ones, since parsing takes longer than a frame.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    with contextlib.closing(FrameSource(capture, f"camera {number}")) as source:
        yield source


def require_new_video(path: Path) -> None:
    """Refuse an output that cannot be written, before anything is parsed.

    Raises:
        InputError: the ending is none of `CODECS`, or the file is there.
    """
    if path.suffix.lower() not in CODECS:
        raise InputError(
            f"--output {path} must end in {', '.join(CODECS)} to take a video, not in "
            f"{path.suffix or 'nothing'}"
        )
    if path.exists():
        raise InputError(f"{path} exists: give another --output, or move that file away")


class VideoWriter:
    """Writes frames of one size to a video file; see `new_video`.

    Attributes:
        written: frames so far.
    """

    def __init__(self, path: Path, rate: float, named: Path) -> None:
        """Take the file to write, frames a second, and the name for messages."""
        self._path, self._rate, self._named = path, rate, named
        self._writer: Any = None
        self._size = (0, 0)
        self.written = 0

    def write(self, frame: ByteArray) -> None:
        """Append a frame (H, W, 3), uint8, RGB; the first one's size is the video's.

        Encoders halve the sides of colour: of an odd height or width the last row or column is
        left out.

        Raises:
            InputError: this OpenCV cannot write such a video.
            ValueError: the frame has another size than the first.
        """
        height, width = (side & ~1 for side in frame.shape[:2])
        if self._writer is None:
            self._size = (width, height)
            self._writer = self._open()
        if (width, height) != self._size:
            raise ValueError(f"a frame is {width}x{height} in a video of {self._size}")
        even = np.ascontiguousarray(frame[:height, :width])
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self.written += 1

    def _open(self) -> Any:
        code = CODECS[self._path.suffix.lower()]
        fourcc = cv2.VideoWriter.fourcc(*code)
        writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, fourcc, self._rate, self._size)
        if not writer.isOpened():
            raise InputError(
                f"this OpenCV cannot write {self._named} ({code}, {self._size[0]}x{self._size[1]}, "
                f"{self._rate:g} frames a second): give another ending of {', '.join(CODECS)}"
            )
        return writer

    def finish(self) -> None:
        """Complete the file, and look that it is whole: OpenCV tells of no write that failed.

        Raises:
            InputError: not every frame can be read again, or nothing was written.
        """
        if self._writer is None:
            raise InputError(f"there was no frame to write to {self._named}")
        self.close()
        readable = _count_frames(self._path)
        if readable != self.written:
            raise InputError(
                f"{self._named} could not be written, {readable} of its {self.written} frames "
                "arrived: free space on its disk"
            )

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.release()


def _count_frames(path: Path) -> int:
    """Frames of a video that can be decoded; some containers' own count is an estimate."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count


@contextlib.contextmanager
def new_video(path: Path, rate: float) -> Iterator[VideoWriter]:
    """Write a video; it appears under its name once the block ends, and is whole then.

    Where the block raises, or the process is killed, there is no file of that name.

    Args:
        path: ends in one of `CODECS`.
        rate: frames a second.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as temporary:
        writer = VideoWriter(temporary, rate, path)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class SteadyClock:
    """How often a camera's frame must be written for the video to play in real time.

    Parsing takes longer than a frame lasts, so that frames are skipped: each parsed one stands for
    those that passed meanwhile.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        """Take frames a second, and the clock in seconds."""
        self._rate, self._now = rate, now
        self._start: float | None = None
        self._given = 0

    def repeats(self) -> int:
        """Copies of the frame that is ready now, at least 1."""
        now = self._now()
        if self._start is None:
            self._start = now
        due = round((now - self._start) * self._rate) + 1
        count = max(1, due - self._given)
        self._given += count
        return count


def has_window() -> bool:
    """Whether this OpenCV can open a window: its headless builds cannot."""
    gui = re.search(r"GUI:\s*(\S+)", cv2.getBuildInformation())
    return gui is not None and gui.group(1) != "NONE"


def show(title: str, frame: ByteArray) -> bool:
    """Show a frame (H, W, 3), uint8, RGB in a window.

    Returns:
        Whether to go on: Esc and q end it.
    """
    cv2.imshow(title, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) & 0xFF not in (27, ord("q"))
