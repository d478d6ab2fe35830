"""How sure is the picture? Standard deviations and intervals from posterior samples.

DiffEP draws eight samples, each by two evaluations of a consistency model. Their spread is scaled
to the error that the exchange of messages found. Writes uncertainty-map.png: truth, answer, bounds
of 90 % intervals, and the map of the standard deviation.
"""

import torch

import diffsplit as ds


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x, prior = ds.images.example_cats()[:3], ds.load_prior("cats-64")
    operator = ds.operators.RandomizedTransform((3, 64, 64), rows=4096, seed=0)
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    y = problem.measure(x, generator=generator)
    solver = ds.solvers.DiffEP(samples=8, sampler=ds.load_prior("cats-64-consistency"))
    result = solver(problem, y, prior, generator=generator)
    low, high = result.interval(0.9)

    rows = [
        ("truth", x),
        ("DiffEP", result.image),
        ("5 %", low),
        ("95 %", high),
        ("standard deviation", ds.plots.std_map(result.std)),
    ]
    ds.save_image(ds.plots.comparison(rows), "uncertainty-map.png")
    covered = ((low <= x) & (x <= high)).float().mean()
    error = (result.image - x).square().flatten(1).mean(1)
    ratio = (result.predicted_error / error).tolist()
    print(
        f"90 % intervals hold {100 * covered:.1f} % of the pixels; predicted over true error: "
        + ", ".join(f"{value:.2f}" for value in ratio)
    )


if __name__ == "__main__":
    main()
