"""HTML and SVG as nested calls; text is escaped unless it is markup already."""

from __future__ import annotations

import html

_VOID = frozenset({"br", "img", "link", "meta"})


class Markup(str):
    """Text that is HTML or SVG already, and goes into other markup as it is."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Make text fit for element content and attribute values; markup stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text)))


def join(*parts: object) -> Markup:
    """Put parts one after the other; what is no markup is escaped, and None is left out."""
    return Markup("".join(escape(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Write an element.

    Args:
        name: of the element.
        children: markup, or text, which is escaped; None is left out.
        attributes: by name, `_` standing for `-` and a final `_` for nothing (`class_`). None and
            False leave the attribute out, True gives it without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        words.append(word if value is True else f'{word}="{escape(value)}"')
    start = f"<{' '.join(words)}>"
    return Markup(start if name in _VOID else f"{start}{join(*children)}</{name}>")


def number(value: float) -> str:
    """Write a coordinate in as few digits as a screen can tell apart."""
    return f"{value:.1f}".removesuffix(".0")
