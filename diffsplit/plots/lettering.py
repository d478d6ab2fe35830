"""The letters of figures that Pillow draws.

Pillow's own font has neither Greek letters nor signs such as ×, of which labels are full. The one
that matplotlib brings, DejaVu Sans, has them; without it they are written out.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

__all__ = ["FONT_SIZE", "Font", "font", "readable"]

FONT_SIZE = 13
"""Of labels, in pixels."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
WRITTEN_OUT = str.maketrans(
    {"×": "x", "σ": "sigma", "Π": "Pi", "−": "-", "–": "-", "ℓ": "l", "ζ": "zeta", "λ": "lambda"}
)
"""Letters that labels of solvers and tasks have, for a font without them."""


BEYOND = 256
"""From here on letters are not Latin."""


@cache
def font(size: int = FONT_SIZE) -> Font:
    """The font of labels at a size in pixels."""
    file = _with_greek()
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


def readable(text: str) -> str:
    """A label in letters that the font has; "?" stands for one that cannot be written out."""
    if _with_greek() is not None:
        return text
    return "".join(a if ord(a) < BEYOND else "?" for a in text.translate(WRITTEN_OUT))


@cache
def _with_greek() -> Path | None:
    """The file of a font with Greek letters, if there is one. Matplotlib is not imported for it."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return file if file.is_file() else None
