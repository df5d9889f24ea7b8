from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schnet.evaluation.instance_report import as_json, report, write_results
from schnet.evaluation.instances import InstanceResults

NAMES = ("Background", "Hat", "Hair", "Glove")


@pytest.fixture
def results() -> InstanceResults:
    part_ap = np.full((4, 9), np.nan)
    part_ap[1], part_ap[2] = np.linspace(0.9, 0.1, 9), 1.0
    return InstanceResults(
        part_ap=part_ap,
        person_ap=np.linspace(0.8, 0.0, 9),
        pcp=np.linspace(0.6, 0.2, 9),
        images=7,
        true_parts=np.array([0, 11, 12, 0]),
        predicted_parts=np.array([0, 13, 0, 14]),
        true_persons=5,
        predicted_persons=6,
        ids_without_pixels=0,
    )


def test_report_shows_every_number(results: InstanceResults) -> None:
    lines = report("cihp", NAMES, results).splitlines()
    assert lines[0].startswith("cihp, instance level, 7 images, 23 true and 27 predicted parts")
    assert "5 true and 6 predicted persons" in lines[0]
    cells = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    numbers = [float(cell) for cell in cells["AP^r"].split("|")[2:-1]]
    assert numbers == [95, 90, 85, 80, 75, 70, 65, 60, 55, 75]
    numbers = [float(cell) for cell in cells["AP^p"].split("|")[2:-1]]
    assert numbers == [80, 70, 60, 50, 40, 30, 20, 10, 0, 40]
    assert "PCP at 0.5: 40.00" in lines
    assert cells["Hat"].replace(" ", "") == "|Hat|50.00|50.00|11|13|"
    assert cells["Glove"].replace(" ", "") == "|Glove|–|–|0|14|"
    assert "Background" not in cells


def test_report_says_what_is_not_computed(results: InstanceResults) -> None:
    text = report("cihp", NAMES, replace(results, person_ap=None, pcp=None))
    assert "AP^p and PCP are not computed: they need" in text
    assert "| AP^p" not in text and "PCP at" not in text
    assert "not computed" not in report("cihp", NAMES, results)


def test_report_says_which_ids_count_for_nothing(results: InstanceResults) -> None:
    assert "have no pixel" not in report("cihp", NAMES, results)
    assert "3 ids in the lists" in report("cihp", NAMES, replace(results, ids_without_pixels=3))


def test_json_is_in_percent_with_null_for_undefined(results: InstanceResults) -> None:
    content = json.loads(json.dumps(as_json("cihp", NAMES, results), allow_nan=False))
    assert content["AP_r"]["0.5"] == pytest.approx(75) and content["AP_r"]["mean"] == 75
    assert content["AP_p"]["0.1"] == 80 and content["AP_p"]["mean"] == pytest.approx(40)
    assert content["PCP"]["0.5"] == pytest.approx(40) and len(content["PCP"]) == 9
    assert content["AP_r_per_class"]["Hat"]["0.9"] == pytest.approx(10)
    assert content["AP_r_per_class"]["Glove"]["0.5"] is None
    assert content["parts"]["Glove"] == {"true": 0, "predicted": 14}
    assert content["persons"] == {"true": 5, "predicted": 6}
    without = as_json("cihp", NAMES, replace(results, person_ap=None, pcp=None))
    assert without["AP_p"] is None and without["PCP"] is None


def test_results_are_written(tmp_path: Path, results: InstanceResults) -> None:
    paths = write_results(tmp_path / "new", "cihp", NAMES, results)
    assert sorted(path.name for path in paths) == sorted(
        path.name for path in (tmp_path / "new").iterdir()
    )
    assert json.loads(paths[0].read_text()) == as_json("cihp", NAMES, results)
    assert paths[1].read_text() == report("cihp", NAMES, results) + "\n"
    with Image.open(paths[2]) as picture:
        assert picture.width == 840 and len(picture.convert("RGB").getcolors(1 << 20) or ()) > 2
