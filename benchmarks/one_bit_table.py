"""The README's table: few-bit recovery of held-out cats, DiffEP beside Diff-OneBit.

    python benchmarks/one_bit_table.py val.zip --count 92

λ is chosen on the last eight images of the archive, which the table leaves out; without an archive
the bundled cats are used, and the paper's λ alone. With a Gaussian matrix of 4096 rows the Adam
steps of Diff-OneBit take 13 minutes on one core for 92 images, and that for each of two λs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from common import cats, look, machine
from torch import Tensor

import diffsplit as ds
from diffsplit.io.images import from_uint8, load_images
from diffsplit.metrics import psnr, ssim
from diffsplit.solvers import DiffOneBit, Solver

SHAPE = (3, 64, 64)


def problems() -> dict[str, ds.Problem]:
    gaussian, randomized = ds.operators.GaussianMatrix, ds.operators.RandomizedTransform
    bit, logistic = ds.channels.OneBit(sigma=0.5), ds.channels.Logistic()
    mask = ds.operators.PixelMask(SHAPE, fraction=0.5, seed=0)
    table = {"1-bit inpainting, 50 %": ds.Problem(mask, bit)}
    for rows in (768, 4096):
        table[f"1-bit CS, Hadamard, M = {rows}"] = ds.Problem(randomized(SHAPE, rows, 0), bit)
        table[f"logistic, Hadamard, M = {rows}"] = ds.Problem(randomized(SHAPE, rows, 0), logistic)
    for rows in (768, 4096):
        table[f"1-bit CS, Gaussian, M = {rows}"] = ds.Problem(gaussian(SHAPE, rows, 0), bit)
    return table


def seeded(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def best_lambda(
    solver: DiffOneBit, lambdas: list[float], problem: ds.Problem, x: Tensor, prior: ds.Prior
) -> float:
    """The λ of the highest mean PSNR on images that the table does not use."""
    y = problem.measure(x, generator=seeded(1))
    scores = {
        lam: psnr(replace(solver, lam=lam)(problem, y, prior).image, x).mean().item()
        for lam in lambdas
    }
    return max(scores, key=lambda lam: scores[lam])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", nargs="?", type=Path, help="folder or zip of held-out images")
    parser.add_argument("--count", type=int, default=32, help="images in the table")
    lambdas = [0.005, 0.02, 0.05, 0.1, 0.5, 2.0, 5.0]
    parser.add_argument("--lambdas", type=float, nargs="+", default=lambdas, help="to choose from")
    parser.add_argument("--problems", default="", help="only those whose name has this in it")
    arguments = parser.parse_args()
    held_out = from_uint8(load_images(arguments.archive, 64)) if arguments.archive else cats()
    tuning = held_out[-8:] if arguments.archive else None
    rest = held_out[:-8] if arguments.archive else held_out
    x = rest[:: max(1, len(rest) // arguments.count)][: arguments.count]
    wanted = {name: p for name, p in problems().items() if arguments.problems in name}
    if not wanted:
        parser.error(f"no problem has {arguments.problems!r} in its name.")
    prior = ds.load_prior("cats-64")

    print(f"{machine()}; {len(x)} images; mean ± standard deviation over images\n")
    print("| problem | method | PSNR (dB) | SSIM | LPIPS | evaluations | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, problem in wanted.items():
        paper = DiffOneBit(lam=1.0 if "inpainting" in name else 0.02)
        exact = replace(paper, data_step="exact")
        solvers: dict[str, Solver] = {
            "DiffEP": ds.solvers.DiffEP(),
            "DiffEP, one sample": ds.solvers.DiffEP(output="sample"),
            f"Diff-OneBit, as in the paper (λ {paper.lam:g})": paper,
        }
        if tuning is not None:
            for label, solver in (("Adam", paper), ("exact data step", exact)):
                lam = best_lambda(solver, arguments.lambdas, problem, tuning, prior)
                solvers[f"Diff-OneBit, {label} (best λ {lam:g})"] = replace(solver, lam=lam)
        y = problem.measure(x, generator=seeded(0))
        for method, solver in solvers.items():
            result = solver(problem, y, prior, generator=seeded(2))
            quality = psnr(result.image, x)
            print(
                f"| {name} | {method} | {quality.mean():.2f} ± {quality.std():.2f} | "
                f"{ssim(result.image, x).mean():.3f} | {look(result.image, x)} | {result.nfe} | "
                f"{result.seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
