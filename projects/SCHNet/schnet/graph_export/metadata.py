"""What an exported graph says of itself, so that its file is all that parsing needs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

KEY = "schnet"
"""Name of the entry of an ONNX file's metadata; of an archive's extra file with `.json`."""
EXTRA_FILE = f"{KEY}.json"
FORMAT = "schnet-graph/1"

Size = tuple[int, int]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class GraphMetadata:
    """What there is to know of a graph besides its operators.

    Attributes:
        classes: K names, in label order.
        palette: K colours (red, green, blue) in 0..255.
        box: height and width in pixels that a photo is fitted into.
        protocol: TEST.PROTOCOL, how labels get to the photo's size.
        pixel_mean: RGB, 0..255; what padding is filled with.
        size: height and width of the graph's input; None takes any multiples of `multiple`.
        multiple: of what the input's sides are multiples.
        stride: pixels of the input a pixel of the logits, in each direction.
        precision: `float32`, or `int8` where weights are stored in eight bits.
        weights: name of the file that was exported.
        digest: SHA-256 of the model's values, the bases included.
        schnet_version: of the package that wrote the file.
    """

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    box: Size
    protocol: str
    pixel_mean: tuple[float, float, float]
    size: Size | None
    multiple: int
    stride: int
    precision: str
    weights: str
    digest: str
    schnet_version: str

    def as_json(self) -> str:
        """The attributes, and the format, as one JSON object."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> GraphMetadata:
        """Read what `as_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is of another format, or not whole.
        """
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise ValueError(f"the format is not {FORMAT}")
        height, width = content.pop("box")
        size = content.pop("size")
        red, green, blue = content.pop("pixel_mean")
        return cls(
            classes=tuple(content.pop("classes")),
            palette=tuple((r, g, b) for r, g, b in content.pop("palette")),
            box=(height, width),
            size=None if size is None else (size[0], size[1]),
            pixel_mean=(red, green, blue),
            **content,
        )
