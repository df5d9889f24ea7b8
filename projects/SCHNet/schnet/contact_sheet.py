"""A data set's contact sheet: photo, truth and prediction of evenly spaced images."""

from __future__ import annotations

from detectron2.data import MetadataCatalog
from tqdm import tqdm

from schnet.data.catalog import load_registered
from schnet.data.mapper import read_truth
from schnet.data.reading import read_image
from schnet.errors import InputError
from schnet.inference import Parser
from schnet.visualization import ByteArray, SheetRow, contact_sheet, evenly_spaced


def prediction_sheet(parser: Parser, dataset_name: str, num_rows: int = 12) -> ByteArray:
    """Parse evenly spaced images of a data set, first and last included, and draw the sheet.

    Args:
        parser: knows the data set's classes.
        dataset_name: registered name, such as `ccp_val`.
        num_rows: images to show, at least 1; all where the data set has fewer.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        InputError: the data set is not there, has other classes than the parser, holds an
            unreadable file, or `num_rows` is below 1.
    """
    if num_rows < 1:
        raise InputError(f"{num_rows} rows are too few for a contact sheet: give 1 or more")
    dataset_dicts = load_registered([dataset_name])
    metadata = MetadataCatalog.get(dataset_name)
    if list(parser.classes) != list(metadata.stuff_classes):
        raise InputError(
            f"the model's classes ({', '.join(parser.classes)}) are not those of {dataset_name} "
            f"({', '.join(metadata.stuff_classes)}): take the config of that data set"
        )
    rows = []
    chosen = evenly_spaced(len(dataset_dicts), num_rows)
    for index in tqdm(chosen, desc="contact sheet", unit="image"):
        entry = dataset_dicts[index]
        photo = read_image(entry["file_name"])
        rows.append(SheetRow(photo, read_truth(entry, metadata), parser(photo).labels))
    return contact_sheet(rows, parser.classes, parser.palette, ignore_label=metadata.ignore_label)
