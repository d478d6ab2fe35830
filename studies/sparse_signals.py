"""Sparse signals from one noiseless bit a measurement: DiffEP against state evolution.

    python studies/sparse_signals.py --figure sparse-signals.png

Signals are Bernoulli–Gauss: an entry is N(0, 1/ρ) with probability ρ, else 0. A has i.i.d. Gaussian
entries; the signals are those with a typical number of nonzero entries. The table has the mean
squared error of normalized signals, ‖x̂/‖x̂‖ − x0/‖x0‖‖², in dB.

State evolution is what message passing with the true prior reaches as N grows. Its state is v, the
mean squared error of an entry where E[x0²] = 1. Rows of A have the squared norm c = N/M = 1/α, so
that the channel sees p ~ N(0, c (1 − v)) and s = p + N(0, c v):

    u = p/√(σ² + c v),   h̄ = E g² = 2 E[φ(u)²/Φ(u)]/(σ² + c v),   v1 = 1/h̄,   v ← mmse(v1)

Sources: Rangan 2011, Section IV; Kamilov, Goyal and Rangan 2012 for quantized measurements; for
this case, by the replica method, Xu, Kabashima and Zdeborová 2014. Integrals are sums over evenly
spaced nodes, and nothing of them comes from the library.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

import diffsplit as ds
from diffsplit.devices import machine
from diffsplit.noise import seeded
from diffsplit.plots import markdown_table

__all__ = ["mmse_of_sparse", "state_evolution"]

NODES = torch.linspace(-12, 12, 8001, dtype=torch.float64)


def _normal(x: Tensor, deviation: float = 1.0) -> Tensor:
    return torch.exp(-0.5 * (x / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


def _mean(values: Tensor, nodes: Tensor) -> float:
    return float(torch.trapezoid(values, nodes))


def mmse_of_sparse(v1: float, density: float) -> float:
    """E Var[x0 | x0 + √v1 n] of an entry that is N(0, 1/ρ) with probability ρ, else 0."""
    variance = 1 / density
    gain, left = variance / (variance + v1), variance * v1 / (variance + v1)
    error = 0.0
    for deviation, weight in ((math.sqrt(v1), 1 - density), (math.sqrt(v1 + variance), density)):
        r = deviation * NODES
        zero = (1 - density) * _normal(r, math.sqrt(v1))
        active = density * _normal(r, math.sqrt(v1 + variance))
        share = active / (zero + active)
        spread = share * (left + (gain * r) ** 2) - (share * gain * r) ** 2
        error += weight * _mean(_normal(r, deviation) * spread, r)
    return error


def _score_power(tau: float, total: float, sigma: float) -> float:
    """h̄ for p ~ N(0, total − τ) and s ~ N(p, τ)."""
    noise = sigma**2 + tau
    deviation = math.sqrt(max(total - tau, 1e-12) / noise)
    u = NODES * min(1.0, deviation)  # where both φ² and the density of p are not nothing
    ratio = _normal(u).square() * torch.exp(-torch.special.log_ndtr(u))
    return 2 * _mean(_normal(u, deviation) * ratio, u) / noise


def state_evolution(
    alpha: float, density: float, sigma: float = 0.0, iterations: int = 300
) -> tuple[float, float]:
    """The fixed point that is reached from knowing nothing.

    Args:
        alpha: M/N.
        density: ρ.
        sigma: of the probit channel, in the units of A x.

    Returns:
        The mean squared error v, relative to E[x0²], and that of the directions,
        E‖x̂/‖x̂‖ − x0/‖x0‖‖² = 2 (1 − √(1 − v)).
    """
    c, v = 1 / alpha, 1.0
    for _ in range(iterations):
        before, v = v, mmse_of_sparse(1 / _score_power(c * v, c, sigma), density)
        if abs(v / before - 1) < 1e-8:
            break
    return v, 2 * (1 - math.sqrt(1 - v))


def typical(prior: ds.priors.IIDMixturePrior, density: float, count: int) -> Tensor:
    """The signals of 25 times as many whose numbers of nonzero entries are nearest to ρN.

    At finite N that number varies, and with its square the error; state evolution has no such
    variation.
    """
    x = prior.sample(25 * count, seeded(0, "signals"))
    surplus = (x != 0).float().mean(1) - density
    return x[surplus.abs().argsort()[:count]]


def measured(
    alpha: float, density: float, size: int, count: int
) -> tuple[Tensor, Tensor, ds.Recovery]:
    """The error of DiffEP's directions ``(count,)``, the signals, and all that it answered."""
    prior = ds.priors.IIDMixturePrior.sparse((size,), density)
    x = typical(prior, density, count)
    operator = ds.operators.GaussianMatrix((size,), rows=round(alpha * size), seed=1)
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.0))
    y = problem.measure(x, generator=seeded(0, "measure"))
    solver = ds.solvers.DiffEP(iterations=40, tolerance=1e-3)
    found = solver(problem, y, prior, generator=seeded(0, "recover"))
    return 2 - 2 * torch.cosine_similarity(found.image, x), x, found


def draw(curves: dict[float, list[tuple[float, float, float]]], path: Path) -> None:
    """MSE against M/N: (α, state evolution, DiffEP) of each density."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for color, (density, points) in enumerate(curves.items()):
        alphas, theory, ours = zip(*points, strict=True)
        axes.plot(alphas, theory, f"C{color}-", label=f"state evolution, ρ = {density:g}")
        axes.plot(alphas, ours, f"C{color}o", label=f"DiffEP, ρ = {density:g}")
    axes.set(xlabel="bits per entry, M/N", ylabel="MSE of the normalized signal (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    from common import parser

    options_of = parser(__doc__)
    options_of.add_argument("--figure", type=Path, help="also draw the curves")
    options_of.add_argument("--size", type=int, default=4000, help="N (default 4000)")
    options_of.add_argument("--signals", type=int, default=8, help="how many (default 8)")
    options_of.add_argument("--density", type=float, nargs="+", default=[0.25, 0.0625])
    options_of.add_argument("--alpha", type=float, nargs="+", default=[0.5, 1, 1.5, 2, 3, 4, 6])
    options = options_of.parse_args()
    print(f"{machine()}; N = {options.size}, {options.signals} signals")
    rows: list[dict[str, object]] = []
    curves: dict[float, list[tuple[float, float, float]]] = {}
    for density in options.density:
        for alpha in options.alpha:
            error, _, found = measured(alpha, density, options.size, options.signals)
            dB = [10 * math.log10(e) for e in (state_evolution(alpha, density)[1], error.mean())]
            curves.setdefault(density, []).append((alpha, *dB))
            rows.append(
                {
                    "ρ": str(density),
                    "M/N": str(alpha),
                    "state evolution": dB[0],
                    "DiffEP": dB[1],
                    "standard error": 4.34 * float(error.std() / error.mean()) / len(error) ** 0.5,
                    "evaluations": found.nfe,
                    "seconds": found.seconds,
                }
            )
    print(markdown_table(rows))
    if options.figure:
        draw(curves, options.figure)


if __name__ == "__main__":
    main()
