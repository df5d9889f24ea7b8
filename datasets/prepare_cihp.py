"""Prepare CIHP (Crowd Instance-level Human Parsing): official archive to checked pairs and indexes.

    python datasets/prepare_cihp.py --source DOWNLOADS/CIHP --output datasets/cihp
    python datasets/prepare_cihp.py --source instance-level_human_parsing.zip

The source holds `Training/{Images,Category_ids}`, `Validation/{Images,Category_ids}` and perhaps
`Testing/Images`, at any depth; id lists (`train_id.txt`) count where they are there. Labels are
`Category_ids`; `Categories` are colours to look at. Every photo is decoded and every label map
checked; written are `train.json`, `val.json` and `test.json`, which point to the files where they
are. Files of zip archives are copied out. The source is never changed, and a second run checks
only what is new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from schnet.data.preparation.official import prepare_official
from schnet.data.specs import SPECS
from schnet.errors import exit_on_input_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare CIHP as the command line says and print the summary."""
    sys.stdout.write(prepare_official(SPECS["cihp"], "Prepare CIHP for SCHNet.", arguments) + "\n")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
