"""Export a trained model as one graph for other runtimes, and measure how well it agrees.

    python tools/export.py output/lip --format onnx --output schnet_lip.onnx --photos photos/
    python tools/export.py output/lip --format onnx --int8 --output schnet_lip_int8.onnx
    python tools/export.py output/lip --format torchscript --size 512 512 --output schnet_lip.ts

The file is all that parsing needs: SAM, CLIP's image tower and its text features of the labels are
in it, and what to know of the labels, the sizes and the padding. The input `image` is float32 RGB,
0..255, (B, 3, H, W); the output `logits` is (B, K, H/4, W/4), the model's own resolution, from
which whoever parses a photo resizes to its size. TorchScript takes one image at a time. No file is
written where in fp32 fewer than 99.9 % of the labels agree with the model's; in eight bits
(`--int8`) it is written, and the number is told.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from schnet.data.files import atomic_path
from schnet.errors import InputError, exit_on_input_error
from schnet.graph_export.export import GraphJob, export_graph
from schnet.graph_export.formats import DEFAULT_OPSET, ENDINGS
from schnet.graph_export.parity import ParityReport


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Export a trained model as one graph for other runtimes, and compare them.",
    )
    parser.add_argument("weights", help="a run's folder, a checkpoint or a .safetensors export")
    parser.add_argument("--format", choices=ENDINGS, required=True, help="of the file")
    endings = ", ".join(f"{ending} ({kind})" for kind, ending in ENDINGS.items())
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help=f"a new file: {endings}"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="fit photos into this size, which is the input's then (default: the test box)",
    )
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="leave the input's size open, in multiples of 16 (default where TEST.PROTOCOL is "
        "upsample_logits and no --size is given, but for torchscript)",
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=DEFAULT_OPSET,
        help=f"of onnx (default: {DEFAULT_OPSET})",
    )
    parser.add_argument("--int8", action="store_true", help="store weights of onnx in eight bits")
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="compare on these (default: made-up pictures)"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.md",
        help="where the comparison goes, and as FILE.json (default: beside the output)",
    )
    parser.add_argument(
        "--config-file",
        action="append",
        default=[],
        metavar="YAML",
        help="config of the model (default: config.yaml beside the checkpoint); repeat for files "
        "on top",
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides: KEY VALUE ..."
    )
    return parser


def _report_paths(args: argparse.Namespace) -> tuple[Path, Path]:
    markdown = args.report or args.output.with_name(f"{args.output.name}.parity.md")
    if markdown.suffix != ".md":
        raise InputError(f"the report is {markdown}: end its name in .md")
    for path in (markdown, markdown.with_suffix(".json")):
        if path.exists():
            raise InputError(f"{path} exists: give another --report, or move it away")
    return markdown, markdown.with_suffix(".json")


def _write_report(report: ParityReport, markdown: Path, numbers: Path) -> None:
    for path, text in ((markdown, report.as_markdown()), (numbers, report.as_json())):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    markdown, numbers = _report_paths(args)
    job = GraphJob(
        weights=args.weights,
        output=args.output,
        kind=args.format,
        size=None if args.size is None else (args.size[0], args.size[1]),
        dynamic=args.dynamic or None,
        opset=args.opset,
        int8=args.int8,
        photos=args.photos,
    )
    report = export_graph(job, args.config_file, args.opts)
    _write_report(report, markdown, numbers)
    print(report.as_markdown())
    print(f"wrote {args.output}, {markdown} and {numbers}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
