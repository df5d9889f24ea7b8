from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from instance_helpers import person_map, save_png, save_text
from PIL import Image

from schnet.errors import InputError
from schnet.evaluation.instance_files import (
    read_ids,
    read_predicted_labels,
    read_predicted_parts,
    read_predicted_persons,
    read_true_parts,
    read_true_persons,
)
from schnet.evaluation.instance_writing import (
    write_predicted_parts,
    write_predicted_persons,
    write_true_parts,
)

IDS = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)


def test_palette_png_is_read_as_indices(tmp_path: Path) -> None:
    image = Image.fromarray(IDS)
    # Colours whose grey values are not their indices.
    image.putpalette([255, 0, 0, 9, 9, 9, 0, 255, 0])
    image.save(tmp_path / "ids.png")
    assert Image.open(tmp_path / "ids.png").mode == "P"
    assert read_ids(tmp_path / "ids.png").tolist() == IDS.tolist()


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    wide = IDS.astype(np.uint16) * 300
    assert read_ids(save_png(tmp_path / "ids.png", wide)).tolist() == wide.tolist()


def test_one_bit_is_read(tmp_path: Path) -> None:
    Image.fromarray(IDS > 0).convert("1").save(tmp_path / "ids.png")
    ids = read_ids(tmp_path / "ids.png")
    assert ids.dtype == np.uint8 and ids.tolist() == (IDS > 0).tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_in_several_channels_is_read(tmp_path: Path, mode: str) -> None:
    Image.fromarray(IDS).convert(mode).save(tmp_path / "ids.png")
    assert read_ids(tmp_path / "ids.png").tolist() == IDS.tolist()


def test_colors_are_refused(tmp_path: Path) -> None:
    colors = np.stack([IDS, IDS, IDS * 0], axis=2)
    with pytest.raises(InputError, match="ids.png is a colour picture.* not Instances and Humans"):
        read_ids(save_png(tmp_path / "ids.png", colors))


@pytest.mark.parametrize("share", [0, 0.01, 0.5])
def test_damaged_png_is_named(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    path = save_png(tmp_path / "ids.png", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=f"{re.escape(str(path))} cannot be read"):
        read_ids(path)


def test_true_parts_take_the_class_of_their_line(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    # Ids need not be numbered by class; CIHP's lists end without a blank line or with some.
    parts, missing = read_true_parts(png, save_text(tmp_path / "a.txt", "2 7 1\n1 5 1\n\n"), 20)
    assert parts.ids.tolist() == [1, 2] and parts.classes.tolist() == [5, 7] and missing == 0


def test_true_parts_without_a_list_are_told_by_their_ids(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", np.array([[0, 22, 57]], np.uint8))
    parts, _ = read_true_parts(png, None, 20)
    assert parts.ids.tolist() == [22, 57] and parts.classes.tolist() == [2, 17]
    save_png(png, np.array([[0, 40]], np.uint8))
    with pytest.raises(InputError, match=r"a.png holds the id 40, which is not class \+ 20 x"):
        read_true_parts(png, None, 20)


def test_listed_true_ids_without_pixels_are_no_instances(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    parts, missing = read_true_parts(png, save_text(tmp_path / "a.txt", "1 1\n2 2\n257 17\n"), 20)
    assert parts.ids.tolist() == [1, 2] and missing == 1


TRUE_LISTS = {
    "1 1 1\n": "a.png holds the id 2, which .*a.txt does not list",
    "1 1 1\n2 2 2 2\n": "line 2 of .*a.txt is '2 2 2 2', but it must be `id class person`",
    "1 1 1\n\n2 2 1\n": "line 2 of .*a.txt is '', but it must be",
    "one 1 1\n2 2 1\n": "line 1 of .*a.txt is 'one 1 1'",
    "1 20 1\n2 2 1\n": r"line 1 of .*a.txt has the class '20', but parts have a class 1\.\.19",
    "1 0 1\n2 2 1\n": "line 1 of .*a.txt has the class '0'",
    "1 1 1\n2 2 1\n1 1 1\n": "line 3 of .*a.txt lists the id 1 a second time",
    "0 1 1\n1 1 1\n2 2 1\n": "line 1 of .*a.txt lists the id 0, which is background",
}


def test_predicted_parts_take_the_line_of_their_id(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    parts = read_predicted_parts(png, save_text(tmp_path / "a.txt", "7 0.5\r\n5 1e-3\r\n"), 20)
    assert parts.classes.tolist() == [7, 5] and parts.scores.tolist() == [0.5, 0.001]


def test_nothing_predicted_is_an_empty_list(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", IDS * 0)
    listed = save_text(tmp_path / "a.txt", "")
    assert read_predicted_parts(png, listed, 20).ids.size == 0
    assert read_predicted_persons(png, listed)[1].size == 0


PREDICTED_LISTS = {
    "1 0.5\n": "a.png holds the id 2, but .*a.txt has 1 lines: number the instances 1..n",
    "1 0.5\n2 0.5\n3 0.5\n": "line 3 of .*a.txt stands for the id 3, which .*a.png does not hold",
    "1 0.5\n2\n": "line 2 of .*a.txt is '2', but it must be `class score`",
    "1 1 1\n2 2 1\n": "line 1 of .*a.txt is '1 1 1', but it must be `class score`",
    "1 0.5\n2.0 0.5\n": "line 2 of .*a.txt has the class '2.0'",
    "1 0.5\n20 0.5\n": "line 2 of .*a.txt has the class '20'",
    "1 0.5\n2 high\n": "line 2 of .*a.txt holds 'high' where a number is due",
    "1 nan\n2 0.5\n": "line 1 of .*a.txt holds 'nan'",
    "1 0.5\n2 inf\n": "line 2 of .*a.txt holds 'inf'",
}


def test_lists_that_are_no_text_are_refused(tmp_path: Path) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe1 1")
    with pytest.raises(InputError, match="a.txt is no UTF-8 text"):
        read_predicted_parts(png, tmp_path / "a.txt", 20)


@pytest.mark.parametrize("text", ["0.5\n.25\n", "0.5 1 2 3 4\n.25 5 6 7 8\n", "1, 0.5\n1, .25\n"])
def test_scores_of_persons_in_all_public_forms(tmp_path: Path, text: str) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    pixels, ids, scores = read_predicted_persons(png, save_text(tmp_path / "a.txt", text))
    assert pixels.tolist() == IDS.tolist()
    assert ids.tolist() == [1, 2] and scores.tolist() == [0.5, 0.25]


PERSON_LISTS = {
    "0.5\n0.5 1 2\n": "line 2 of .*a.txt is '0.5 1 2', but it must be `score`, `score y1",
    "0.5\n2, 0.5\n": "line 2 of .*a.txt is '2 0.5', but it must be",
    "0.5\n\n0.5\n": "line 2 of .*a.txt is '', but it must be",
    "0.5\nsure\n": "line 2 of .*a.txt holds 'sure'",
    "0.5\n": "a.png holds the id 2, but .*a.txt has 1 lines",
    "0.5\n0.5\n0.5\n": "line 3 of .*a.txt stands for the id 3",
}


def read_true(png: Path, listed: Path) -> object:
    return read_true_parts(png, listed, 20)


def read_predicted(png: Path, listed: Path) -> object:
    return read_predicted_parts(png, listed, 20)


BAD_LISTS = [
    *((read_true, *case) for case in TRUE_LISTS.items()),
    *((read_predicted, *case) for case in PREDICTED_LISTS.items()),
    *((read_predicted_persons, *case) for case in PERSON_LISTS.items()),
]


@pytest.mark.parametrize(("read", "text", "message"), BAD_LISTS)
def test_bad_lists_are_refused(
    tmp_path: Path, read: Callable[[Path, Path], object], text: str, message: str
) -> None:
    png = save_png(tmp_path / "a.png", IDS)
    with pytest.raises(InputError, match=message):
        read(png, save_text(tmp_path / "a.txt", text))


def test_true_persons_are_the_ids_of_their_map(tmp_path: Path) -> None:
    labels = save_png(tmp_path / "labels.png", IDS)
    persons = read_true_persons(labels, save_png(tmp_path / "persons.png", IDS * 7), 20)
    assert persons.ids.tolist() == [7, 14] and persons.labels.tolist() == IDS.tolist()


def test_a_prediction_has_a_class_everywhere(tmp_path: Path) -> None:
    path = save_png(tmp_path / "labels.png", IDS)
    assert read_predicted_labels(path, 20).tolist() == IDS.tolist()
    save_png(path, np.where(IDS == 2, 255, IDS).astype(np.uint8))
    with pytest.raises(
        InputError, match=r"labels.png holds the value 255, but a prediction has a class 0\.\.19"
    ):
        read_predicted_labels(path, 20)


def test_written_truth_is_in_cihps_layout(tmp_path: Path) -> None:
    persons = person_map([[1, 0, 19]], [[1, 1, 13]])
    write_true_parts(tmp_path, "a", persons, 20)
    assert (tmp_path / "a.txt").read_text() == "1 1 1\n259 19 13\n"
    assert read_ids(tmp_path / "a.png").tolist() == [[1, 0, 259]]
    parts, missing = read_true_parts(tmp_path / "a.png", tmp_path / "a.txt", 20)
    assert parts.classes.tolist() == [1, 19] and missing == 0


def test_written_prediction_is_what_cihps_server_takes(tmp_path: Path) -> None:
    persons = person_map([[3, 0, 2, 3]], [[1, 1, 2, 2]], [0.1, 0.7])
    write_predicted_parts(tmp_path, "a", persons, 20)
    assert (tmp_path / "a.txt").read_text() == "3 0.1\n2 0.7\n3 0.7\n"
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[1, 0, 2, 3]]


def test_written_persons_are_read_back_to_the_bit(tmp_path: Path) -> None:
    scores = [1 / 3, 1e-17]
    write_predicted_persons(tmp_path, "a", IDS, scores)
    pixels, ids, found = read_predicted_persons(tmp_path / "a.png", tmp_path / "a.txt")
    assert pixels.tolist() == IDS.tolist() and ids.tolist() == [1, 2] and found.tolist() == scores


def test_ids_beyond_sixteen_bits_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="id 65536"):
        write_predicted_persons(tmp_path, "a", np.array([[65536]]), [1.0])
    assert not list(tmp_path.iterdir())
