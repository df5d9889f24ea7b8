"""The ranges of setup.cfg and the pins of requirements.txt."""

from __future__ import annotations

import configparser
import re

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement


def ranges() -> dict[str, Requirement]:
    """What setup.cfg requires of each package, extras included."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name.lower(): requirement for requirement in found}


def test_pins_lie_in_the_ranges() -> None:
    pins = {}
    for file in ("requirements.txt", "requirements-extras.txt"):
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        pins.update(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    pins = {name.lower(): version for name, version in pins.items()}
    for name, requirement in ranges().items():
        assert name in pins and requirement.specifier.contains(pins[name]), name


@pytest.mark.parametrize("version", ["2.0.0", "2.8.2"])
def test_portalocker_tells_a_held_lock_from_a_lock_that_cannot_be(version: str) -> None:
    # Those raise LockException for both, and schnet.file_locks would take a busy folder for a
    # file system without locks.
    assert not ranges()["portalocker"].specifier.contains(version)
    assert ranges()["portalocker"].specifier.contains("2.10.1")
