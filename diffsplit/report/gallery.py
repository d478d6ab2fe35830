"""The pictures of a run: truth, measurement, and for each method its answer, error and deviation.

The error map is |answer − truth| and the other one the posterior standard deviation, each as the
root of the mean square over the channels. Both are drawn on one scale for all methods of an image,
so that they compare: black is 0, and white the 99th percentile of the error of the median method,
so that one method that fails does not leave the maps of the others black.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from diffsplit import plots
from diffsplit.bench.compute import WHITE_STD
from diffsplit.bench.store import Entry
from diffsplit.io.images import from_uint8, to_uint8
from diffsplit.plots.grids import caption_width
from diffsplit.report.source import Results
from diffsplit.report.summary import Summary

__all__ = ["Answer", "Shown", "figure", "gallery", "overview", "png"]

GRAY_LEVELS = 127.5
"""Gray levels of an 8-bit image in one unit of [-1, 1]."""


@dataclass(frozen=True)
class Answer:
    """What one method made of an image: pictures uint8 ``(C, H, W)``; maps have one channel."""

    entry: Entry
    picture: Tensor
    error: Tensor | None
    std: Tensor | None


@dataclass(frozen=True)
class Shown:
    """One image of one task.

    Attributes:
        truth, measurement: uint8 ``(C, H, W)``; None where they were not kept.
        top: gray levels that the maps show white; None without maps.
    """

    row: str
    image: str
    truth: Tensor | None
    measurement: Tensor | None
    answers: tuple[Answer, ...]
    top: float | None


def gallery(results: Results, summary: Summary, most: int) -> list[Shown]:
    """The first images of every task of which pictures were kept, of the first seed of each."""
    found: list[Shown] = []
    for row in summary.facts.rows:
        by_image: dict[str, dict[str, Entry]] = {}
        for cell in summary.of_row(row):
            for entry in cell.done:
                by_image.setdefault(entry.image, {}).setdefault(entry.solver, entry)
        count = 0
        for image, entries in by_image.items():
            if count == most:
                break
            kept = [(entry, results.pictures(entry.key)) for entry in entries.values()]
            kept = [(entry, pictures) for entry, pictures in kept if "answer" in pictures]
            if kept:
                found.append(_shown(row, image, kept))
                count += 1
    return found


def _shown(row: str, image: str, kept: Sequence[tuple[Entry, Mapping[str, Tensor]]]) -> Shown:
    all_of_them: dict[str, Tensor] = {}
    for _, pictures in reversed(kept):
        all_of_them |= pictures
    truth = all_of_them.get("truth")
    errors = [
        _error(pictures["answer"], truth)
        if truth is not None and truth.shape == pictures["answer"].shape
        else None
        for _, pictures in kept
    ]
    stds = [_deviation(pictures.get("std")) for _, pictures in kept]
    known = [m for m in errors if m is not None] or [m for m in stds if m is not None]
    top = median_low([_percentile(m) for m in known]) if known else None
    answers = tuple(
        Answer(entry, pictures["answer"], _gray(error, top), _gray(std, top))
        for (entry, pictures), error, std in zip(kept, errors, stds, strict=True)
    )
    levels = None if top is None else GRAY_LEVELS * top
    return Shown(row, image, truth, all_of_them.get("measurement"), answers, levels)


def _error(answer: Tensor, truth: Tensor) -> Tensor:
    """|answer − truth| on [-1, 1] as a batch of one."""
    return (from_uint8(answer) - from_uint8(truth)).abs()[None]


def _deviation(std: Tensor | None) -> Tensor | None:
    """A stored deviation, 255 for `WHITE_STD`, in units of [-1, 1], as a batch of one."""
    return None if std is None else std[None].float() * (WHITE_STD / 255)


def _percentile(values: Tensor) -> float:
    """The 99th percentile of a map over its pixels."""
    flat = values.square().mean(1).sqrt().flatten()
    return max(float(flat.kthvalue(max(1, round(0.99 * len(flat)))).values), 1 / GRAY_LEVELS)


def _gray(values: Tensor | None, top: float | None) -> Tensor | None:
    return None if values is None else to_uint8(plots.std_map(values, top)[0, :1])


def figure(shown: Sequence[Shown], solvers: Sequence[str], maps: bool = True) -> Tensor:
    """A grid for papers: images across; truth, measurement and each method with its maps down.

    Args:
        shown: images of one task, of one size.
        solvers: the methods, in order.
        maps: whether the error and the deviation of each answer are shown.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1].
    """
    size = shown[0].answers[0].picture.shape[-2:]
    rows: list[tuple[str, list[Tensor | None]]] = [
        ("truth", [one.truth for one in shown]),
        ("measurement", [one.measurement for one in shown]),
    ]
    for solver in solvers:
        answers = [
            next((a for a in one.answers if a.entry.solver == solver), None) for one in shown
        ]
        rows.append((solver, [None if a is None else a.picture for a in answers]))
        if not maps:
            continue
        rows.append(("   error", [None if a is None else a.error for a in answers]))
        rows.append(("   deviation", [None if a is None else a.std for a in answers]))
    full = [
        (_folded(label), torch.stack([_fitted(picture, size) for picture in pictures]))
        for label, pictures in rows
        if any(picture is not None for picture in pictures)
    ]
    return plots.comparison(full, scale=_scale(size))


def overview(shown: Sequence[Shown]) -> Tensor:
    """One line a task: an image, its measurement, and the answer of each method with its PSNR.

    Args:
        shown: an image of each task.

    Returns:
        The figure ``(3, H', W')`` on [-1, 1].
    """
    lines = []
    for one in shown:
        size = one.answers[0].picture.shape[-2:]
        panels = [("truth", one.truth), ("measurement", one.measurement)]
        for answer in one.answers:
            quality = answer.entry.values.get("psnr")
            number = "" if quality is None else f" {quality:.1f}"
            panels.append((f"{answer.entry.solver}{number}", answer.picture))
        lines.append([(label, _fitted(picture, size)) for label, picture in panels])
    least = max(caption_width(label) for line in lines for label, _ in line)
    drawn = [
        plots.side_by_side(line, _scale(line[0][1].shape[-2:]), title=one.row, least=least)
        for line, one in zip(lines, shown, strict=True)
    ]
    width = max(line.shape[-1] for line in drawn)
    return torch.cat([pad(line, (0, width - line.shape[-1]), value=1.0) for line in drawn], 1)


def _scale(size: torch.Size) -> int:
    """By which small pictures are enlarged."""
    return max(1, round(128 / size[-1]))


def _fitted(picture: Tensor | None, size: torch.Size) -> Tensor:
    """A picture ``(3, H, W)`` on [-1, 1] of that size; white where there is none."""
    if picture is None:
        return torch.ones(3, *size)
    values = from_uint8(picture)[None]
    return interpolate(values, tuple(size), mode="nearest")[0].expand(3, -1, -1)


def _folded(label: str, width: int = 20) -> str:
    """A label in two lines if it is long, cut where it is longer still."""
    first, second = label[:width], label[width : 2 * width]
    return f"{first}\n{second}" if second else first


def png(picture: Tensor) -> bytes:
    """A picture uint8 ``(C, H, W)`` as a PNG file: gray for one channel, RGB for three."""
    array = picture.permute(1, 2, 0).cpu().contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(
        file, "PNG", optimize=True
    )
    return file.getvalue()
