"""Write a trained model as one file for deployment, or turn such a file into a checkpoint.

    python tools/export_weights.py output/lip/model_best.pth --output schnet_lip.safetensors
    python tools/export_weights.py schnet_lip.safetensors --to-checkpoint output/again

The file holds all that parsing needs: the trained weights, SAM's, CLIP's image tower, CLIP's text
features of the label list; and, in its header, the config, classes, palette, metrics and where the
bases came from. `--eval-only` and the demo take it as MODEL.WEIGHTS, and
`schnet.exported.load_exported` builds the model from it alone.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from schnet.errors import InputError, exit_on_input_error
from schnet.export_weights import DTYPES, Exported, export_checkpoint, export_to_checkpoint

MEGABYTE = 1e6


def report(done: Exported) -> str:
    """Say in a few lines what was written.

    Args:
        done: the result of the export, or of the way back.
    """
    header = done.header
    lines = [
        f"wrote {done.path}: {done.tensors} tensors, {done.size / MEGABYTE:.1f} MB "
        f"(from {done.source_size / MEGABYTE:.1f} MB)",
        f"  {len(header.classes)} classes, weights exported as {header.dtype}",
    ]
    lines += [f"  {prefix.rstrip('.')}: {source}" for prefix, source in header.bases.items()]
    lines += [f"  best {name}: {value:.2f}" for name, value in header.best.items()]
    return "\n".join(lines)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write a trained model as one safetensors file for deployment, or turn such a "
        "file into a checkpoint.",
    )
    parser.add_argument("source", type=Path, help="checkpoint; with --to-checkpoint an export")
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("--output", type=Path, metavar="FILE", help="a new .safetensors file")
    output.add_argument(
        "--to-checkpoint",
        type=Path,
        metavar="FOLDER",
        help="write model_exported.pth and config.yaml there instead",
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        action="append",
        default=[],
        metavar="YAML",
        help="config of the model (default: config.yaml beside the checkpoint); repeat for files "
        "on top",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="type of stored weights (default: float32)")
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="JSON",
        help="evaluation.json of these weights, to go into the header",
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="config overrides: KEY VALUE ..."
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        InputError: bad input; the entry point turns it into exit code 2.
    """
    args = _argument_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.to_checkpoint is None:
        done = export_checkpoint(
            args.source,
            args.output,
            config_files=args.config_file,
            opts=args.opts,
            dtype=args.dtype or DTYPES[0],
            evaluation=args.evaluation,
        )
    elif args.config_file or args.dtype or args.evaluation or args.opts:
        raise InputError(
            "--config-file, --dtype, --evaluation and --opts do not go with --to-checkpoint: an "
            "export has its own"
        )
    else:
        done = export_to_checkpoint(args.source, args.to_checkpoint)
    print(report(done))


if __name__ == "__main__":
    with exit_on_input_error():
        main()
