"""The command line that the prepare scripts share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from schnet.data.preparation.command import PrepareOptions, prepare_parser, read_options


def read(*arguments: str) -> PrepareOptions:
    parser = prepare_parser("lip", "Test.")
    return read_options(parser.parse_args(["--source", "x", *arguments]))


def test_defaults() -> None:
    assert read() == PrepareOptions(Path("datasets/lip"), os.cpu_count() or 1, 0.05)


def test_options() -> None:
    options = read("--output", "out", "--jobs", "3", "--max-damaged", "0.25")
    assert options == PrepareOptions(Path("out"), 3, 0.25)
    assert read("--max-damaged", "0").max_damaged == 0
    assert read("--max-damaged", "1").max_damaged == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--jobs", "0"), "'0' is no whole number of at least 1"),
        (("--jobs", "two"), "'two' is no whole number of at least 1"),
        (("--jobs", "1.5"), "'1.5' is no whole number of at least 1"),
        (("--max-damaged", "1.01"), r"'1.01' is no number in \[0, 1\]"),
        (("--max-damaged=-0.1",), r"'-0.1' is no number in \[0, 1\]"),
        (("--max-damaged", "nan"), r"'nan' is no number in \[0, 1\]"),
        (("--max-damaged", "5%"), r"'5%' is no number in \[0, 1\]"),
    ],
)
def test_impossible_values_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        read(*arguments)
    assert caught.value.code == 2
    assert re.search(told, capsys.readouterr().err)
