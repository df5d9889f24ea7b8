from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from video_helpers import bright_right, read_video, turn_video, write_video

from schnet import video
from schnet.errors import InputError
from schnet.video import (
    CODECS,
    FrameSource,
    SteadyClock,
    new_video,
    open_camera,
    open_video,
    require_new_video,
)


class Capture:
    """A camera or file as `cv2.VideoCapture` shows it."""

    def __init__(self, frames: int, rate: float = 25.0, promised: float = -1.0) -> None:
        self._left = frames
        self._told = {cv2.CAP_PROP_FPS: rate, cv2.CAP_PROP_FRAME_COUNT: promised}
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, key: int, value: float) -> bool:
        return True

    def get(self, key: int) -> float:
        return self._told[key]

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return (True, np.full((4, 6, 3), 9, np.uint8)) if self._left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("ending", [*CODECS, ".MP4"])
def test_frames_come_back_as_they_were_written(tmp_path: Path, ending: str) -> None:
    frames = bright_right(5)
    path = tmp_path / f"new{ending}"
    with new_video(path, 12.5) as writer:
        for frame in frames:
            assert not path.exists()
            writer.write(frame)
    assert writer.written == 5
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with open_video(path) as source:
        assert source.rate == pytest.approx(12.5, abs=0.01)
        found = list(source)
        assert source.frames == source.read == 5
        assert source.shortfall() is None
    for frame, again in zip(frames, found, strict=True):
        assert again.shape == frame.shape
        # Lossy, but the white half is where it was.
        assert np.abs(again.astype(int) - frame).mean() < 12


def test_channels_are_red_green_blue(tmp_path: Path) -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    frame[..., 0] = 200
    with new_video(tmp_path / "red.avi", 10) as writer:
        writer.write(frame)
    with open_video(tmp_path / "red.avi") as source:
        (found,) = source
    assert found[..., 0].mean() > 180 and found[..., 2].mean() < 20


def test_phone_videos_are_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "phone.mp4", bright_right(3))
    turn_video(path)
    with open_video(path) as source:
        frame = next(iter(source))
    assert frame.shape == (64, 48, 3)
    # Turned clockwise, what was to the right is below.
    assert frame[:20].mean() < 30 and frame[44:].mean() > 225


def test_what_raises_leaves_nothing_and_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "new.mp4"
    with pytest.raises(KeyboardInterrupt), new_video(path, 10) as writer:
        writer.write(bright_right(1)[0])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no frame to write"), new_video(path, 10):
        pass
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"new\.mp4 exists"):
        require_new_video(path)
    for name in ("new.gif", "new"):
        with pytest.raises(InputError, match=r"must end in \.mp4, .*not in"):
            require_new_video(tmp_path / name)


def test_a_video_that_was_not_written_whole_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, of which OpenCV's writer says nothing."""
    path = tmp_path / "new.mp4"
    with pytest.raises(InputError, match="free space"), new_video(path, 10) as writer:
        writer.write(bright_right(1)[0])
        close = writer.close

        def cut() -> None:
            close()
            (temporary,) = tmp_path.iterdir()
            temporary.write_bytes(temporary.read_bytes()[:100])
            monkeypatch.setattr(writer, "close", close)

        monkeypatch.setattr(writer, "close", cut)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", CODECS)
def test_a_video_that_the_disk_takes_in_part_is_refused(tmp_path: Path, ending: str) -> None:
    """As on a disk that fills: the kernel refuses what goes beyond a size."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with (
            pytest.raises(InputError, match="of its 30 frames arrived: free space"),
            new_video(tmp_path / f"new{ending}", 10) as writer,
        ):
            for frame in noise:
                writer.write(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir())


def test_odd_sizes_lose_a_line_and_changing_ones_are_a_defect(tmp_path: Path) -> None:
    frame = np.zeros((33, 47, 3), np.uint8)
    with new_video(tmp_path / "odd.mp4", 10) as writer:
        writer.write(frame)
        with pytest.raises(ValueError, match="is 20x20"):
            writer.write(frame[:20, :20])
    frames, _ = read_video(tmp_path / "odd.mp4")
    assert [found.shape for found in frames] == [(32, 46, 3)]


def test_files_that_are_no_video_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"there is no video .*gone\.mp4"),
        open_video(tmp_path / "gone.mp4"),
    ):
        pass
    (tmp_path / "text.mp4").write_bytes(b"no video at all")
    with (
        pytest.raises(InputError, match=r"text\.mp4 cannot be read"),
        open_video(tmp_path / "text.mp4"),
    ):
        pass


@pytest.mark.parametrize(
    ("read", "promised", "told"),
    [(100, 100, False), (98, 100, False), (97, 100, True), (990, 1000, False), (989, 1000, True)],
)
def test_missing_frames_are_told_beyond_rounding(read: int, promised: int, told: bool) -> None:
    source = FrameSource(Capture(read, promised=promised), "the video x.mp4")
    assert len(list(source)) == read
    assert (source.shortfall() is not None) == told
    if told:
        assert f"{read} of its {promised} frames" in str(source.shortfall())


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1000.0, float("inf")])
def test_impossible_rates_and_counts_are_not_told(rate: float) -> None:
    source = FrameSource(Capture(1, rate, promised=-9e18), "x")
    assert source.rate is None and source.frames is None
    list(source)
    assert source.shortfall() is None


def test_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture(2)
    monkeypatch.setattr(video.cv2, "VideoCapture", lambda number: capture)
    with open_camera(3) as source:
        assert source.name == "camera 3" and source.frames is None and source.rate == 25
        assert len(list(source)) == 2
    assert capture.released

    class None_(Capture):
        def isOpened(self) -> bool:  # noqa: N802
            return False

    monkeypatch.setattr(video.cv2, "VideoCapture", lambda number: None_(0))
    with pytest.raises(InputError, match="no camera 3 to read"), open_camera(3):
        pass


def test_the_clock_repeats_frames_for_as_long_as_parsing_takes() -> None:
    times = iter([10.0, 10.5, 10.52, 11.0])
    clock = SteadyClock(10, lambda: next(times))
    # After 1 s 11 frames have begun, a tenth of a second each; a fast one counts once.
    assert [clock.repeats() for _ in range(4)] == [1, 5, 1, 4]


def test_windows_are_told_from_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(gui: str) -> Any:
        return lambda: f"  Media I/O:\n  GUI:                           {gui}\n"

    monkeypatch.setattr(video.cv2, "getBuildInformation", built("NONE"))
    assert not video.has_window()
    monkeypatch.setattr(video.cv2, "getBuildInformation", built("QT5"))
    assert video.has_window()
