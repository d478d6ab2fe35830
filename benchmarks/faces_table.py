"""Faces at 256×256: few bits and restoration, beside the values that the papers print.

    python benchmarks/faces_table.py --data FACES.zip --images 10 --half --figure faces.jpg
    python benchmarks/faces_table.py --data FACES.zip --rows logistic,box --methods DiffEP

Prints a Markdown table to standard output, each line as soon as it is known, and its progress to
standard error. Few bits are M/N = 1/16 of random sums of the pixels, by a randomized transform, or
half of the pixels; `--matrix` adds the papers' Gaussian matrix, of 4.8 GB, which takes minutes.
Restoration has the kernels and the box of the DCDP paper, whose numbers are noiseless.

Printed values are those of the papers for FFHQ: Diff-OneBit's Tables I, III and IV, and DCDP's
Tables 9 and 10. They are means over 100 images, and for another prior. "Gaussian" is the
closed-form prior with no network: that on which the prior's network stands, unless `--prior` names
one. The last column is DiffEP's predicted over its true squared error, the mean over the images and
their range.

With several priors each method takes the first one of its kind, and a method without one is left
out. No face is bundled: without `--data` nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from common import (
    Answer,
    Ending,
    load_priors,
    look,
    machine,
    parser,
    prior_for,
    recover,
    restoration_methods,
    spread,
    streams,
)
from torch import Tensor

import diffsplit as ds
from diffsplit.io.images import from_uint8, load_images
from diffsplit.metrics import psnr, ssim
from diffsplit.plots import comparison, measurement_pictures
from diffsplit.priors import GaussianSpectrum, ResidualPrior
from diffsplit.priors.patched import PatchedUNet
from diffsplit.solvers import DiffEP, DiffOneBit, Solver, linear_baseline

SHAPE = (3, 256, 256)
NOISE = 0.05
"""σ_y of the noisy rows of restoration."""
FIGURE_IMAGES = 8
GAUSSIAN = "DiffEP, Gaussian"
"""The method whose prior is the closed form."""


class Row(NamedTuple):
    """One problem.

    Attributes:
        label: in the table.
        problem: makes it, for it may be large.
        methods: by name.
        printed: of each method of a paper PSNR, SSIM, LPIPS and its network evaluations.
    """

    label: str
    problem: Callable[[], ds.Problem]
    methods: dict[str, Solver]
    printed: dict[str, tuple[str, ...]]


BITS = {
    "onebit": ("1-bit CS, σ 0.5", ds.channels.OneBit(0.5), "22.05 ± 1.88", "0.64", "0.34"),
    "onebit-noisy": ("1-bit CS, σ 1.5", ds.channels.OneBit(1.5), "20.25 ± 1.01", "0.53", "0.44"),
    "logistic": ("logistic", ds.channels.Logistic(), "19.99 ± 1.94", "0.56", "0.42"),
}
INPAINTING = "20.89 ± 1.29", "0.61", "0.38", "20"
RESTORATION = {
    "super-resolution": "×4, bicubic",
    "inpaint-box": "box 100×100",
    "gaussian-deblur": "Gaussian blur 61×61, std 3",
    "motion-deblur": "motion blur 61×61",
}
"""Tasks of `diffsplit.tasks`, which has the DCDP paper's lengths at this size."""
DCDP_PRINTED: dict[str, dict[str, tuple[str, ...]]] = {
    "super-resolution": {
        "DCDP, V1": ("29.43 ± 2.01", "0.844", "0.154", "181"),
        "DCDP, V2": ("30.86 ± 2.11", "0.878", "0.185", "10"),
        "latent DCDP, V1": ("29.16 ± 1.65", "0.826", "0.183", "–"),
        "latent DCDP, V2": ("30.61 ± 1.97", "0.866", "0.215", "–"),
    },
    "inpaint-box": {
        "DCDP, V1": ("25.54 ± 3.01", "0.917", "0.052", "381"),
        "DCDP, V2": ("28.02 ± 2.74", "0.935", "0.051", "20"),
        "latent DCDP, V1": ("26.50 ± 2.20", "0.860", "0.166", "–"),
        "latent DCDP, V2": ("27.47 ± 2.05", "0.868", "0.204", "–"),
    },
    "gaussian-deblur": {
        "DCDP, V1": ("30.41 ± 1.93", "0.864", "0.140", "181"),
        "DCDP, V2": ("31.67 ± 2.12", "0.891", "0.173", "10"),
        "latent DCDP, V1": ("28.91 ± 1.98", "0.825", "0.198", "–"),
        "latent DCDP, V2": ("30.45 ± 1.86", "0.877", "0.171", "–"),
    },
    "motion-deblur": {
        "DCDP, V1": ("37.56 ± 1.77", "0.963", "0.051", "381"),
        "DCDP, V2": ("38.37 ± 1.88", "0.970", "0.060", "20"),
        "latent DCDP, V1": ("30.11 ± 1.93", "0.851", "0.152", "–"),
        "latent DCDP, V2": ("31.48 ± 1.94", "0.894", "0.108", "–"),
    },
}
"""Evaluations of the printed values are those of the paper's settings."""


@cache
def matrix() -> ds.operators.GaussianMatrix:
    """The papers' matrix, in half precision, drawn once for all rows."""
    print("drawing the Gaussian matrix", file=sys.stderr, flush=True)
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    return ds.operators.GaussianMatrix(SHAPE, rows=size // 16, seed=0, dtype=torch.float16)


def bit_methods() -> dict[str, Solver]:
    """Each method for few bits by name."""
    return {
        "DiffEP": DiffEP(),
        "DiffEP, one sample": DiffEP(output="sample"),
        "Diff-OneBit, exact step": DiffOneBit(data_step="exact"),
        GAUSSIAN: DiffEP(),
    }


def table(with_matrix: bool, ending: Ending) -> dict[str, Row]:
    """Every row by its name."""
    rows: dict[str, Row] = {}
    transform = ds.operators.RandomizedTransform(
        SHAPE, rows=SHAPE[0] * SHAPE[1] * SHAPE[2] // 16, seed=0
    )
    for name, (label, channel, *printed) in BITS.items():
        paper = {"Diff-OneBit": (*printed, "20")}
        made: Callable[[], ds.Problem] = partial(ds.Problem, transform, channel)
        rows[name] = Row(f"{label}, transform", made, bit_methods(), paper)
    inpainting = partial(ds.tasks.problem, "onebit-inpainting", SHAPE)
    rows["onebit-inpainting"] = Row(
        "1-bit inpainting 50 %, σ 0.5", inpainting, bit_methods(), {"Diff-OneBit": INPAINTING}
    )
    for noise in (0.0, NOISE):
        for task, label in RESTORATION.items():
            made = partial(ds.tasks.problem, task, SHAPE, sigma=noise)
            baseline = linear_baseline(made())
            methods: dict[str, Solver] = {
                type(baseline).__name__: baseline,
                **restoration_methods(task, SHAPE[1], noise, ending),
                GAUSSIAN: DiffEP(),
            }
            name, printed_here = (f"{task}-noisy", {}) if noise else (task, DCDP_PRINTED[task])
            rows[name] = Row(f"{label}, σ_y {noise:g}", made, methods, printed_here)
    for name, (label, channel, *printed) in BITS.items() if with_matrix else ():

        def with_gaussian_matrix(channel: ds.channels.Channel = channel) -> ds.Problem:
            return ds.Problem(matrix(), channel)

        paper = {"Diff-OneBit": (*printed, "20")}
        rows[f"{name}-matrix"] = Row(
            f"{label}, Gaussian matrix", with_gaussian_matrix, bit_methods(), paper
        )
    return rows


def gaussian_of(priors: list[ds.Prior]) -> GaussianSpectrum | None:
    """The closed-form prior that was given, or that a given network stands on."""
    for prior in priors:
        if isinstance(prior, GaussianSpectrum):
            return prior
    return next((prior.gaussian for prior in priors if isinstance(prior, ResidualPrior)), None)


def print_line(label: str, method: str, answer: Answer, truth: Tensor) -> None:
    """One line of the table."""
    quality = psnr(answer.image, truth)
    deviation = f" ± {quality.std():.2f}" if len(truth) > 1 else ""
    predicted = "–"
    if answer.predicted_error is not None:
        ratio = answer.predicted_error / (answer.image - truth).flatten(1).square().mean(1)
        predicted = f"{ratio.mean():.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
    print(
        f"| {label} | {method} | {quality.mean():.2f}{deviation} | "
        f"{ssim(answer.image, truth).mean():.3f} | {look(answer.image, truth)} | {answer.nfe} | "
        f"{answer.seconds:.1f} | {predicted} |",
        flush=True,
    )


def run(
    row: Row, x: Tensor, priors: list[ds.Prior], options: argparse.Namespace
) -> list[tuple[str, Tensor]]:
    """The lines of one problem; truth, measurements and answers, for the picture."""
    problem = row.problem()
    y = problem.measure(x, generator=streams(len(x), "measure"))
    measured, picture = measurement_pictures(problem, y)
    pictures = [("truth", x), (measured, picture.clamp(-1, 1))]
    for method, (*printed, evaluations) in row.printed.items():
        values = " | ".join(printed)
        print(f"| {row.label} | {method}, printed | {values} | {evaluations} | – | – |", flush=True)
    for method, solver in row.methods.items():
        plain = method.replace(",", "")
        if options.methods and not plain.startswith(tuple(options.methods)):
            continue
        closed = method == GAUSSIAN
        prior = gaussian_of(priors) if closed else prior_for(solver, priors)
        if solver.requires is not None and prior is None:
            continue
        print(f"{row.label}: {method}", file=sys.stderr, flush=True)
        try:
            answer = recover(solver, problem, y, prior, options.batch)
        except ds.DivergenceError:
            print(f"| {row.label} | {method} | diverged | | | | | |", flush=True)
            continue
        print_line(row.label, method, answer, x)
        pictures.append((f"{method}\n{psnr(answer.image, x).mean():.1f} dB", answer.image))
    return pictures


def figure(pictures: list[tuple[str, Tensor]], side: int) -> Tensor:
    """A line a method, a column a face, each reduced to ``side`` pixels."""
    reduced = [
        (
            label.replace(", ", ",\n").replace("×", "x"),
            torch.nn.functional.interpolate(
                images[:FIGURE_IMAGES], (side, side), mode="area"
            ).clamp(-1, 1),
        )
        for label, images in pictures
    ]
    return comparison(reduced, scale=1, label_width=110)


def names(text: str) -> list[str]:
    """Of an option that takes several, with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--data", type=Path, help="folder or zip of held-out faces")
    options_of.add_argument("--images", type=int, default=10, help="how many (default 10)")
    options_of.add_argument(
        "--prior", nargs="+", default=["faces-256"], help="names or folders, see above"
    )
    options_of.add_argument("--rows", type=names, default=[], help="their names; all by default")
    options_of.add_argument(
        "--methods",
        type=names,
        default=[],
        help="those whose name starts so, without its commas: 'DCDP V2,DiffEP'; all by default",
    )
    options_of.add_argument(
        "--figure", type=Path, help="also write a picture of each row: NAME.jpg as NAME-ROW.jpg"
    )
    options_of.add_argument("--side", type=int, default=128, help="of a face in it (default 128)")
    options_of.add_argument("--batch", type=int, default=5, help="faces at once (default 5)")
    options_of.add_argument(
        "--half", action="store_true", help="networks of pixels compute in bfloat16"
    )
    options_of.add_argument("--matrix", action="store_true", help="add the Gaussian matrix")
    options_of.add_argument(
        "--ending", choices=get_args(Ending), default="adapted", help="see DCDP.preset"
    )
    options = options_of.parse_args()
    if options.data is None:
        print("No face is bundled; give some with --data.", file=sys.stderr)
        return
    rows = table(options.matrix, options.ending)
    if unknown := [name for name in options.rows if name not in rows]:
        options_of.error(f"no row is named {', '.join(unknown)}; there are {', '.join(rows)}.")
    if min(options.images, options.batch, options.side) < 1:
        options_of.error("--images, --batch and --side are at least 1.")
    x = spread(from_uint8(load_images(options.data, SHAPE[1])), options.images)
    priors = load_priors(options.prior)
    for prior in priors:
        if options.half and isinstance(prior, PatchedUNet):
            ds.load_prior(prior, dtype=torch.bfloat16)

    print(f"{machine()}; {len(x)} faces; mean ± standard deviation over images\n")
    print(
        "| problem | method | PSNR (dB) | SSIM | LPIPS | evaluations | seconds | predicted/true |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.rows or rows:
        pictures = run(rows[name], x, priors, options)
        if options.figure is not None:
            path = options.figure.with_stem(f"{options.figure.stem}-{name}")
            ds.save_image(figure(pictures, options.side), path)
            print(f"{name}: {path}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
