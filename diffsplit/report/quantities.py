"""The quantities of a table: their names, which direction is better, and how they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["EVALUATIONS", "SECONDS", "Quantity", "quantity", "three_digits"]


@dataclass(frozen=True)
class Quantity:
    """A measured number.

    Attributes:
        name: its key in `Entry.values`.
        title: in the head of a table.
        better: 1 if more is better, -1 if less is, 0 if neither.
        digits: after the point; None for three significant ones.
        spread: whether its standard deviation says something. A solver takes the same time and
            number of evaluations for each image of a batch.
    """

    name: str
    title: str
    better: int = 0
    digits: int | None = 3
    spread: bool = True

    @property
    def heading(self) -> str:
        """The title with an arrow to the better side."""
        return self.title + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def text(self, value: float) -> str:
        """The number as it is written in a table."""
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        text = three_digits(value) if self.digits is None else f"{value:.{self.digits}f}"
        return text.replace("-", "−")

    def rounded(self, value: float) -> float:
        """The number that is written in a table; two that read alike are alike."""
        if not math.isfinite(value):
            return value
        return float(self.text(value).replace("−", "-"))


def three_digits(value: float) -> str:
    """Three significant digits without an exponent; whole numbers up to a million as they are."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


EVALUATIONS = Quantity("nfe", "evaluations", -1, None, spread=False)
SECONDS = Quantity("seconds", "seconds", -1, None, spread=False)

_KNOWN = {
    known.name: known
    for known in (
        Quantity("psnr", "PSNR (dB)", 1, 2),
        Quantity("ssim", "SSIM", 1),
        Quantity("lpips", "LPIPS", -1),
        Quantity("lpips_alex", "LPIPS (AlexNet)", -1),
        Quantity("lpips_vgg", "LPIPS (VGG)", -1),
        Quantity("fid", "FID", -1, 2),
        Quantity("sign_consistency", "sign consistency", 1),
        Quantity("cosine", "cosine similarity", 1),
        Quantity("norm_error", "relative norm error", -1),
        Quantity("sharpness", "sharpness", 0, 2),
        Quantity("bits_per_pixel", "bits per pixel", 0, None),
        Quantity("predicted_error", "predicted error", 0, None),
        Quantity("predicted_ratio", "predicted/true error", 0, 2),
        Quantity("squared_error", "squared error", -1, None),
        Quantity("converged", "converged", 1),
        Quantity("coverage", "coverage", 0),
        Quantity("coverage_hidden", "coverage, hidden", 0),
        Quantity("operator_calls", "operator calls", -1, None, spread=False),
        Quantity("peak_memory", "peak memory (MB)", -1, None, spread=False),
        EVALUATIONS,
        SECONDS,
    )
}


def quantity(name: str) -> Quantity:
    """The quantity of that name; one that is not known here is shown under its name, unranked."""
    return _KNOWN.get(name) or Quantity(name, name.replace("_", " "), 0, None)
