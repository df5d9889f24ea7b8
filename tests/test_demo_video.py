"""The demo's command line on videos, cameras, truths and legends, with a fake model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from parsing_fakes import half_bright, load_script, write_tiny_model
from PIL import Image
from video_helpers import bright_right, read_video, turn_video, video_parser, write_video

from schnet.errors import InputError
from schnet.inference import Parser
from schnet.video import FrameSource
from schnet.video_parsing import frame_rate, parse_camera, parse_frames

# Of the bright half: green over white at 0.6.
PART = [(109, 222, 106)]


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with a fake model, whatever the weights."""
    script = load_script("projects/SCHNet/demo.py")
    monkeypatch.setattr(script.Parser, "load", lambda weights, **options: video_parser())
    return script


def _run(demo: ModuleType, *options: object) -> None:
    demo.main(["--weights", "x", *map(str, options)])


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
@pytest.mark.parametrize("smooth", [(), ("--smooth", "0.5")])
def test_a_video_is_parsed_at_its_rate_and_size(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, smooth: tuple
) -> None:
    source = write_video(tmp_path / "in.mp4", bright_right(6), rate=12.5)
    _run(demo, "--video", source, "--output", tmp_path / f"out{ending}", *smooth)
    frames, rate = read_video(tmp_path / f"out{ending}")
    assert rate == pytest.approx(12.5, abs=0.01)
    assert [frame.shape for frame in frames] == [(48, 64, 3)] * 6
    for frame in frames:
        assert np.abs(frame[10:40, 50:60].astype(int) - PART).mean() < 12
        assert frame[10:40, 2:12].mean() < 20
    assert "parsed 6 frames into" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.mp4", f"out{ending}"]


def test_smoothing_follows_late(demo: ModuleType, tmp_path: Path) -> None:
    """Two grey frames that the model reads by turns: alone they flicker, on average they do not."""
    dark, light = (np.full((48, 64, 3), value, np.uint8) for value in (118, 142))
    source = write_video(tmp_path / "in.avi", [light, light, light, dark, light, dark])
    _run(demo, "--video", source, "--output", tmp_path / "alone.avi")
    _run(demo, "--video", source, "--output", tmp_path / "mean.avi", "--smooth", 0.7)
    alone, mean = (
        [bool(np.ptp(frame.mean(axis=(0, 1))) > 20) for frame in read_video(tmp_path / name)[0]]
        for name in ("alone.avi", "mean.avi")
    )
    assert alone == [True, True, True, False, True, False]
    assert mean == [True] * 5 + [mean[5]]


def test_phone_videos_come_out_upright(demo: ModuleType, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", bright_right(2))
    turn_video(source)
    _run(demo, "--video", source, "--output", tmp_path / "out.mp4", "--legend")
    frames, _ = read_video(tmp_path / "out.mp4")
    assert frames[0].shape == (64, 48, 3)
    assert np.abs(frames[0][50:60, 10:40].astype(int) - PART).mean() < 12


def test_a_cut_off_video_is_told_and_what_was_read_is_kept(
    demo: ModuleType, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    source = write_video(tmp_path / "in.avi", list(noise))
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    output = tmp_path / "out.mp4"
    with pytest.raises(InputError, match=r"in\.avi is damaged or cut off: \d+ of its 40 frames"):
        _run(demo, "--video", source, "--output", output)
    frames, _ = read_video(output)
    assert 10 < len(frames) < 30
    # Those that were asked for are there: nothing is missing.
    _run(demo, "--video", source, "--output", tmp_path / "some.mp4", "--frames", 5)
    assert len(read_video(tmp_path / "some.mp4")[0]) == 5


def test_an_mp4_without_its_end_is_refused(demo: ModuleType, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.mp4", bright_right(6))
    source.write_bytes(source.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"in\.mp4 cannot be read"):
        _run(demo, "--video", source, "--output", tmp_path / "out.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]


def test_an_interrupted_video_leaves_no_file(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "in.mp4", bright_right(6))
    frames = FrameSource.__iter__

    def interrupted(self: FrameSource) -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames(self)):
            if number == 3:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(FrameSource, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(demo, "--video", source, "--output", tmp_path / "out.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]


def test_a_camera_is_recorded_until_it_is_interrupted(
    demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Camera:
        name, rate, frames, read = "camera 0", 10.0, None, 0

        def __iter__(self) -> Iterator[np.ndarray]:
            yield from bright_right(3)
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "open_camera", lambda number: contextlib.nullcontext(Camera()))
    _run(demo, "--webcam", "--output", tmp_path / "out.mp4", "--frames", 2)
    assert len(read_video(tmp_path / "out.mp4")[0]) >= 2

    class Clock:
        def repeats(self) -> int:
            return 4

    count = parse_camera(
        video_parser(),
        Camera(),
        tmp_path / "more.mp4",
        rate=10,
        clock=Clock(),  # type: ignore[arg-type]
    )
    assert count == 3
    frames, rate = read_video(tmp_path / "more.mp4")
    assert (len(frames), rate) == (12, 10)


def test_a_rate_is_told_or_asked_for(tmp_path: Path) -> None:
    class Source:
        name, rate = "the video x", None

    with pytest.raises(InputError, match="the video x does not tell .*--rate"):
        frame_rate(Source(), None)  # type: ignore[arg-type]
    assert frame_rate(Source(), 30) == 30  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--rate is 0"):
        frame_rate(Source(), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--video", "in.mp4", "--output", "o.gif"), r"must end in \.mp4"),
        (("--video", "in.mp4", "--output", "in.mp4"), r"in\.mp4 exists"),
        (("--video", "in.mp4", "--output", "o.mp4", "--compare", "x"), "--compare does not go"),
        (("--input", "a.jpg", "--output", "o", "--smooth", "0.5"), "--smooth does not go"),
        (("--video", "in.mp4", "--output", "o.mp4", "--window"), "--window does not go"),
        (("--webcam", "--window"), "headless build"),
        (("--webcam",), "--output is missing"),
        (("--video", "in.mp4", "--output", "o.mp4", "--frames", "0"), "--frames is 0"),
        (("--video", "in.mp4", "--output", "o.mp4", "--smooth", "1"), "--smooth is 1"),
    ],
)
def test_options_that_make_no_sense_are_told(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "has_window", lambda: False)
    before = write_video(tmp_path / "in.mp4", bright_right(2)).read_bytes()
    with pytest.raises(InputError, match=told):
        _run(demo, *options)
    assert [file.name for file in tmp_path.iterdir()] == ["in.mp4"]
    assert Path("in.mp4").read_bytes() == before


def test_weights_are_asked_for(demo: ModuleType, tmp_path: Path) -> None:
    Image.fromarray(half_bright(20, 30)).save(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="--weights is missing"):
        demo.main(["--input", str(tmp_path / "a.jpg"), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_photos_are_compared_with_the_truth_beside_them(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Truth and photos in one folder: the truth is not parsed, and a missing one is said."""
    for name in ("a", "b", "c"):
        Image.fromarray(half_bright(40, 60)).save(tmp_path / f"{name}.jpg")
    truth = (half_bright(40, 60)[..., 0] > 0).astype(np.uint8)
    Image.fromarray(truth).save(tmp_path / "a.png")
    Image.fromarray(truth + 5).save(tmp_path / "c.png")
    output = tmp_path / "out"
    with pytest.raises(InputError, match=r"the truth of 1 of 3 photos .*c\.jpg"):
        _run(demo, "--input", tmp_path, "--output", output, "--compare", tmp_path, "--legend")
    names = {file.name for file in output.iterdir()}
    assert names == {
        ".schnet-outputs",
        *(f"{name}{end}.png" for name in "abc" for end in ("", "_overlay", "_compare")),
    }
    with Image.open(output / "a_overlay.png") as overlay:
        assert overlay.size[0] > 640  # the legend is beside it
    told = capsys.readouterr().out
    assert "compared 1 photo with the truth" in told
    assert f"no truth in {tmp_path} for: {tmp_path / 'b.jpg'}" in told
    # A second run finds the same photos, and none of its own results.
    (tmp_path / "c.png").unlink()
    _run(demo, "--input", tmp_path, "--output", output, "--compare", tmp_path)
    assert "parsed 3 of 3" in capsys.readouterr().out


def test_a_real_models_video_is_parsed_in_batches_and_smoothly(tmp_path: Path) -> None:
    config, weights = write_tiny_model(tmp_path)
    parser = Parser.load(weights, device="cpu", config_files=[config])
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    alone = [parser(frame).labels for frame in noise]
    together = [parsing.labels for parsing in parse_frames(parser, noise, None, 2)]
    assert all(map(np.array_equal, alone, together))
    smoothed = list(parse_frames(parser, iter(noise), 0.5, None))
    assert [parsing.labels.shape for parsing in smoothed] == [(48, 64)] * 3
