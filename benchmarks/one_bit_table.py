"""The README's table: few-bit recovery of held-out cats, DiffEP beside Diff-OneBit.

    python benchmarks/one_bit_table.py --data val.zip --images 92

The paper of Diff-OneBit does not say how its noise levels are spaced: the rows have both spacings.
λ is chosen on the last eight images of the data, which the table leaves out; without data the
bundled cats are used, and the paper's λ alone. With a Gaussian matrix of 4096 rows the Adam steps
of Diff-OneBit take 13 minutes on one core for 92 images, and that for each row of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from common import SHAPE, add_image_options, held_out, look, machine, one_bit, parser, spread
from torch import Tensor

import diffsplit as ds
from diffsplit.metrics import psnr, ssim
from diffsplit.noise import seeded
from diffsplit.schedules import Spacing
from diffsplit.solvers import DiffEP, DiffOneBit, Solver

LAMBDAS = [0.005, 0.02, 0.05, 0.1, 0.5, 2.0, 5.0]
TUNING = 8


def problems() -> dict[str, ds.Problem]:
    table = {"1-bit inpainting, 50 %": ds.tasks.problem("onebit-inpainting", SHAPE)}
    for rows in (768, 4096):
        logistic = ds.tasks.problem("logistic", SHAPE, rows=rows, operator="hadamard")
        table[f"1-bit CS, Hadamard, M = {rows}"] = one_bit(rows, "hadamard")
        table[f"logistic, Hadamard, M = {rows}"] = logistic
    for rows in (768, 4096):
        table[f"1-bit CS, Gaussian, M = {rows}"] = one_bit(rows, "gaussian")
    return table


def best_lambda(
    solver: DiffOneBit, lambdas: list[float], problem: ds.Problem, x: Tensor, prior: ds.Prior
) -> float:
    """The λ of the highest mean PSNR on images that the table does not use."""
    y = problem.measure(x, generator=seeded(0, "tune"))
    scores = {
        lam: psnr(replace(solver, lam=lam)(problem, y, prior).image, x).mean().item()
        for lam in lambdas
    }
    return max(scores, key=lambda lam: scores[lam])


def main() -> None:
    options_of = parser(__doc__)
    add_image_options(options_of, images=32)
    options_of.add_argument(
        "--lambdas",
        type=float,
        nargs="*",
        default=LAMBDAS,
        help="to choose from; none: the paper's",
    )
    spacings = get_args(Spacing)
    options_of.add_argument("--spacings", nargs="+", choices=spacings, default=spacings)
    options_of.add_argument("--problems", default="", help="only those whose name has this in it")
    options = options_of.parse_args()
    wanted = {name: p for name, p in problems().items() if options.problems in name}
    if not wanted:
        options_of.error(f"no problem has {options.problems!r} in its name.")
    x, tuning = held_out(options), None
    if options.data is not None:
        x, tuning = x[:-TUNING], x[-TUNING:]
    x, prior = spread(x, options.images), ds.load_prior("cats-64")

    print(f"{machine()}; {len(x)} images; mean ± standard deviation over images\n")
    print("| problem | method | PSNR (dB) | SSIM | LPIPS | evaluations | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, problem in wanted.items():
        solvers: dict[str, Solver] = {
            "DiffEP": DiffEP(),
            "DiffEP, one sample": DiffEP(output="sample"),
        }
        for spacing in options.spacings:
            paper = DiffOneBit(spacing=spacing)
            label = f"Diff-OneBit, {spacing} levels"
            solvers[f"{label} (λ {paper.weight(problem):g} of the paper)"] = paper
            if tuning is None or not options.lambdas:
                continue
            for step, chosen in (("", paper), (", exact step", replace(paper, data_step="exact"))):
                lam = best_lambda(chosen, options.lambdas, problem, tuning, prior)
                solvers[f"{label}{step} (best λ {lam:g})"] = replace(chosen, lam=lam)
        y = problem.measure(x, generator=seeded(0, "measure"))
        for method, solver in solvers.items():
            result = solver(problem, y, prior, generator=seeded(0, "recover"))
            quality = psnr(result.image, x)
            print(
                f"| {name} | {method} | {quality.mean():.2f} ± {quality.std():.2f} | "
                f"{ssim(result.image, x).mean():.3f} | {look(result.image, x)} | {result.nfe} | "
                f"{result.seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
