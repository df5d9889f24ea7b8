"""Prepare LIP (Look into Person): from its official archives to checked pairs and split indexes.

    python datasets/prepare_lip.py --source DOWNLOADS/LIP --output datasets/lip
    python datasets/prepare_lip.py --source TrainVal_images.zip TrainVal_parsing_annotations.zip

The source holds `train_images`, `val_images`, `train_segmentations`, `val_segmentations`, and
perhaps `testing_images`, at any depth (the archives nest them twice); id lists (`train_id.txt`)
count where they are there. Every photo is decoded and every label map checked; written are
`train.json`, `val.json` and `test.json`, which point to the files where they are. Files of zip
archives are copied out. The source is never changed, and a second run checks only what is new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from schnet.data.preparation.official import prepare_official
from schnet.data.specs import SPECS
from schnet.errors import exit_on_input_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare LIP as the command line says and print the summary."""
    sys.stdout.write(prepare_official(SPECS["lip"], "Prepare LIP for SCHNet.", arguments) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
