"""The README's table of restoration: linear estimates, DCDP in its versions, and DiffEP.

    python benchmarks/restoration_table.py --data val.zip --images 16 --figure restoration.png

Prints a Markdown table of means over held-out cats at 64×64, and writes a picture of one cat for
each task, each with its own PSNR. DCDP has its preset's settings, and answers with x_K, as its
authors advise, where measurements are noiseless, and with v_K elsewhere. Sharpness is the total
variation over that of the truth: 1 is as sharp as the truth, less is smoother, and residual noise
counts as sharp, too. In latents the data step is on pixels (Approach II) throughout: through the
decoder (Approach I, the paper's choice for super-resolution and inpainting) it takes a thousand
passes of backpropagation, minutes for a few images on a CPU. A prior that is not there is skipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch
from common import (
    SHAPE,
    TASKS,
    Answer,
    Ending,
    add_image_options,
    chosen_images,
    load_priors,
    look,
    machine,
    parser,
    preset,
    prior_for,
    recover,
    restoration,
    restoration_methods,
    streams,
)
from torch import Tensor

import diffsplit as ds
from diffsplit.metrics import psnr, ssim
from diffsplit.plots import measurement_pictures, side_by_side
from diffsplit.solvers import Solver, linear_baseline


def sharpness(x: Tensor, truth: Tensor) -> Tensor:
    """Total variation of each image over that of the truth ``(B,)``."""
    return _variation(x) / _variation(truth)


def _variation(x: Tensor) -> Tensor:
    return x.diff(dim=-1).abs().mean((1, 2, 3)) + x.diff(dim=-2).abs().mean((1, 2, 3))


def print_row(task: str, noise: float, name: str, answer: Answer, truth: Tensor) -> None:
    """One line of the table."""
    quality = psnr(answer.image, truth)
    spread = f" ± {quality.std():.2f}" if len(truth) > 1 else ""
    print(
        f"| {TASKS[task]} | {noise:g} | {name} | {quality.mean():.2f}{spread} | "
        f"{ssim(answer.image, truth).mean():.3f} | {look(answer.image, truth)} | "
        f"{sharpness(answer.image, truth).mean():.2f} | "
        f"{answer.nfe} | {answer.seconds:.1f} |",
        flush=True,
    )


def run(
    task: str, noise: float, x: Tensor, priors: list[ds.Prior], options: argparse.Namespace
) -> list[tuple[str, Tensor]]:
    """The rows of one task; what was measured and all answers, for the picture."""
    problem = restoration(task, noise)
    y = problem.measure(x, generator=streams(len(x), "measure"))
    pictures = [("truth", x), measurement_pictures(problem, y)]
    linear = linear_baseline(problem)
    methods: dict[str, Solver] = {type(linear).__name__: linear}
    for name, solver in restoration_methods(preset(task), SHAPE[1], noise, options.ending).items():
        if options.methods is None or name.startswith(tuple(options.methods)):
            methods[name] = solver
    for name, solver in methods.items():
        prior = prior_for(solver, priors)
        if solver.requires is not None and prior is None:
            continue
        try:
            answer = recover(solver, problem, y, prior)
        except ds.DivergenceError:
            print(f"| {TASKS[task]} | {noise:g} | {name} | diverged | | | | | |", flush=True)
            continue
        print_row(task, noise, name, answer, x)
        pictures.append((name, answer.image))
    return pictures


def panels(task: str, noise: float, pictures: list[tuple[str, Tensor]], index: int) -> Tensor:
    """One cat, side by side: truth, measurements and answers with their PSNR."""
    truth = pictures[0][1][index]
    captions = [TASKS[task].replace("×", "x"), f"measured, noise {noise:g}"]
    for name, images in pictures[2:]:
        captions.append(f"{name} {psnr(images[index, None], truth[None]).item():.1f}")
    cat = [images[index] for _, images in pictures]
    return side_by_side(list(zip(captions, cat, strict=True)), scale=3)


def stacked(rows: list[Tensor]) -> Tensor:
    """Pictures ``(3, H, W)`` below each other, on white."""
    width = max(row.shape[-1] for row in rows)
    pad = torch.nn.functional.pad
    return torch.cat([pad(row, (0, width - row.shape[-1]), value=1.0) for row in rows], 1)


def main() -> None:
    options_of = parser(__doc__)
    add_image_options(options_of, images=16)
    options_of.add_argument("--figure", type=Path, help="also write a picture, a cat for each task")
    default = [task for task in TASKS if task != "gaussian-deblur-widest"]
    options_of.add_argument("--tasks", nargs="+", choices=TASKS, default=default)
    options_of.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.05], help="σ_y")
    options_of.add_argument(
        "--methods", nargs="+", help="only those whose name starts with one of these words"
    )
    options_of.add_argument(
        "--ending",
        choices=get_args(Ending),
        default="adapted",
        help="where DCDP's purification of noisy measurements ends, see DCDP.preset",
    )
    kinds = (ds.Denoiser, ds.ConsistencyModel, ds.LatentModel)
    options_of.add_argument("--priors", nargs="+", default=[kind.example for kind in kinds])
    options = options_of.parse_args()

    x, priors = chosen_images(options), load_priors(options.priors)
    print(f"{machine()}; {len(x)} images; mean ± standard deviation over images\n")
    print("| task | σ_y | method | PSNR (dB) | SSIM | LPIPS | sharpness | evaluations | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[Tensor] = []
    for task in options.tasks:
        for noise in options.noise:
            if task == "denoise" and noise == 0:
                continue
            pictures = run(task, noise, x, priors, options)
            rows.append(panels(task, noise, pictures, len(rows) % len(x)))
    if options.figure is not None:
        ds.save_image(stacked(rows), options.figure)


if __name__ == "__main__":
    main()
