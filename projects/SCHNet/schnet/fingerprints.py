"""What a frozen base is: where its weights came from, and a digest of their values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch

SHOWN_DIGITS = 12


@dataclass(frozen=True)
class BaseSource:
    """Where a base's weights came from.

    Attributes:
        key: the config key that names them, such as `MODEL.SAM.WEIGHTS`.
        weights: its value: a path, a URL or an official name.
        variant: what the base is, such as `SAM vit_l`.
        fingerprint: of the values that were loaded, see `fingerprint`.
    """

    key: str
    weights: str
    variant: str
    fingerprint: str

    def __str__(self) -> str:
        """Such as `SAM vit_l of sam_vit_l (fingerprint 0b3195507c64)`."""
        return f"{self.variant} of {self.weights} (fingerprint {self.fingerprint[:SHOWN_DIGITS]})"

    def as_dict(self) -> dict[str, str]:
        """The attributes by name, for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, str]) -> BaseSource:
        """Take the attributes out of a file's entry.

        Raises:
            KeyError: one is missing.
        """
        return cls(**{field.name: str(content[field.name]) for field in fields(cls)})


def fingerprint(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, shapes and values of a state dict, whatever file it came from.

    Values count as fp32, so that an fp16 archive and its fp32 copy are the same base. Names are
    taken in alphabetical order. 1.2 GB take about two seconds.

    Args:
        state: tensors by name, of any type and device.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().to("cpu", torch.float32).contiguous()
        # The zero byte ends the name, and the shape tells how many values follow.
        digest.update(f"{name}\0{tuple(values.shape)}\0".encode())
        digest.update(values.numpy().reshape(-1).data)
    return digest.hexdigest()
