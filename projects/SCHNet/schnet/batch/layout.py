"""Where things are in an output folder.

a.png              the label map of photo `a`
a_overlay.jpg      its parts laid over it
a_masks/02-hair.png
results.jsonl      one line a photo
run.json           what they were parsed with
.schnet/           what this command keeps to itself: names, locks, unfinished files
"""

from __future__ import annotations

from pathlib import Path

LABELS_SUFFIX = ".png"
OVERLAY_SUFFIX = "_overlay.jpg"
MASKS_SUFFIX = "_masks"
SUFFIXES = (LABELS_SUFFIX, OVERLAY_SUFFIX, MASKS_SUFFIX)
"""Each photo holds all three, so that its name does not depend on what is asked for."""

RESULTS_FILE = "results.jsonl"
RUN_FILE = "run.json"
OWN_FOLDER = ".schnet"


def results_file(folder: Path) -> Path:
    """The lines of all photos; those of processes that share the work join it at the end."""
    return folder / RESULTS_FILE


def own_folder(folder: Path) -> Path:
    """What this command keeps to itself."""
    return folder / OWN_FOLDER


def part_file(folder: Path, rank: int) -> Path:
    """The lines of one of several processes."""
    return own_folder(folder) / f"results-{rank}.jsonl"


def part_files(folder: Path) -> list[Path]:
    """The lines of all processes that shared the work and have not been joined."""
    return sorted(own_folder(folder).glob("results-*.jsonl"))


def rank_lock(folder: Path, rank: int) -> Path:
    """Held by a process as long as it works."""
    return own_folder(folder) / f"rank-{rank}.lock"


def unfinished_folder(folder: Path, rank: int) -> Path:
    """Files that a process is writing."""
    return own_folder(folder) / f"unfinished-{rank}"
