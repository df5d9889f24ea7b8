"""The published label lists: class names, colours, mirrored pairs and phrases, as plain data.

Sources: LIP (Gong et al., CVPR 2017), CIHP (Gong et al., ECCV 2018), ATR (Liang et al., 2015),
Pascal-Person-Part (Chen et al., 2014; Xia et al., 2017), CCP (Yang et al., CVPR 2014). LIP's
colours are the ones its authors draw with; a class that ATR shares with LIP keeps LIP's colour.
"""

from __future__ import annotations

Color = tuple[int, int, int]

IGNORE_LABEL = 255

LIP_CLASSES: tuple[str, ...] = (
    "Background",
    "Hat",
    "Hair",
    "Glove",
    "Sunglasses",
    "Upper-clothes",
    "Dress",
    "Coat",
    "Socks",
    "Pants",
    "Jumpsuits",
    "Scarf",
    "Skirt",
    "Face",
    "Left-arm",
    "Right-arm",
    "Left-leg",
    "Right-leg",
    "Left-shoe",
    "Right-shoe",
)
CIHP_CLASSES: tuple[str, ...] = (*LIP_CLASSES[:10], "Torso-skin", *LIP_CLASSES[11:])
LIP_MIRROR_PAIRS: tuple[tuple[int, int], ...] = ((14, 15), (16, 17), (18, 19))
LIP_PALETTE: tuple[Color, ...] = (
    (0, 0, 0),
    (128, 0, 0),
    (255, 0, 0),
    (0, 85, 0),
    (170, 0, 51),
    (255, 85, 0),
    (0, 0, 85),
    (0, 119, 221),
    (85, 85, 0),
    (0, 85, 85),
    (85, 51, 0),
    (52, 86, 128),
    (0, 128, 0),
    (0, 0, 255),
    (51, 170, 221),
    (0, 255, 255),
    (85, 255, 170),
    (170, 255, 85),
    (255, 255, 0),
    (255, 170, 0),
)

ATR_LABELS: dict[str, Color] = {
    "Background": (0, 0, 0),
    "Hat": (128, 0, 0),
    "Hair": (255, 0, 0),
    "Sunglasses": (170, 0, 51),
    "Upper-clothes": (255, 85, 0),
    "Skirt": (0, 128, 0),
    "Pants": (0, 85, 85),
    "Dress": (0, 0, 85),
    "Belt": (255, 0, 170),
    "Left-shoe": (255, 255, 0),
    "Right-shoe": (255, 170, 0),
    "Face": (0, 0, 255),
    "Left-leg": (85, 255, 170),
    "Right-leg": (170, 255, 85),
    "Left-arm": (51, 170, 221),
    "Right-arm": (0, 255, 255),
    "Bag": (150, 90, 220),
    "Scarf": (52, 86, 128),
}
ATR_MIRROR_PAIRS: tuple[tuple[int, int], ...] = ((9, 10), (12, 13), (14, 15))

PPP_LABELS: dict[str, Color] = {
    "Background": (0, 0, 0),
    "Head": (231, 76, 60),
    "Torso": (52, 120, 200),
    "Upper-arm": (243, 176, 45),
    "Lower-arm": (250, 228, 120),
    "Upper-leg": (39, 150, 96),
    "Lower-leg": (130, 215, 155),
}

CCP_LABELS: dict[str, Color] = {
    "background": (0, 0, 0),
    "hat": (148, 33, 106),
    "hair": (139, 87, 42),
    "glasses": (74, 20, 140),
    "skin": (255, 205, 170),
    "top": (229, 57, 53),
    "outerwear": (30, 90, 180),
    "dress": (236, 90, 170),
    "pants": (0, 121, 107),
    "shorts": (77, 200, 180),
    "skirt": (255, 152, 0),
    "legwear": (120, 144, 156),
    "footwear": (255, 235, 59),
    "bag": (124, 179, 66),
    "scarf": (3, 169, 244),
    "accessory": (200, 200, 255),
}
CCP_GROUPS: dict[str, tuple[str, ...]] = {
    "background": ("null",),
    "hat": ("hat",),
    "hair": ("hair",),
    "glasses": ("glasses", "sunglasses"),
    "skin": ("skin",),
    "top": (
        *("blouse", "bodysuit", "bra", "hoodie", "intimate", "jumper", "shirt", "sweater"),
        *("sweatshirt", "swimwear", "t-shirt", "top", "vest"),
    ),
    "outerwear": ("blazer", "cape", "cardigan", "coat", "jacket", "suit"),
    "dress": ("dress", "romper"),
    "pants": ("jeans", "leggings", "pants"),
    "shorts": ("shorts", "panties"),
    "skirt": ("skirt",),
    "legwear": ("socks", "stockings", "tights"),
    "footwear": (
        *("boots", "clogs", "flats", "heels", "loafers", "pumps", "sandals", "shoes"),
        *("sneakers", "wedges"),
    ),
    "bag": ("bag", "purse", "wallet"),
    "scarf": ("scarf", "tie"),
    "accessory": (
        *("accessories", "belt", "bracelet", "earrings", "gloves", "necklace", "ring", "watch"),
    ),
}
"""CCP's 59 published names by the group that they are trained as (our grouping)."""

PHRASES: dict[str, tuple[str, ...]] = {
    "background": ("background", "scene without a person"),
    "hat": ("hat", "cap"),
    "hair": ("hair",),
    "glove": ("glove", "gloved hand"),
    "sunglasses": ("sunglasses", "eyeglasses"),
    "glasses": ("glasses", "sunglasses"),
    "upper-clothes": ("shirt", "upper body clothes", "top"),
    "top": ("top", "shirt", "sweater"),
    "dress": ("dress",),
    "coat": ("coat", "jacket"),
    "outerwear": ("jacket", "coat", "cardigan"),
    "socks": ("socks", "stockings"),
    "legwear": ("socks", "tights", "stockings"),
    "pants": ("pants", "trousers", "jeans"),
    "shorts": ("shorts",),
    "jumpsuits": ("jumpsuit", "overalls"),
    "torso-skin": ("bare torso", "neck and chest skin"),
    "scarf": ("scarf",),
    "skirt": ("skirt",),
    "belt": ("belt",),
    "bag": ("bag", "handbag"),
    "accessory": ("fashion accessory", "jewelry", "belt"),
    "footwear": ("shoes", "boots", "high heels"),
    "skin": ("bare skin",),
    "face": ("face",),
    "head": ("head", "face and hair"),
    "torso": ("torso", "chest and belly"),
    "upper-arm": ("upper arm",),
    "lower-arm": ("forearm", "forearm and hand"),
    "upper-leg": ("thigh", "upper leg"),
    "lower-leg": ("lower leg", "shin and foot"),
    "left-arm": ("left arm", "left hand"),
    "right-arm": ("right arm", "right hand"),
    "left-leg": ("left leg",),
    "right-leg": ("right leg",),
    "left-shoe": ("left shoe", "shoe on the left foot"),
    "right-shoe": ("right shoe", "shoe on the right foot"),
}
"""Noun phrases by lower-case class name, for CLIP (ours; the paper's are not known)."""
