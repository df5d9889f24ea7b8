"""`schnet parse`: what a line of a list or an argument may be, and which are no photos."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from batch_cases import command, finish, lines_of, start, write_photos

LONG = "x" * 296 + ".jpg"


def impossible_paths(folder: Path) -> list[str]:
    """Paths that the system refuses to look at."""
    loop = folder / "loop.jpg"
    loop.symlink_to(loop)
    return [str(folder / LONG), str(loop), f"{folder}/nul\0.jpg", str(folder / "p000.png" / "a")]


def test_impossible_paths_are_failed_photos_and_the_rest_is_parsed(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 2)
    bad = impossible_paths(tmp_path / "in")
    paths = tmp_path / "list.txt"
    paths.write_text("".join(f"{path}\n" for path in [bad[0], photos[0], *bad[1:], photos[1]]))
    # As arguments, too; a name cannot have a NUL there.
    arguments = [path for path in bad if "\0" not in path]
    line = [*command(tmp_path / "out", *arguments), "--list", str(paths)]
    for parsed in (2, 0):
        code, out, err = finish(start(line))
        assert code == 1 and "Traceback" not in err, err
        assert f"parsed {parsed} photos" in out and f"{len(bad)} could not be" in out
        lines = lines_of(tmp_path / "out")
        assert {line["input"] for line in lines.values() if "error" in line} == set(bad)
        assert all("error" not in lines[photo.name] for photo in photos)
    assert "File name too long" in lines[LONG]["error"]


def test_a_list_with_a_byte_order_mark_keeps_its_first_path(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 2)
    paths = tmp_path / "list.txt"
    paths.write_bytes(b"\xef\xbb\xbf" + "".join(f"{photo}\n" for photo in photos).encode())
    code, out, err = finish(start([*command(tmp_path / "out"), "--list", str(paths)]))
    assert code == 0 and "parsed 2 photos" in out, err
    code, out, err = piped(command(tmp_path / "out", "-"), paths.read_bytes(), "utf-8")
    assert code == 0 and "2 were finished before" in out, err


def piped(line: list[str], told: bytes, encoding: str) -> tuple[int, str, str]:
    """Run a command with bytes on its standard input, read in an encoding."""
    process = start(line, {"PYTHONIOENCODING": encoding}, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.buffer.write(told)
    return finish(process)


@pytest.mark.parametrize("encoding", ["utf-8:strict", "utf-8:surrogateescape"])
def test_a_name_that_is_no_unicode_comes_through_a_pipe(tmp_path: Path, encoding: str) -> None:
    photos = write_photos(tmp_path / "in", 2)
    odd = os.fsencode(photos[0].parent) + b"/caf\xe9.png"
    try:
        os.rename(photos[0], odd)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    told = odd + b"\n" + os.fsencode(photos[1]) + b"\n"
    code, out, err = piped(command(tmp_path / "out", "-"), told, encoding)
    assert code == 0 and "parsed 2 photos" in out, err
    assert os.path.exists(os.fsencode(tmp_path / "out") + b"/caf\xe9.png")


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("file/sub", "file is a file"),
        ("file", "file is a file"),
        ("loop/sub", "symbolic links"),
        (LONG, "File name too long"),
        ("nowhere/sub", "nowhere is a link to nothing"),
    ],
)
def test_an_output_that_cannot_be_made_is_one_sentence_before_the_model(
    tmp_path: Path, inside: str, told: str
) -> None:
    write_photos(tmp_path / "in", 1)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    line = command(tmp_path / "out", tmp_path / "in")
    line[line.index(str(tmp_path / "out"))] = str(tmp_path / inside)
    line[line.index("--weights") + 1] = "missing.onnx"  # would be told, were it looked at
    code, _, err = finish(start(line))
    assert code == 2 and err.count("\n") == 1, err
    assert told in err and str(tmp_path / inside) in err and "give another folder" in err


def test_named_results_of_earlier_runs_are_left_out(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    output = tmp_path / "photos"

    def expanded() -> list[str]:
        """As a shell expands `*g`: the results of an earlier run, too."""
        return command(output, *sorted(p for p in output.iterdir() if p.name.endswith("g")))

    code, out, err = finish(start([*expanded(), "--overlays"]))
    assert code == 0 and "parsed 3 photos" in out and "left out" not in err, err
    photos[0].write_bytes(photos[1].read_bytes())
    code, out, err = finish(start([*expanded(), "--overlays"]))
    assert code == 0 and "parsed 1 photos" in out and "2 were finished before" in out, err
    assert f"6 results of earlier runs in {output} are left out" in err
    code, out, err = finish(start([*expanded(), "--overlays", "--quiet"]))
    assert (code, out, err) == (0, "", "")
    assert set(lines_of(output)) == {photo.name for photo in photos}
    planned = (output / ".schnet" / "names.jsonl").read_text().splitlines()
    assert {json.loads(line)["input"] for line in planned} == set(map(str, photos))


def test_photos_in_linked_folders_are_parsed_once(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "disk", 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one").symlink_to(tmp_path / "disk")
    (tmp_path / "in" / "two").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "in")
    code, out, err = finish(start(command(tmp_path / "out", tmp_path / "in")))
    assert code == 0 and "parsed 2 photos" in out, err
    assert set(lines_of(tmp_path / "out")) == {photo.name for photo in photos}
