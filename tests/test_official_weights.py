"""The table of official files against the `clip` package and SAM's own naming."""

from __future__ import annotations

import re

import pytest
from clip import clip as clip_package

from schnet.modeling.clip import CLIP_VARIANTS
from schnet.modeling.sam_encoder import SAM_VARIANTS
from schnet.official_weights import (
    OFFICIAL_WEIGHTS,
    Digest,
    digest_in_url,
    file_name_of,
    official_file_named,
)

CLIP_NAMES = {
    "RN50": "clip_rn50",
    "RN101": "clip_rn101",
    "RN50x4": "clip_rn50x4",
    "ViT-B/32": "clip_vit_b32",
    "ViT-B/16": "clip_vit_b16",
    "ViT-L/14": "clip_vit_l14",
}


def test_every_variant_but_ours_has_an_official_file() -> None:
    assert set(CLIP_NAMES) == set(CLIP_VARIANTS) - {"tiny"}
    sam = {f"sam_{name}" for name in SAM_VARIANTS if name != "tiny"}
    assert set(OFFICIAL_WEIGHTS) == {*sam, *CLIP_NAMES.values()}


@pytest.mark.parametrize(("theirs", "ours"), CLIP_NAMES.items())
def test_clip_addresses_are_those_of_its_package(theirs: str, ours: str) -> None:
    assert OFFICIAL_WEIGHTS[ours].url == clip_package._MODELS[theirs]


def test_digests_are_whole_and_differ() -> None:
    digests = [file.sha256 for file in OFFICIAL_WEIGHTS.values()]
    assert len(set(digests)) == len(digests)
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)


def test_sam_files_are_named_and_sized_as_published() -> None:
    for name, file in OFFICIAL_WEIGHTS.items():
        if name.startswith("sam_"):
            assert re.fullmatch(rf"{name}_[0-9a-f]{{6}}\.pth", file.file_name)
            # The encoder's parameters are fp32, and the rest of SAM has some 4 million more.
            width, depth = (getattr(SAM_VARIANTS[name[4:]], n) for n in ("dim", "depth"))
            assert file.size is not None and 1 < file.size / (48 * width**2 * depth) < 1.12


@pytest.mark.parametrize(
    ("url", "digest"),
    [
        (OFFICIAL_WEIGHTS["sam_vit_l"].url, OFFICIAL_WEIGHTS["sam_vit_l"].digest),
        (OFFICIAL_WEIGHTS["clip_rn50"].url, OFFICIAL_WEIGHTS["clip_rn50"].digest),
        ("https://mirror.org/x/sam_vit_h_4b8939.pth?download=1", Digest("md5", "4b8939")),
        (f"https://mirror.org/{'AB' * 32}/x.pt", Digest("sha256", "ab" * 32)),
        ("https://mirror.org/model_123456.pth", None),
        ("https://mirror.org/RN50.pt", None),
        (f"https://mirror.org/x.pt?key=/{'ab' * 32}/", None),
    ],
)
def test_what_an_address_says_of_the_digest(url: str, digest: Digest | None) -> None:
    assert digest_in_url(url) == digest


def test_digest_may_be_its_first_digits() -> None:
    assert Digest("md5", "4b8939").matches("4B8939a88964f0f4ff5f5b2642c598a6")
    assert not Digest("md5", "4b8939").matches("04b8939a88964f0f4ff5f5b2642c598a")


def test_files_are_found_by_their_names() -> None:
    assert official_file_named("RN101.pt") is OFFICIAL_WEIGHTS["clip_rn101"]
    assert official_file_named("sam_vit_b.pth") is None
    assert file_name_of("https://a.org/b/my%20file.pt?x=/y.pt#z") == "my file.pt"
