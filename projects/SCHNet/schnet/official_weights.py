"""The official weight files of SAM and CLIP: names, addresses, digests and sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Digest:
    """What a file's bytes must hash to.

    Attributes:
        algorithm: a name of `hashlib`, such as `sha256`.
        start: hexadecimal digits in lower case: the whole digest, or its first digits.
    """

    algorithm: str
    start: str

    def matches(self, found: str) -> bool:
        """Whether a whole hexadecimal digest begins with these digits."""
        return found.lower().startswith(self.start)


@dataclass(frozen=True)
class OfficialFile:
    """A weight file as its authors published it.

    Attributes:
        url: its public address.
        sha256: its SHA-256, 64 hexadecimal digits.
        size: its length in bytes, or None where we know of no public record of it.
    """

    url: str
    sha256: str
    size: int | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return file_name_of(self.url)

    @property
    def digest(self) -> Digest:
        """The SHA-256 as a digest to compare with."""
        return Digest("sha256", self.sha256)


def file_name_of(url: str) -> str:
    """The last part of an address's path, decoded, without what follows a question mark."""
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _sam(file_name: str, sha256: str, size: int) -> OfficialFile:
    url = f"https://dl.fbaipublicfiles.com/segment_anything/{file_name}"
    return OfficialFile(url, sha256, size)


def _clip(file_name: str, sha256: str) -> OfficialFile:
    url = f"https://openaipublic.azureedge.net/clip/models/{sha256}/{file_name}"
    return OfficialFile(url, sha256)


OFFICIAL_WEIGHTS: dict[str, OfficialFile] = {
    "sam_vit_b": _sam(
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        375_042_383,
    ),
    "sam_vit_l": _sam(
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        1_249_524_607,
    ),
    "sam_vit_h": _sam(
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        2_564_550_879,
    ),
    "clip_rn50": _clip(
        "RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"
    ),
    "clip_rn101": _clip(
        "RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"
    ),
    "clip_rn50x4": _clip(
        "RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"
    ),
    "clip_vit_b32": _clip(
        "ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    ),
    "clip_vit_b16": _clip(
        "ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
    ),
    "clip_vit_l14": _clip(
        "ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
    ),
}
"""The official files by our names.

CLIP's addresses and SHA-256, which stand in them, are those of OpenAI's `clip` package
(`clip.clip._MODELS`). SAM's addresses are those of segment_anything's README; its authors publish
only the first six digits of each MD5, in the file's name. SAM's SHA-256 are recorded by two public
projects that do not depend on each other: computational-cell-analytics/micro-sam
(micro_sam/util.py, commit 4d7a406) and mazurowski-lab/SlicerSegmentWithSAM
(SegmentWithSAM/SegmentWithSAM.py, commit 09079a9). The sizes are those of the servers' answers,
which several public projects quote.
"""

# Meta's way, as in sam_vit_b_01ec64.pth; digits behind other names are mostly step counts.
_MD5_IN_NAME = re.compile(r"sam_vit_[a-z]+_([0-9a-f]{6})\.pth")
_SHA256_IN_PATH = re.compile(r"/([0-9a-fA-F]{64})/")


def official_file_named(file_name: str) -> OfficialFile | None:
    """The official file that has this file name, or None."""
    named = (file for file in OFFICIAL_WEIGHTS.values() if file.file_name == file_name)
    return next(named, None)


def digest_in_url(url: str) -> Digest | None:
    """What an address says of the digest of its file, in the ways of SAM's and CLIP's authors.

    Args:
        url: an address; CLIP's have the SHA-256 as a folder, SAM's the first six digits of the MD5
            at the end of the file name. An official address gives the whole SHA-256.

    Returns:
        The digest, or None where the address tells none.
    """
    for file in OFFICIAL_WEIGHTS.values():
        if file.url == url:
            return file.digest
    whole = _SHA256_IN_PATH.search(urlsplit(url).path)
    if whole:
        return Digest("sha256", whole.group(1).lower())
    first = _MD5_IN_NAME.fullmatch(file_name_of(url))
    return Digest("md5", first.group(1)) if first else None
