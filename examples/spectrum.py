"""A signal of one dimension, a spectrum, from one bit a sample.

The prior is a Gaussian whose mean and covariance come from examples: 5,000 made-up spectra of
a few broad lines. A comparator with random dither gives each of 512 samples one bit. DiffEP finds
the spectrum, its error and intervals. Writes spectrum.png; needs matplotlib.
"""

import torch
from torch import Tensor

import diffsplit as ds

SAMPLES, LINES = 512, 8


def spectra(count: int, generator: torch.Generator) -> Tensor:
    """Sums of Gaussian lines at random places, on about [-1, 1]: ``(count, 512)``."""
    place, width, height = torch.rand(3, count, LINES, 1, generator=generator)
    away = (torch.linspace(0, 1, SAMPLES) - place) / (0.015 + 0.03 * width)
    return 1.2 * (height * torch.exp(-0.5 * away.square())).sum(1) - 0.5


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    examples = spectra(5000, generator)
    covariance = examples.T.double().cov() + 1e-6 * torch.eye(SAMPLES, dtype=torch.float64)
    prior = ds.priors.GaussianPrior((SAMPLES,), examples.mean(0), covariance)

    x = spectra(3, generator)
    operator = ds.operators.Identity((SAMPLES,))
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.6))  # the dither
    y = problem.measure(x, generator=generator)
    result = ds.solvers.DiffEP(samples=16)(problem, y, prior, generator=generator)
    low, high = result.interval(0.9)
    nanometers = torch.linspace(400, 700, SAMPLES)
    ds.plots.signal_figure(
        [("bits", 0.2 * y), ("truth", x), ("DiffEP", result.image)],
        interval=(low, high),
        axis=nanometers,
        path="spectrum.png",
    )
    error, spread = (result.image - x).square().mean().sqrt(), examples.std(0).mean()
    covered = ((low <= x) & (x <= high)).float().mean()
    print(
        f"error {error:.3f} where spectra vary by {spread:.3f}; predicted "
        f"{result.predicted_error.mean().sqrt():.3f}; 90 % intervals hold {100 * covered:.1f} %"
    )


if __name__ == "__main__":
    main()
