from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from parsing_fakes import ThresholdModel, fake_parser, load_script, write_split, write_tiny_model
from PIL import Image

from schnet.contact_sheet import evenly_spaced, prediction_sheet
from schnet.data.catalog import register_datasets
from schnet.data.mapper import TestMapper
from schnet.errors import InputError
from schnet.inference import Parser


@pytest.fixture
def dolls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set `dolls_val` of three images, in truth all of label 3."""
    root = tmp_path / "data"
    write_split(root, "dolls", "val", [np.full((20, 30), 3, np.uint8)] * 3)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_datasets()
    return root


def test_evenly_spaced_includes_both_ends() -> None:
    assert evenly_spaced(80, 5) == [0, 20, 40, 59, 79]
    assert evenly_spaced(3, 12) == [0, 1, 2]
    assert evenly_spaced(7, 1) == [0]


def test_sheet_shows_photo_truth_and_prediction(dolls: Path) -> None:
    metadata = MetadataCatalog.get("dolls_val")
    model = ThresholdModel()
    parser = Parser(model, TestMapper(box=(32, 32)), metadata)
    sheet = prediction_sheet(parser, "dolls_val", num_rows=2)
    assert len(model.seen) == 2
    line = sheet[40 + 120, 16 : 16 + 3 * 366]
    shown = [tuple(line[column * 366 + 270].tolist()) for column in range(3)]
    colors = [tuple(color) for color in metadata.stuff_colors]
    assert shown == [(255, 255, 255), colors[3], colors[1]]


def test_bad_requests_are_refused(dolls: Path) -> None:
    with pytest.raises(InputError, match="classes .* are not those of dolls_val"):
        prediction_sheet(fake_parser(), "dolls_val")
    with pytest.raises(InputError, match="0 rows are too few"):
        prediction_sheet(fake_parser(), "dolls_val", num_rows=0)


def test_command_line_with_the_real_model(dolls: Path, tmp_path: Path) -> None:
    config, weights = write_tiny_model(tmp_path)
    output = tmp_path / "new" / "sheet.png"
    common = ["--config-file", str(config), "--weights", str(weights)]
    tool = load_script("tools/contact_sheet.py")
    tool.main([*common, "--output", str(output), "--rows", "3", "INPUT.SIZE", "[48, 48]"])
    with Image.open(output) as sheet:
        assert sheet.height > 3 * 240
    with pytest.raises(InputError, match="end its name in .png"):
        tool.main([*common, "--output", str(tmp_path / "sheet.jpg")])
