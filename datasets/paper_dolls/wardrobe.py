"""Who wears what: a random, consistent outfit and look for one doll."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from paper_dolls.materials import COLOURS, Colour, Material, jittered, mixed, pick

SKINS: tuple[Colour, ...] = (
    (244, 210, 184),
    (236, 194, 162),
    (222, 174, 136),
    (208, 154, 114),
    (172, 118, 82),
    (134, 88, 60),
    (96, 62, 46),
)
HAIRS: tuple[Colour, ...] = (
    (36, 32, 34),
    (62, 42, 34),
    (98, 64, 42),
    (134, 78, 44),
    (190, 96, 44),
    (226, 184, 108),
    (240, 220, 168),
    (176, 174, 176),
    (206, 92, 138),
)
HAIR_WEIGHTS = (2.4, 2.2, 2.0, 1.4, 1.1, 1.5, 0.7, 0.7, 0.35)
HAIR_STYLES = ("short", "crop", "bob", "long", "curly", "ponytail", "bun", "pigtails", "wavy")
FRINGES = ("bangs", "side", "centre", "swept", "spiky")
HAT_STYLES = ("beanie", "cap", "sunhat", "bowler", "beret")
GLASSES = ("round", "square", "cat", "aviator")
SHOES = ("sneaker", "boot", "flat", "pump")


@dataclass(frozen=True)
class Look:
    """The person.

    Attributes:
        skin: material of the skin.
        hair: material of the hair.
        hair_style: one of HAIR_STYLES.
        fringe: one of FRINGES.
        eyes: colour of the iris.
        mouth: 0 closed smile, 1 open smile, 2 small, 3 straight.
        freckles: whether there are any.
        jaw: 0.85 narrow to 1.1 broad.
    """

    skin: Material
    hair: Material
    hair_style: str
    fringe: str
    eyes: Colour
    mouth: int
    freckles: bool
    jaw: float


@dataclass(frozen=True)
class Accessory:
    """A hat, glasses, a scarf, gloves, socks or shoes: a style, a material and a second colour.

    Attributes:
        style: kind of the thing; its meaning depends on what it is.
        material: the surface.
        trim: colour of ribbons, lenses' frames, soles.
        size: length or size in 0..1, as the drawing function reads it.
    """

    style: str
    material: Material
    trim: Colour
    size: float


@dataclass(frozen=True)
class Coat:
    """An open coat: its material, length as a share of the leg (0..2) and gap in heads."""

    material: Material
    length: float
    gap: float
    lapel: Colour


@dataclass(frozen=True)
class Outfit:
    """Everything worn.

    Attributes:
        kind: "pants", "skirt", "dress" or "jumpsuit".
        top: material of the upper garment (of the whole for dress and jumpsuit).
        bottom: material of pants or skirt; the same as `top` for dress and jumpsuit.
        trim: colour of buttons, collars and belts.
        sleeve: where sleeves end along the arm, 0 (none) to 2 (wrist).
        hem: where pants, skirt or dress end along the leg, 0..2.
        flare: how far skirts or trouser legs widen, 0..1.
        neckline: depth in heads.
        closure: "buttons", "zip", "collar", "pocket" or "none".
        tucked: whether the top is worn inside the bottom.
        coat: the coat or None.
        hat: or None.
        glasses: or None.
        scarf: or None.
        gloves: or None.
        socks: or None.
        shoes: always worn.
    """

    kind: str
    top: Material
    bottom: Material
    trim: Colour
    sleeve: float
    hem: float
    flare: float
    neckline: float
    closure: str
    tucked: bool
    coat: Coat | None
    hat: Accessory | None
    glasses: Accessory | None
    scarf: Accessory | None
    gloves: Accessory | None
    socks: Accessory | None
    shoes: Accessory


# For each kind of garment its usual patterns and colours, as a maker of paper dolls has a box of
# papers for each; the boxes overlap, and one garment in twelve is cut from any colour.
STRAY_COLOUR_SHARE = 1 / 12
STYLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "top": (
        ("plain", "stripes", "stripes", "stripes"),
        ("white", "cream", "sky", "yellow", "mint"),
    ),
    "pants": (
        ("denim", "denim", "plain", "pinstripes"),
        ("denim", "navy", "blue", "charcoal"),
    ),
    "skirt": (
        ("plaid", "plaid", "pleats"),
        ("wine", "forest", "plum", "red"),
    ),
    "dress": (
        ("flowers", "flowers", "dots"),
        ("rose", "lilac", "coral", "pink"),
    ),
    "jumpsuit": (
        ("plain", "plain", "pinstripes"),
        ("terracotta", "olive", "mustard", "teal"),
    ),
    "coat": (
        ("wool", "wool", "wool", "checks"),
        ("camel", "brown", "grey", "sand"),
    ),
    "scarf": (
        ("ribs", "stripes", "knit"),
        ("red", "teal", "coral", "plum"),
    ),
    "hat": (
        ("ribs", "plain", "knit"),
        ("mustard", "red", "navy", "forest"),
    ),
    "gloves": (
        ("plain", "knit"),
        ("forest", "plum", "black", "navy"),
    ),
    "socks": (
        ("stripes", "stripes", "argyle"),
        ("white", "cream", "lilac", "mint"),
    ),
    "shoes": (
        ("plain",),
        ("brown", "black", "wine", "charcoal"),
    ),
}


def sample_look(rng: np.random.Generator) -> Look:
    """Return a random person."""
    skin = jittered(rng, pick(rng, SKINS), 4.0)
    hair = jittered(rng, pick(rng, HAIRS, HAIR_WEIGHTS), 8.0)
    return Look(
        skin=Material(skin, gloss=0.8),
        hair=Material(hair, gloss=1.1),
        hair_style=pick(rng, HAIR_STYLES),
        fringe=pick(rng, FRINGES),
        eyes=pick(rng, ((70, 48, 36), (92, 64, 40), (64, 110, 150), (80, 122, 80), (44, 40, 44))),
        mouth=int(rng.integers(4)),
        freckles=bool(rng.random() < 0.2),
        jaw=float(rng.uniform(0.85, 1.1)),
    )


def sample_material(rng: np.random.Generator, garment: str) -> Material:
    """Return a random material as the garment usually has it (see STYLES)."""
    patterns, colours = STYLES[garment]
    names = list(COLOURS)
    is_stray = rng.random() < STRAY_COLOUR_SHARE
    base = jittered(rng, COLOURS[pick(rng, names if is_stray else colours)])
    pattern = pick(rng, patterns)
    if pattern in ("denim", "wool", "ribs", "pleats", "knit"):
        second = mixed(base, pick(rng, ((255, 255, 255), (20, 20, 30))), rng.uniform(0.25, 0.5))
    else:
        second = _contrasting(rng, base)
    period = float(rng.uniform(0.15, 0.3))
    return Material(base, second, pattern, period)


def sample_outfit(rng: np.random.Generator, kind: str | None = None) -> Outfit:
    """Return a random outfit.

    Args:
        rng: source of chance.
        kind: "pants", "skirt", "dress" or "jumpsuit"; None for a random one.
    """
    chosen = pick(rng, ("pants", "skirt", "dress", "jumpsuit"), (30, 26, 22, 22))
    kind = chosen if kind is None else kind
    two_piece = kind in ("pants", "skirt")
    top = sample_material(rng, "top" if two_piece else kind)
    bottom = sample_material(rng, kind) if two_piece else top
    sleeve = float(pick(rng, (0.0, 0.5, 0.62, 1.0, 1.5, 1.88), (1.4, 2, 2, 0.8, 0.8, 2)))
    coat = None
    if two_piece and rng.random() < 0.46:
        cloth = sample_material(rng, "coat")
        length = float(rng.uniform(0.25, 1.35))
        coat = Coat(
            cloth, length, float(rng.uniform(0.12, 0.26)), mixed(cloth.base, (20, 20, 25), 0.3)
        )
    trim = pick(rng, ("white", "cream", "mustard", "black", "charcoal"))
    closures = (
        ("zip", "buttons", "pocket")
        if kind == "jumpsuit"
        else ("buttons", "collar", "none", "pocket")
    )
    return Outfit(
        kind=kind,
        top=top,
        bottom=bottom,
        trim=COLOURS[trim],
        sleeve=sleeve,
        hem=_sample_hem(rng, kind),
        flare=float(rng.uniform(0.0, 1.0)),
        neckline=float(rng.uniform(0.05, 0.26)),
        closure=pick(rng, closures),
        tucked=bool(kind == "skirt" or rng.random() < 0.3),
        coat=coat,
        hat=_maybe(rng, 0.42, "hat", HAT_STYLES),
        glasses=_sample_glasses(rng),
        scarf=_maybe(rng, 0.4, "scarf", ("two", "one", "loop")),
        gloves=_maybe(rng, 0.42, "gloves", ("mitten", "glove", "glove")),
        socks=_maybe(rng, 0.62, "socks", ("knee", "knee", "crew")),
        shoes=_accessory(rng, "shoes", SHOES),
    )


def _sample_hem(rng: np.random.Generator, kind: str) -> float:
    """Return where the lower garment ends along the leg (1 is the knee, 2 the ankle)."""
    if kind in ("pants", "jumpsuit"):
        long = float(rng.uniform(1.84, 1.98))
        return float(
            pick(rng, (long, rng.uniform(1.35, 1.6), rng.uniform(0.45, 0.8)), (5, 2.2, 2.8))
        )
    return float(pick(rng, (rng.uniform(0.5, 0.85), rng.uniform(0.9, 1.35), 1.7), (5, 4, 0.8)))


def _accessory(rng: np.random.Generator, garment: str, styles: tuple[str, ...]) -> Accessory:
    """Return a random accessory of one of the styles."""
    material = sample_material(rng, garment)
    return Accessory(
        pick(rng, styles), material, _contrasting(rng, material.base), float(rng.random())
    )


def _maybe(
    rng: np.random.Generator, share: float, garment: str, styles: tuple[str, ...]
) -> Accessory | None:
    """Return an accessory with the given probability."""
    accessory = _accessory(rng, garment, styles)
    return accessory if rng.random() < share else None


def _sample_glasses(rng: np.random.Generator) -> Accessory | None:
    """Return sunglasses for half of the dolls; only those seen from the front show them."""
    lens = pick(
        rng, ((32, 32, 40), (50, 38, 36), (36, 54, 84), (92, 44, 34), (30, 66, 62)), (4, 2, 2, 1, 1)
    )
    frame = COLOURS[pick(rng, ("black", "black", "red", "white", "mustard", "teal"))]
    glasses = Accessory(
        pick(rng, GLASSES),
        Material(jittered(rng, lens, 6.0), mixed(lens, (200, 215, 235), 0.5), "ombre", 0.05),
        frame,
        float(rng.random()),
    )
    return glasses if rng.random() < 0.52 else None


def _contrasting(rng: np.random.Generator, base: Colour) -> Colour:
    """Return a colour that stands out against the base."""
    brightness = sum(base) / 3.0
    light = ("white", "cream", "yellow", "sky", "pink", "mint", "sand")
    dark = ("navy", "wine", "forest", "charcoal", "red", "plum", "teal", "brown")
    return jittered(rng, COLOURS[pick(rng, light if brightness < 140.0 else dark)], 8.0)
