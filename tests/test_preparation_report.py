"""The summary that preparations and validations print."""

from __future__ import annotations

from dataclasses import replace

from official_trees import row

from schnet.data.preparation.pairs import PairResult, PairStatus
from schnet.data.preparation.report import report
from schnet.data.specs import SPECS

SPEC = replace(
    SPECS["lip"],
    classes=("background", "hat"),
    ignore_label=9,
    official_counts={"train": 2},
)
GOOD = PairResult(PairStatus.CHECKED, pixel_counts=(1500, 500), ignored=2000, mode="RGB")
RESULTS = {
    "train": [
        GOOD,
        replace(GOOD, status=PairStatus.UNCHANGED, pixel_counts=(1000, 0), turned=True, mode="L"),
        PairResult(PairStatus.MISSING, has_label=False, problem="the label map of a is missing"),
        PairResult(PairStatus.DROPPED, mode="RGB"),
    ],
    "test": [PairResult(PairStatus.CHECKED, has_label=False, mode="RGB")],
}


def test_counts() -> None:
    summary = report(SPEC, RESULTS, {})
    assert row(summary, "images  ") == ["4", "1"]
    assert row(summary, "label maps") == ["3", "0"]
    assert row(summary, "pairs to use") == ["2", "1"]
    assert row(summary, "official number of images") == ["2", "–"]
    assert row(summary, "more or fewer than these") == ["0", "–"]
    for status, count in {
        PairStatus.CHECKED: "1",
        PairStatus.UNCHANGED: "1",
        PairStatus.MISSING: "1",
        PairStatus.DROPPED: "1",
        PairStatus.VALUES: "0",
    }.items():
        assert row(summary, f"{status.value} ")[0] == count, status
    assert row(summary, "photos turned by their EXIF") == ["1", "0"]
    assert row(summary, "photos of mode L") == ["1", "0"]
    assert row(summary, "photos of mode RGB") == ["2", "1"]


def test_labels_and_their_shares() -> None:
    summary = report(SPEC, RESULTS, {})
    # Shares are of the 3,000 labelled pixels; the unlabelled split has none.
    empty = ["0", "0.000", "%", "0"]
    assert row(summary, "0 background") == ["2,500", "83.333", "%", "2", *empty]
    assert row(summary, "1 hat") == ["500", "16.667", "%", "1", *empty]
    assert row(summary, "9 ignored") == ["4,000", "133.333", "%", "2", *empty]


def test_more_and_fewer_images_than_official() -> None:
    for official, difference in ((1, "1"), (5, "-3")):
        spec = replace(SPEC, official_counts={"train": official})
        assert row(report(spec, RESULTS, {}), "more or fewer")[-2] == difference


def test_sets_without_official_counts_are_not_compared() -> None:
    summary = report(replace(SPEC, official_counts={}), RESULTS, {})
    assert "official" not in summary and "more or fewer" not in summary


def test_what_is_left_out_comes_first_and_notes_follow() -> None:
    lines = report(SPEC, RESULTS, {"split": "ours"}).splitlines()
    assert lines[:3] == ["left out: the label map of a is missing", "split: ours", ""]
