"""Your own operator: computed tomography, written as a function of image batches.

A tomograph sees line sums of the picture under 18 angles. `from_function` needs nothing else: it
finds the adjoint by automatic differentiation and checks that the function is linear. DiffEP
recovers the cat by conjugate gradients. Writes own-operator.png.
"""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

import diffsplit as ds

SHAPE = (3, 64, 64)
ANGLES = torch.linspace(0, torch.pi, 19)[:-1]
TURNS = (
    torch.stack([ANGLES.cos(), -ANGLES.sin(), 0 * ANGLES], 1),
    torch.stack([ANGLES.sin(), ANGLES.cos(), 0 * ANGLES], 1),
)
GRIDS = affine_grid(torch.stack(TURNS, 1), [len(ANGLES), *SHAPE], align_corners=False)


def line_sums(x: Tensor) -> Tensor:
    """Averages along the columns of the turned image: ``(B, 3, 64, 64)`` to ``(B, 3, 18, 64)``."""
    turned = [
        grid_sample(x, grid.expand(len(x), 64, 64, 2).to(x), align_corners=False) for grid in GRIDS
    ]
    return torch.stack([view.mean(2) for view in turned], 2)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x, prior = ds.images.example_cats()[:1], ds.load_prior("cats-64")
    operator = ds.operators.from_function(line_sums, SHAPE)
    problem = ds.Problem(operator, ds.channels.GaussianNoise(sigma=0.01))
    y = problem.measure(x, generator=generator)
    back = ds.plots.stretch(problem.backprojection(y))
    result = ds.solvers.DiffEP(levels=8)(problem, y, prior, generator=generator)

    rows = [("truth", x), ("A^T y", back), (f"DiffEP, {operator.size_out} numbers", result.image)]
    ds.save_image(ds.plots.comparison(rows, label_width=190), "own-operator.png")
    psnr = ds.metrics.psnr(result.image, x).mean()
    print(
        f"{operator.size_out} of {operator.size_in} numbers, PSNR {psnr:.2f} dB, "
        f"{result.nfe} evaluations, {result.operator_calls} of A and Aᵀ"
    )


if __name__ == "__main__":
    main()
