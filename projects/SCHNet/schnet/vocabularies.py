"""The label lists that other pipelines read, and which published labels each of theirs takes up.

Only what a source says is written down here; a label of which none does is left out, and a remap
names it.

`atr` (18 labels): ATR's own list; labels of the same name are the same part.

`viton` (13): what VITON-HD and HR-VITON group CIHP's 20 labels into, as the table `labels` of both
loaders has it (github.com/shadow2496/VITON-HD, datasets.py, commit 1fa4037;
github.com/sangyun884/HR-VITON, cp_dataset.py, commit 54c9b3c). They put the skin of neck and chest
(label 10, `parse_neck` there) with the background. The loaders read the 20 labels from the file and
group them on their own: they want CIHP's map as it is, and this one is for what comes after.

`viton14` (14): the list of ACGPN's rearranged VITON, as an author gave it
(github.com/switchablenorms/DeepFashion_Try_On, issue 29; 2 and 3 are not used, and an author says
in issue 15 that only these are of the 20). Nobody says which labels are its `noise`.

`ppp` (7): Pascal-Person-Part. The labels that Graphonomy (Gong et al., CVPR 2019;
github.com/Gaoyiminggithub/Graphonomy, networks/graph.py, `cihp2pascal_adj`, commit 366b075) joins
to one of these alone. It joins coat, pants, arms and legs to several, which no label map can tell
apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schnet.data.labels import (
    ATR_LABELS,
    IGNORE_LABEL,
    LIP_CLASSES,
    LIP_PALETTE,
    PPP_LABELS,
    Color,
)

_LIP = dict(zip(LIP_CLASSES, LIP_PALETTE, strict=True))
_UNUSED: Color = (255, 255, 255)


@dataclass(frozen=True)
class Vocabulary:
    """A label list of others.

    Attributes:
        colors: a colour (r, g, b) in 0..255 for each name, in label order.
        members: for each name the published labels that it takes up.
        default: the label of all others: 0, the background, or the ignore label.
    """

    colors: Mapping[str, Color]
    members: Mapping[str, tuple[str, ...]]
    default: int


_SIDED = ("Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe", "Right-shoe")
_VITON: dict[str, tuple[str, ...]] = {
    "background": ("Background", "Torso-skin"),
    "hair": ("Hat", "Hair"),
    "face": ("Sunglasses", "Face"),
    "upper": ("Upper-clothes", "Dress", "Coat"),
    "bottom": ("Pants", "Skirt"),
    **{name.lower().replace("-", "_"): (name,) for name in _SIDED},
    "socks": ("Socks",),
    "noise": ("Glove", "Scarf"),
}
_VITON14: dict[str, tuple[str, ...]] = {
    "background": ("Background",),
    "hair": ("Hair",),
    "unused 2": (),
    "unused 3": (),
    "upper-clothes": ("Upper-clothes",),
    "left-shoe": ("Left-shoe",),
    "right-shoe": ("Right-shoe",),
    "noise": (),
    "pants": ("Pants",),
    "left-leg": ("Left-leg",),
    "right-leg": ("Right-leg",),
    "left-arm": ("Left-arm",),
    "face": ("Face",),
    "right-arm": ("Right-arm",),
}
_PPP: dict[str, tuple[str, ...]] = {
    "Background": ("Background",),
    "Head": ("Hat", "Hair", "Sunglasses", "Face", "Head"),
    "Torso": ("Upper-clothes", "Dress", "Torso-skin", "Scarf", "Skirt", "Torso"),
    "Upper-arm": ("Upper-arm",),
    "Lower-arm": ("Glove", "Lower-arm"),
    "Upper-leg": ("Upper-leg",),
    "Lower-leg": ("Socks", "Left-shoe", "Right-shoe", "Lower-leg"),
}


def _colored(members: Mapping[str, tuple[str, ...]]) -> dict[str, Color]:
    """Give each name LIP's colour of the last label that it takes up."""
    return {
        name: (0, 0, 0) if number == 0 else _LIP[taken[-1]] if taken else _UNUSED
        for number, (name, taken) in enumerate(members.items())
    }


VOCABULARIES: dict[str, Vocabulary] = {
    # The first three are read plane by plane, where 255 would be one too many.
    "atr": Vocabulary(ATR_LABELS, {name: (name,) for name in ATR_LABELS}, 0),
    "viton": Vocabulary(_colored(_VITON), _VITON, 0),
    "viton14": Vocabulary(_colored(_VITON14), _VITON14, 0),
    # Evaluations leave the ignore label out: an arm is no background.
    "ppp": Vocabulary(PPP_LABELS, _PPP, IGNORE_LABEL),
}
"""What `--remap` takes besides a file of one's own, by name."""
