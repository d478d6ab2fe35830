"""The table that closes a recovery: how good, and at what price."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffsplit.cli.common import printable
from diffsplit.metrics import SSIM_WINDOW, psnr, ssim
from diffsplit.problem import Problem
from diffsplit.solvers import Recovery

__all__ = ["Row", "report"]


class Row(NamedTuple):
    """One method: means over the images, None where unknown."""

    method: str
    psnr: float | None
    ssim: float | None
    signs: float | None
    nfe: int
    seconds: float

    @classmethod
    def of(
        cls,
        method: str,
        problem: Problem,
        y: Tensor,
        image: Tensor,
        truth: Tensor | None,
        result: Recovery,
    ) -> Row:
        """Measure ``image`` of a result, clipped to [-1, 1] as a picture file would."""
        shown = image.clamp(-1, 1)
        distortion = similarity = signs = None
        if truth is not None:
            truth = truth.to(shown)
            distortion = psnr(shown, truth).mean().item()
            if min(shown.shape[-2:]) >= SSIM_WINDOW:
                similarity = ssim(shown, truth).mean().item()
        if problem.channel.outcomes is not None:
            signs = problem.sign_consistency(shown, y).mean().item()
        return cls(method, distortion, similarity, signs, result.nfe, result.seconds)


def report(rows: Sequence[Row], title: str) -> None:
    """Print the table; columns that nobody can fill are left out."""
    table = Table("method", title=printable(title), title_justify="left")
    formats = {
        "psnr": ("PSNR (dB)", "{:.2f}"),
        "ssim": ("SSIM", "{:.3f}"),
        "signs": ("sign consistency", "{:.1%}"),
        "nfe": ("NFE", "{}"),
        "seconds": ("seconds", "{:.1f}"),
    }
    shown = [key for key in formats if any(getattr(row, key) is not None for row in rows)]
    for key in shown:
        table.add_column(formats[key][0], justify="right")
    for row in rows:
        values = [(key, getattr(row, key)) for key in shown]
        table.add_row(
            printable(row.method),
            *("–" if value is None else formats[key][1].format(value) for key, value in values),
        )
    console = Console()
    console.print(table)
    console.print("NFE: network evaluations per image.", style="dim")
