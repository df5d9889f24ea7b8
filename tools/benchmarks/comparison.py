"""What the benchmarks of speed and memory are: options, a measurement, and the tables of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.options import Settings, Shape, add_common_arguments, read_settings
from benchmarks.results import Figures, finish


@dataclass(frozen=True)
class Comparison:
    """A benchmark with the common options alone.

    Attributes:
        name: of the command, of its JSON file and of its places in the pages.
        variants: default of `--variant`.
        sizes: default of `--sizes`.
        measure: gives the figures, which JSON can hold.
        render: makes markdown of them.
    """

    name: str
    variants: tuple[str, ...]
    sizes: tuple[str, ...]
    measure: Callable[[Settings], Figures]
    render: Callable[[Figures], str]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the benchmark's options."""
        add_common_arguments(parser, variants=self.variants, sizes=self.sizes)

    def run(self, args: argparse.Namespace) -> str:
        """Run the benchmark.

        Args:
            args: what `add_arguments` declares.

        Returns:
            Markdown tables.

        Raises:
            InputError: an option is impossible, or the tables have no place in the pages.
        """
        return finish(self.name, read_settings(args), self.measure, self.render)


def measure_cells(
    measure_cell: Callable[[str, Shape, Settings], Figures], settings: Settings
) -> Figures:
    """Measure every size of every variant.

    Args:
        measure_cell: gives the figures of a variant at a size.
        settings: name both.

    Returns:
        `cells`: one dict a variant and size.
    """
    return {
        "cells": [
            measure_cell(variant, shape, settings)
            for variant in settings.variants
            for shape in settings.shapes
        ]
    }
