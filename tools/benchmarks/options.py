"""Options that the benchmarks of speed and memory have in common."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from schnet.errors import InputError
from schnet.modeling.sam_encoder import PATCH_SIZE, SAM_VARIANTS

REPOSITORY = Path(__file__).resolve().parents[2]
OUTPUT = REPOSITORY / "output" / "benchmark"
DEFAULT_ROUNDS = 5
QUICK_VARIANT, QUICK_SHAPE, QUICK_ROUNDS = "tiny", "64", 2
_SHAPE = re.compile(r"(\d{1,5})(?:x(\d{1,5}))?(?:@(\d{1,3}))?")


@dataclass(frozen=True, order=True)
class Shape:
    """Size of a batch of images.

    Attributes:
        height: pixels, a multiple of 16.
        width: likewise.
        batch: images.
    """

    height: int
    width: int
    batch: int = 1

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `SIDE` or `HEIGHTxWIDTH`, with `@BATCH` behind it where that is not 1.

        Raises:
            InputError: it is neither, or the encoder cannot take it.
        """
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise InputError(f"--sizes has {text!r}: write sizes like 512, 672x448 or 512@4")
        height, width, batch = found[1], found[2] or found[1], found[3] or "1"
        shape = cls(int(height), int(width), int(batch))
        if min(shape.height, shape.width, shape.batch) < 1 or shape.height % PATCH_SIZE:
            raise _no_size(text)
        if shape.width % PATCH_SIZE:
            raise _no_size(text)
        return shape

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.height * self.width

    def __str__(self) -> str:
        """As `parse` reads it."""
        size = f"{self.height}x{self.width}"
        return size if self.batch == 1 else f"{size}@{self.batch}"


@dataclass(frozen=True)
class Settings:
    """How a benchmark runs.

    Attributes:
        variants: sizes of SAM's encoder.
        shapes: sizes of the batches.
        rounds: turns of each side that count.
        threads: of torch, in every process.
        output: folder of the JSON files.
        quick: a smoke run: one small variant and size, few rounds.
        readme: write the tables into the pages that have markers for them.
        render: make the tables of the last JSON file, and measure nothing.
    """

    variants: tuple[str, ...]
    shapes: tuple[Shape, ...]
    rounds: int
    threads: int
    output: Path
    quick: bool = False
    readme: bool = False
    render: bool = False


def add_common_arguments(
    parser: argparse.ArgumentParser,
    *,
    variants: Sequence[str],
    sizes: Sequence[str],
    quick_sizes: Sequence[str] = (QUICK_SHAPE,),
) -> None:
    """Declare the common options.

    Args:
        parser: the benchmark's own.
        variants: default of `--variant`.
        sizes: default of `--sizes`, as `Shape.parse` reads them.
        quick_sizes: likewise, under `--quick`.
    """
    parser.add_argument(
        "--variant",
        action="append",
        metavar="NAME",
        help=f"SAM's encoder; repeat for more (default: {' and '.join(variants)})",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        metavar="SIZE",
        help=f"SIDE or HEIGHTxWIDTH in pixels, @BATCH behind it (default: {' '.join(sizes)})",
    )
    parser.add_argument(
        "--rounds", type=int, help=f"turns of each side (default: {DEFAULT_ROUNDS})"
    )
    parser.add_argument(
        "--threads", type=int, help="threads of torch (default: as many as torch takes)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder of the JSON files (default: output/benchmark, in it quick/ for --quick)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"see that it runs: {QUICK_VARIANT} at {' '.join(quick_sizes)}, {QUICK_ROUNDS} rounds",
    )
    parser.add_argument(
        "--readme",
        action="store_true",
        help="also write the tables between their markers in README.md and docs/performance.md",
    )
    parser.add_argument(
        "--render", action="store_true", help="tables of the last JSON file; measures nothing"
    )
    parser.set_defaults(default_variants=tuple(variants), default_sizes=tuple(sizes))
    parser.set_defaults(quick_sizes=tuple(quick_sizes))


def read_settings(args: argparse.Namespace) -> Settings:
    """Check the common options and fill in what was not given.

    Args:
        args: what `add_common_arguments` declares.

    Raises:
        InputError: an option is impossible.
    """
    if args.quick and args.readme:
        raise InputError("--quick figures are not worth publishing: leave --readme out")
    for name in ("rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}: it must be at least 1")
    variants = args.variant or ((QUICK_VARIANT,) if args.quick else args.default_variants)
    for variant in variants:
        if variant not in SAM_VARIANTS:
            raise InputError(
                f"--variant is {variant!r}: it must be one of {', '.join(SAM_VARIANTS)}"
            )
    sizes = args.sizes or (args.quick_sizes if args.quick else args.default_sizes)
    shapes = tuple(dict.fromkeys(Shape.parse(size) for size in sizes))
    output = args.output or (OUTPUT / "quick" if args.quick else OUTPUT)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file: name a folder")
    return Settings(
        variants=tuple(dict.fromkeys(variants)),
        shapes=shapes,
        rounds=args.rounds or (QUICK_ROUNDS if args.quick else DEFAULT_ROUNDS),
        threads=args.threads or torch.get_num_threads(),
        output=output,
        quick=args.quick,
        readme=args.readme,
        render=args.render,
    )


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch take a number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _no_size(text: str) -> InputError:
    return InputError(
        f"--sizes has {text!r}: sides must be multiples of {PATCH_SIZE} and the batch at least 1"
    )
