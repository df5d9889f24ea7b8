"""From a benchmark's figures to its JSON file, and to the tables of the pages that quote it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, summarise_machine
from benchmarks.options import REPOSITORY, Settings, torch_threads
from benchmarks.runner import Ratio, Sample
from tabulate import tabulate

from schnet.data.files import atomic_path
from schnet.errors import InputError

PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "performance.md")
Figures = dict[str, Any]
MEGABYTE = 1e6
log = logging.getLogger("benchmark")


def finish(
    name: str,
    settings: Settings,
    measure: Callable[[Settings], Figures],
    render: Callable[[Figures], str],
) -> str:
    """Measure, or take the last figures, and write what was asked for.

    Args:
        name: of the benchmark; its figures go to `<name>.json`.
        settings: how it runs.
        measure: gives the figures, which JSON can hold.
        render: makes markdown of them; it alone decides what the pages say.

    Returns:
        The markdown, with a line on the conditions above.

    Raises:
        InputError: no page has markers for the tables, or there are no figures to render.
    """
    pages = pages_with_markers(name) if settings.readme else []
    path = settings.output / f"{name}.json"
    if settings.render:
        content = read_figures(path, name)
    else:
        start = time.monotonic()
        with torch_threads(settings.threads):
            machine = describe_machine()
            figures = measure(settings)
        content = {
            "benchmark": name,
            "machine": machine,
            "settings": _as_json(settings),
            "seconds": round(time.monotonic() - start, 1),
            "figures": figures,
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        log.info("%s took %.1f minutes: %s", name, content["seconds"] / 60, path)
    rounds = content["settings"]["rounds"]
    text = (
        f"{summarise_machine(content['machine'])}. Medians of {rounds} interleaved rounds, in "
        f"parentheses the smallest and the largest of a round.\n\n{render(content['figures'])}"
    )
    for page in pages:
        write_page(page, name, text)
    return text


def read_figures(path: Path, name: str) -> Figures:
    """Read a benchmark's JSON file.

    Raises:
        InputError: it is not there, or is none of this benchmark's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there: run the benchmark without --render first") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("benchmark") != name:
        raise InputError(f"{path} does not hold figures of the benchmark {name}: run it again")
    return content


def pages_with_markers(name: str) -> list[Path]:
    """List the pages that have a place for a benchmark's tables.

    Raises:
        InputError: none has.
    """
    pages = [p for p in PAGES if p.is_file() and _place(p.read_text(encoding="utf-8"), name)]
    if not pages:
        start, end = _markers(name)
        titles = " nor ".join(str(page) for page in PAGES)
        raise InputError(f"neither {titles} has a line {start} and one {end} below it: add them")
    return pages


def write_page(path: Path, name: str, text: str) -> None:
    """Put text between a benchmark's markers in a page, atomically; all else stays as it is.

    Raises:
        InputError: the page has not these markers.
    """
    page = path.read_text(encoding="utf-8")
    place = _place(page, name)
    if place is None:
        raise InputError(f"{path} has no place for the tables of {name}: add {_markers(name)}")
    with atomic_path(path) as temporary:
        temporary.write_text(
            f"{page[: place[0]]}\n\n{text.strip()}\n\n{page[place[1] :]}", encoding="utf-8"
        )


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Make a markdown table, its first columns to the left and the others to the right."""
    alignment = [*["left"] * left, *["right"] * (len(headers) - left)]
    return tabulate(rows, headers, "pipe", colalign=alignment, disable_numparse=True)


def ratio_text(ratio: Ratio, decimals: int = 2) -> str:
    """Write a ratio with its spread, such as `3.12 (2.98…3.30)`."""
    value, low, high = (f"{v:.{decimals}f}" for v in (ratio.value, ratio.low, ratio.high))
    return f"{value} ({low}…{high})"


def seconds_text(sample: Sample) -> str:
    """Write a time with its spread, in seconds or, below one, in milliseconds."""
    low, high = sample.spread
    if sample.median < 1:
        return f"{1e3 * sample.median:.0f} ms ({1e3 * low:.0f}…{1e3 * high:.0f})"
    return f"{sample.median:.2f} s ({low:.2f}…{high:.2f})"


def memory_text(memory: Figures | None) -> str:
    """Write the extra memory of a computation, or that it could not be measured."""
    return "not measured" if memory is None else f"{memory['extra'] / MEGABYTE:.0f} MB"


def memory_share(memory: Figures | None, reference: Figures | None) -> float | None:
    """Extra memory relative to the reference's; None where either could not be measured."""
    if memory is None or reference is None or not reference["extra"]:
        return None
    return float(memory["extra"] / reference["extra"])


def target_text(
    value: float | None, *, least: float | None = None, most: float | None = None, unit: str = ""
) -> str:
    """Write a target and whether a value meets it; a dash where there is no target or no value."""
    bound = least if most is None else most
    if value is None or bound is None:
        return "–"
    met = value >= bound if most is None else value <= bound
    return f"{'≥' if most is None else '≤'} {bound:g}{unit}: {'met' if met else '**not met**'}"


def as_sample(seconds: Sequence[float]) -> Sample:
    """A sample out of what JSON holds of it."""
    return Sample(tuple(seconds))


def _as_json(settings: Settings) -> dict[str, Any]:
    content = asdict(settings)
    content["shapes"] = [str(shape) for shape in settings.shapes]
    # Where the file lies and what was done with it is not part of how it was measured.
    for name in ("output", "readme", "render"):
        del content[name]
    return content


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"


def _place(page: str, name: str) -> tuple[int, int] | None:
    """Where the text between the markers begins and ends, or None."""
    start, end = _markers(name)
    before, found_start, rest = page.partition(start)
    inside, found_end, _ = rest.partition(end)
    if not found_start or not found_end:
        return None
    begin = len(before) + len(start)
    return begin, begin + len(inside)
