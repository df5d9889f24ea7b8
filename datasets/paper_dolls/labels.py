"""LIP's label list and palette, as the official annotation files use them (Look into Person)."""

from __future__ import annotations

from schnet.data.labels import LIP_CLASSES, LIP_PALETTE

BACKGROUND, HAT, HAIR, GLOVE, SUNGLASSES, UPPER_CLOTHES, DRESS, COAT, SOCKS, PANTS = range(10)
JUMPSUITS, SCARF, SKIRT, FACE, LEFT_ARM, RIGHT_ARM, LEFT_LEG, RIGHT_LEG = range(10, 18)
LEFT_SHOE, RIGHT_SHOE = 18, 19

CLASSES = LIP_CLASSES
PALETTE = LIP_PALETTE
