"""The output folder: outside the download, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from schnet.data.index import DatasetIndex, write_index
from schnet.data.preparation.output import check_target, journal_path
from schnet.data.preparation.sources import SourceTree, open_source
from schnet.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    (tmp_path / "source").mkdir()
    return open_source([tmp_path / "source"])


def check(output: Path, tree: SourceTree) -> Path:
    return check_target(output, tree, ["train"], ["images/train", "labels/train"])


def test_folder_in_the_source_is_refused(tree: SourceTree, tmp_path: Path) -> None:
    for output in (tmp_path / "source", tmp_path / "source" / "deep" / "er"):
        with pytest.raises(InputError, match="lies in the source .*never changed"):
            check(output, tree)
    (tmp_path / "link").symlink_to(tmp_path / "source")
    with pytest.raises(InputError, match="lies in the source"):
        check(tmp_path / "link" / "out", tree)
    with pytest.raises(InputError, match="lies in the source"):
        check(tmp_path / "source" / "out", open_source([tmp_path / "link"]))


def test_file_is_refused_and_a_new_folder_taken(tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is a file: give a folder"):
        check(tmp_path / "file", tree)
    assert check(tmp_path / "out", tree) == tmp_path / "out"


def test_files_of_others_are_not_replaced(tree: SourceTree, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "labels" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="out/labels/train is there already and no earlier run"):
        check(out, tree)
    journal_path(out, "train").write_text("")
    check(out, tree)
    (out / "train.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(InputError, match=r"train\.json would be replaced and is no index"):
        check(out, tree)
    write_index(out / "train.json", DatasetIndex(("a", "b"), ".", ".", (0, 0), ()))
    journal_path(out, "train").unlink()
    check(out, tree)


def test_other_folders_there_do_not_matter(tree: SourceTree, tmp_path: Path) -> None:
    (tmp_path / "out" / "photos").mkdir(parents=True)
    check(tmp_path / "out", tree)
