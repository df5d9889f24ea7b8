"""How a prediction gets to the photo's own size: the two habits of the field, by config key."""

from __future__ import annotations

PROTOCOLS: dict[str, str] = {
    "upsample_logits": "logits upsampled to the original size, then argmax",
    "warp_labels": ("letterboxed to the test box, argmax there, label map warped back by nearest"),
}
"""What each value of TEST.PROTOCOL means, in the words that are printed with a number."""
