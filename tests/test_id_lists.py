"""Id lists as the official downloads have them."""

from __future__ import annotations

import codecs

import pytest

from schnet.data.id_lists import decode_ids, parse_ids
from schnet.errors import InputError


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a\nb\n", ("a", "b")),
        ("a.jpg\r\n\r\n  b.b.png \n", ("a", "b.b")),
        ("/JPEGImages/2008_1.jpg\n2008_1\n", ("2008_1",)),
        ("A.JPG\n", ("A",)),
        ("10.5\n", ("10.5",)),
        ("", ()),
    ],
)
def test_id_lists(text: str, ids: tuple[str, ...]) -> None:
    assert parse_ids(text) == ids


def test_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert decode_ids(codecs.BOM_UTF8 + b"1\n2\n", "x") == ("1", "2")


@pytest.mark.parametrize(
    ("content", "told"),
    [("a\n".encode("utf-16"), r"train_id\.txt is no UTF-8 text"), (b"\n", "names no image")],
)
def test_unusable_lists_are_named(content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        decode_ids(content, "lip/train_id.txt")
