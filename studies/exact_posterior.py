"""How far every solver is from a posterior that is known: the prior is a Gaussian.

Signals of 1×32×32 whose variances fall with frequency as 1/(1 + f)^p: the larger p, the stronger
the prior; 2 is that of pictures. With Gaussian noise the posterior is Gaussian; with single bits
its mean is the average of a Gibbs sampler (Albert and Chib 1993). Prints 10 log10 of the mean
squared error over that of the exact posterior mean: 0 is the best that any method can do, and an
exact posterior sample has 3.0. The denoiser is exact, so that what is left is the method's own.
Steps are those of docs/comparison.md; "literal" reads bits as numbers, as the 1-bit papers do.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from common import parser
from torch import Tensor

import diffsplit as ds
from diffsplit import operators, solvers
from diffsplit.devices import machine
from diffsplit.noise import seeded
from diffsplit.priors import GaussianPrior

SIDE, SIGNALS = 32, 32
SHAPE = (1, SIDE, SIDE)
SIZE = SIDE**2
ROUNDS = 4000
BIT_NOISE, NOISE = 0.5, 0.05

SOLVERS: dict[str, Callable[[ds.Problem], ds.solvers.Solver]] = {
    "DiffEP": solvers.DiffEP.for_problem,
    "Diff-OneBit": solvers.DiffOneBit.for_problem,
    "DCDP, V2": lambda problem: solvers.DCDP.for_problem(problem, purifier="tweedie"),
    "DCDP, V1": lambda problem: solvers.DCDP.for_problem(problem, purifier="ddim"),
    "DPS": lambda problem: solvers.DPS.for_problem(problem, steps=100),
    "DPS, literal": lambda problem: solvers.DPS.for_problem(problem, steps=100, reading="literal"),
    "MCG": lambda problem: solvers.MCG.for_problem(problem, steps=100),
    "ΠGDM": lambda problem: solvers.PiGDM.for_problem(problem, weight="adaptive"),
    "DiffPIR": solvers.DiffPIR.for_problem,
    "DiffPIR, literal": lambda problem: solvers.DiffPIR.for_problem(problem, reading="literal"),
    "DAPS": lambda problem: solvers.DAPS.for_problem(problem, levels=20),
    "ADMM-PnP": solvers.PnPADMM.for_problem,
    "RED-diff": lambda problem: solvers.RedDiff.for_problem(problem, steps=100),
    "DDRM": solvers.DDRM.for_problem,
    "DDNM+": solvers.DDNMPlus.for_problem,
    "QCS-SGM": solvers.QCSSGM.for_problem,
    "SIM-DMIS": solvers.SIMDMIS.for_problem,
}


def falling(power: float) -> Tensor:
    """A covariance ``(N, N)`` that is diagonal in cosines, of mean variance 0.25."""
    k = torch.arange(SIDE, dtype=torch.float64)
    cosines = torch.cos(math.pi * (k[:, None] + 0.5) * k / SIDE)
    basis = torch.kron(*[cosines / cosines.norm(dim=0)] * 2)
    variances = (1 + torch.hypot(k[:, None], k)).pow(-power).flatten()
    return 0.25 * (basis * variances / variances.mean()) @ basis.T


def exact_mean(problem: ds.Problem, y: Tensor, covariance: Tensor) -> Tensor:
    """E[x | y] of signals of mean 0 ``(B, *SHAPE)``."""
    columns = problem.operator.apply(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE))
    matrix: Tensor = columns.flatten(1).T
    numbers, y = problem.channel.gaussian_sigma is not None, y.flatten(1).double()
    sigma = NOISE if numbers else BIT_NOISE
    signals = matrix @ covariance @ matrix.T
    gain = torch.linalg.inv(signals + sigma**2 * torch.eye(len(matrix), dtype=torch.float64))
    back: Tensor = covariance @ matrix.T @ gain
    if numbers:
        return torch.matmul(y, back.T).view(-1, *SHAPE)
    draws = seeded(0, "gibbs")
    smoother = signals @ gain
    left = signals - smoother @ signals
    root = torch.linalg.cholesky(left + 1e-9 * torch.eye(len(matrix), dtype=torch.float64))
    y = torch.where(y > 0, 1.0, -1.0).double()
    s, total = torch.zeros_like(y), torch.zeros_like(y)
    for k in range(ROUNDS):
        # A number that is behind the bit: a Gaussian around s, kept on the side of its sign.
        low = torch.special.ndtr(-s * y / sigma)
        share = torch.rand(y.shape, generator=draws, dtype=torch.float64)
        u = s + sigma * y * torch.special.ndtri((low + (1 - low) * share).clamp(1e-12, 1 - 1e-12))
        noise = torch.randn(y.shape, generator=draws, dtype=torch.float64)
        s = u @ smoother.T + noise @ root.T
        if k >= ROUNDS // 10:
            total += u
    mean: Tensor = total / (ROUNDS - ROUNDS // 10) @ back.T
    return mean.view(-1, *SHAPE)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--power", type=float, default=2.0, help="p (default 2)")
    power = options.parse_args().power
    covariance = falling(power)
    prior = GaussianPrior(SHAPE, 0.0, covariance)
    x = prior.sample(SIGNALS, seeded(0, "signals"))
    bits, noise = ds.channels.OneBit(BIT_NOISE), ds.channels.GaussianNoise(NOISE)
    problems = {
        "1-bit CS": ds.Problem(operators.RandomizedTransform(SHAPE, SIZE // 16, seed=1), bits),
        "1-bit inpainting": ds.Problem(operators.PixelMask(SHAPE, 0.5, seed=1), bits),
        "half, σ 0.05": ds.Problem(operators.PixelMask(SHAPE, 0.5, seed=1), noise),
        "box, σ 0.05": ds.Problem(operators.PixelMask.box(SHAPE, 10, 10, 12, 12), noise),
        "×4, σ 0.05": ds.tasks.problem("super-resolution", SHAPE, sigma=0.05),
        "blur, σ 0.05": ds.tasks.problem("gaussian-deblur", SHAPE, sigma=0.05),
    }
    measured = {name: p.measure(x, generator=seeded(0, name)) for name, p in problems.items()}
    best = {
        name: (exact_mean(p, measured[name], covariance) - x).square().mean()
        for name, p in problems.items()
    }
    print(f"{machine()}; {SIGNALS} signals, p = {power:g}; dB above the error of the exact mean\n")
    print("| method | " + " | ".join(problems) + " |")
    print("| :--- |" + " ---: |" * len(problems))
    for label, made in SOLVERS.items():
        cells = []
        for name, problem in problems.items():
            try:
                answer = made(problem)(problem, measured[name], prior, generator=seeded(0, label))
            except ds.InputError:
                cells.append("–")
                continue
            ratio = (answer.image - x).square().mean() / best[name]
            cells.append(f"{10 * ratio.log10():.1f}")
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
