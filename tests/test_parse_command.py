from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from batch_cases import (
    FAKE_ENGINE,
    command,
    finish,
    lines_of,
    require_whole,
    start,
    write_photos,
)
from PIL import Image

from schnet.batch.shard import shard_of
from schnet.errors import InputError


def test_parses_without_torch_goes_on_and_reports(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 3)
    bad = tmp_path / "in" / "bad.jpg"
    bad.write_bytes(b"no image")
    line = [*command(tmp_path / "out", tmp_path / "in"), "--overlays", "--masks"]
    code, out, err = finish(start(line))
    assert code == 1, err
    assert "parsed 3 photos" in out and "1 could not be" in out and "bad.jpg" in err
    lines = lines_of(tmp_path / "out")
    assert "cannot be read" in lines["bad.jpg"]["error"]
    assert (lines["p001.png"]["height"], lines["p001.png"]["width"]) == (24, 32)
    assert set(lines["p001.png"]["outputs"]["masks"]) == {"background", "bright"}
    with Image.open(tmp_path / "out" / "p001_masks" / "01-bright.png") as mask:
        assert mask.getcolors() == [(24 * 30, 0), (24 * 2, 255)]
    with Image.open(tmp_path / "out" / "p001_overlay.jpg") as overlay:
        assert overlay.size == (32, 24)
    # Again: only the bad one is tried; mended, it is parsed.
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.png")}
    bad.unlink()
    Image.new("RGB", (5, 4)).save(bad)
    code, out, err = finish(start(line))
    assert code == 0, err
    assert "parsed 1 photos" in out and "3 were finished before" in out
    assert kept == {p: p.stat().st_mtime_ns for p in kept}
    assert "error" not in lines_of(tmp_path / "out")["bad.jpg"]


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 40)
    output = tmp_path / "out"
    line = command(output, tmp_path / "in")
    for wait in (0.0, 0.17):
        process = start(line, {"FAKE_SECONDS": "0.03"})
        while process.poll() is None and not list(output.glob("*.png")):
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    code, out, err = finish(start(line))
    assert code == 0, err
    assert " were finished before" in out
    require_whole(output, photos)
    assert {p.name for p in output.iterdir() if p.suffix != ".png"} == {
        *("results.jsonl", "run.json", ".schnet")
    }
    assert not list((output / ".schnet").glob("unfinished-*"))


def test_processes_share_the_list_and_a_restart_repeats_nothing(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 12)
    (tmp_path / "list.txt").write_text("".join(f"{photo}\n" for photo in photos))
    output = tmp_path / "out"
    line = [*command(output), "--list", str(tmp_path / "list.txt")]
    ranks = [
        start(line, {"RANK": str(rank), "WORLD_SIZE": "2", "FAKE_SECONDS": "0.05"})
        for rank in range(2)
    ]
    ranks[1].kill()
    finish(ranks[1])
    code, out, err = finish(ranks[0])
    assert code == 0 and "rank 0 of 2: parsed 6 photos" in out, err
    ranks = [start(line, {"RANK": str(rank), "WORLD_SIZE": "3"}) for rank in range(3)]
    told = [finish(process) for process in ranks]
    assert [code for code, _, _ in told] == [0, 0, 0], told
    assert sum(int(out.split("parsed ")[1].split()[0]) for _, out, _ in told) == 6
    require_whole(output, photos)
    assert not list((output / ".schnet").glob("results-*"))


def test_torchrun_parses_each_once_though_one_fails_early(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 9)
    bad = photos[0].with_name("bad.png")
    bad.write_bytes(b"no image")
    paths = [bad, *photos]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    output = tmp_path / "out"
    # torch is there under torchrun, whatever the engine is.
    script = FAKE_ENGINE.replace("assert not heavy, heavy", "pass")
    (tmp_path / "command.py").write_text(script)
    told = command(output)[3:]
    line = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
        "--standalone",
        *(str(tmp_path / "command.py"), *told, "--list", str(tmp_path / "list.txt")),
    ]
    # The process with the bad photo, the first, is through long before the other.
    code, out, err = finish(start(line, {"FAKE_SECONDS": "0.2", "OMP_NUM_THREADS": "1"}))
    assert code == 1, err
    assert "rank 0 of 2: parsed 4 photos" in out and "1 could not be" in out
    assert "rank 1 of 2: parsed 5 photos" in out
    lines = lines_of(output)
    assert set(lines) == {path.name for path in paths} and "error" in lines["bad.png"]
    assert len(list(output.glob("*.png"))) == len(photos)


def test_two_at_once_are_refused_and_interruption_is_clean(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 30)
    output = tmp_path / "out"
    line = command(output, tmp_path / "in")
    first = start(line, {"FAKE_SECONDS": "0.1"})
    while first.poll() is None and not list(output.glob("*.png")):
        time.sleep(0.01)
    code, _, err = finish(start(line))
    assert code == 2 and "another `schnet parse`" in err
    first.send_signal(signal.SIGINT)
    code, _, err = finish(first)
    assert code == 130 and "Traceback" not in err
    assert finish(start(line))[0] == 0
    require_whole(output, photos)


def test_users_files_stay_and_another_model_is_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 2)
    output = tmp_path / "out"
    output.mkdir()
    (output / "p001.png").write_bytes(b"precious")
    code, _, err = finish(start(command(output, tmp_path / "in")))
    assert code == 2 and "p001.png exists and was not written" in err
    assert (output / "p001.png").read_bytes() == b"precious"
    (output / "p001.png").unlink()
    assert finish(start(command(output, tmp_path / "in")))[0] == 0
    (tmp_path / "model.onnx").write_bytes(b"another model")
    code, _, err = finish(start(command(output, tmp_path / "in")))
    assert code == 2 and "the weights changed" in err and "--overwrite" in err
    code, out, _ = finish(start([*command(output, tmp_path / "in"), "--overwrite", "--quiet"]))
    assert code == 0 and out == ""
    require_whole(output, photos)


def test_a_defect_ends_the_run_and_names_the_photo(tmp_path: Path) -> None:
    write_photos(tmp_path / "in", 5)
    line = command(tmp_path / "out", tmp_path / "in")
    code, _, err = finish(start(line, {"FAKE_ERROR": "1"}))
    # Not 1, which says that the rest is parsed.
    assert code == 70 and "p000.png failed: ValueError: a defect" in err


def test_a_photo_that_changed_is_parsed_again_and_long_names_are_kept_apart(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 2)
    long = [photos[0].with_name("x" * 249 + f"{n}.png") for n in range(2)]
    for photo, target in zip(photos, long, strict=True):
        photo.rename(target)
    line = command(tmp_path / "out", tmp_path / "in")
    assert finish(start(line))[0] == 0
    require_whole(tmp_path / "out", long)
    # Of the same size and name, but of another time.
    long[1].write_bytes(long[0].read_bytes())
    code, out, err = finish(start(line))
    assert code == 0 and "parsed 1 photos" in out and "1 were finished before" in out, err
    require_whole(tmp_path / "out", long)


def test_an_interrupted_overwrite_goes_on_without_the_option(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 12)
    output = tmp_path / "out"
    line = command(output, tmp_path / "in")
    assert finish(start(line))[0] == 0
    earlier = {photo.name: lines_of(output)[photo.name]["run"] for photo in photos}
    (tmp_path / "model.onnx").write_bytes(b"another model")
    process = start([*line, "--overwrite"], {"FAKE_SECONDS": "0.1"})
    results = output / "results.jsonl"
    size = results.stat().st_size
    while process.poll() is None and results.stat().st_size == size:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    code, out, err = finish(start(line))
    assert code == 0, err
    assert 0 < int(out.split("parsed ")[1].split()[0]) < 12
    require_whole(output, photos)
    assert not set(earlier.values()) & {line["run"] for line in lines_of(output).values()}


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 12)
    output = tmp_path / "out"
    line = command(output, tmp_path / "in")
    code, _, err = finish(start(line, {"FAKE_ROOM": "5"}))
    assert code == 2 and "Traceback" not in err, err
    assert "png cannot be read or written (No space left on device): free space" in err
    require_whole(output, photos[:5])
    code, out, err = finish(start(line))
    assert code == 0 and "5 were finished before" in out, err
    require_whole(output, photos)


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"RANK": "0"}, "set both"), ({"RANK": "2", "WORLD_SIZE": "2"}, "below WORLD_SIZE")],
)
def test_wrong_ranks(tmp_path: Path, environment: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        shard_of(environment)
    assert shard_of({}).owns(7)
