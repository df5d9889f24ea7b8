"""A video or a camera parsed frame by frame, and the parts drawn over it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from schnet.drawing import FrameLegend
from schnet.errors import InputError
from schnet.inference import Parser
from schnet.parsing import Parsing
from schnet.smoothing import SmoothedParser
from schnet.video import FrameSource, SteadyClock, new_video, show
from schnet.visualization import ByteArray

Write = Callable[[ByteArray], bool]
"""Takes a drawn frame; whether to go on."""


def frame_rate(source: FrameSource, wanted: float | None) -> float:
    """Frames a second of the result: those of the source, or those asked for.

    Raises:
        InputError: the source does not tell its own, and none is asked for; or it is not positive.
    """
    rate = wanted if wanted is not None else source.rate
    if rate is None:
        raise InputError(
            f"{source.name} does not tell how many frames a second it has: give --rate"
        )
    if not rate > 0:
        raise InputError(f"--rate is {rate:g}: give frames a second, above 0")
    return rate


def parse_frames(
    parser: Parser, frames: Iterable[ByteArray], smooth: float | None, batch_size: int | None
) -> Iterator[Parsing]:
    """Parse frames in order; no more than a batch of them is in memory.

    Args:
        parser: the model.
        frames: each (H, W, 3) uint8 RGB.
        smooth: factor of `SmoothedParser`, which takes frames one by one; None parses each frame
            for itself.
        batch_size: frames that are run together; None takes the parser's.

    Raises:
        InputError: the factor is out of its range.
    """
    if smooth is None:
        return parser.stream(frames, batch_size=batch_size)
    return map(SmoothedParser(parser, smooth), frames)


def draw_frame(parsing: Parsing, legend: FrameLegend | None) -> ByteArray:
    """Lay the parts' colours over a frame, and the legend in its corner.

    Detectron2's visualizer draws a photo in the time that a GPU parses many frames in, and its
    names jump from frame to frame; so a frame has colours alone, and the names in the legend.
    """
    drawn = parsing.overlay()
    return drawn if legend is None else legend.draw(drawn, parsing)


def parse_video(
    parser: Parser,
    source: FrameSource,
    output: Path,
    *,
    rate: float,
    smooth: float | None = None,
    legend: bool = False,
    limit: int | None = None,
) -> int:
    """Parse a video file into another, of the same size.

    Args:
        parser: the model.
        source: the opened file.
        output: see `schnet.video.new_video`; sound is not copied.
        rate: frames a second of the result.
        smooth: see `parse_frames`.
        legend: draw one.
        limit: frames to parse at most; None parses all.

    Returns:
        Frames that were parsed.

    Raises:
        InputError: no frame can be read or the result not be written, and there is no result; or
            the file is damaged, and the result has the frames that could be read.
    """
    key = FrameLegend() if legend else None
    with new_video(output, rate) as video, _progress(source, limit) as bar:
        for parsing in parse_frames(parser, islice(source, limit), smooth, None):
            video.write(draw_frame(parsing, key))
            bar.update()
        if source.read == 0:
            raise InputError(f"{source.name} has no frame that can be read: get the whole file")
    shortfall = None if source.read == limit else source.shortfall()
    if shortfall is not None:
        raise InputError(shortfall)
    return video.written


def parse_camera(
    parser: Parser,
    source: FrameSource,
    output: Path | None,
    *,
    rate: float,
    window: bool = False,
    smooth: float | None = None,
    legend: bool = False,
    limit: int | None = None,
    clock: SteadyClock | None = None,
) -> int:
    """Parse what a camera sees until Ctrl-C, the window's Esc or q, or a number of frames.

    Args:
        parser: the model.
        source: the opened camera.
        output: as for `parse_video`; it plays in real time, since a frame is repeated for as long
            as the next one took. None writes nothing.
        rate: frames a second of the result.
        window: show the frames; `schnet.video.has_window` says whether that can be.
        smooth: see `parse_frames`.
        legend: draw one.
        limit: frames to parse at most; None goes on.
        clock: tells how often a frame is repeated; None takes the time of day.

    Returns:
        Frames that were parsed.

    Raises:
        InputError: the camera gives no frame, or the result cannot be written.
    """
    key = FrameLegend() if legend else None
    clock = clock or SteadyClock(rate)
    parsed = 0
    with contextlib.ExitStack() as stack:
        video = None if output is None else stack.enter_context(new_video(output, rate))
        bar = stack.enter_context(_progress(source, limit))
        # The way to end a recording, which is kept.
        with contextlib.suppress(KeyboardInterrupt):
            for parsing in parse_frames(parser, islice(source, limit), smooth, 1):
                drawn = draw_frame(parsing, key)
                parsed += 1
                bar.update()
                if video is not None:
                    for _ in range(clock.repeats()):
                        video.write(drawn)
                if window and not show(source.name, drawn):
                    break
        if parsed == 0:
            raise InputError(f"{source.name} gave no frame: connect it again")
    return parsed


def _progress(source: FrameSource, limit: int | None) -> tqdm:
    known = [number for number in (source.frames, limit) if number is not None]
    return tqdm(desc="parsing", unit="frame", total=min(known, default=None))
