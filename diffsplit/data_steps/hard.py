"""Hard consistency: the nearest image that explains the measurements, up to a tolerance ε.

    argmin ‖x − x'‖²   subject to   ‖A x − y‖² ≤ ε² m

With A = U diag(s) Vᵀ and the residual ρ = Uᵀ(y − A x') the solution is

    x = x' + V [s/(s² + λ)] ρ,   Σ ρ² (λ/(s² + λ))² = ε² m − (what no image explains),

where λ of each image is found by bisection: the left side rises with λ. With A Aᵀ = c I it is
x' + (1 − ε√m/‖ρ‖)₊ Aᵀρ/c. It is where gradient descent on ‖A x − y‖² from x' leads without a limit
on its time; λ > 0 stands for stopping early, at the same residual.

ReSample (Song et al. 2024) descends by AdamW instead, and through a decoder there is no other way;
`adamw_descent` is that. AdamW moves x in other directions than those of Aᵀ, except where A keeps or
drops single entries. There its limit is the solution above, but for the weight decay, which shrinks
the entries that were dropped by 0.01 % a step. Measured on a cat from a smoothed picture, with the
same tolerance: equal PSNR behind a box, 0.3 dB more than AdamW at ×4, 1 to 2 dB more behind blurs
without noise, 0.2 to 0.4 dB more with σ_y 0.05, in 5 ms instead of 0.02 to 1.8 s.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffsplit.data_steps.derivative import differentiated
from diffsplit.operators.gram import ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["adamw_descent", "has_nearest", "nearest_consistent"]

BISECTIONS = 60
SPAN = 1e12
"""λ/s_max² is sought between 1/SPAN and SPAN."""

PATIENCE = 200
"""AdamW ends where the misfit is larger than so many steps before, as in the code of ReSample."""
LOOK = 10
"""Steps between two looks at whether all images have ended, since a look makes a GPU wait."""


def has_nearest(problem: Problem) -> bool:
    """Whether `nearest_consistent` has a method: a spectrum, or orthogonal rows."""
    return isinstance(problem.operator.gram, ScaledIdentity) or problem.operator.has_spectrum


def nearest_consistent(problem: Problem, y: Tensor, x: Tensor, tolerance: float) -> Tensor:
    """The solution above, for an operator that `has_nearest`.

    Args:
        y: measurements ``(B, *shape_out)``.
        x: x' ``(B, *shape_in)``.
        tolerance: ε ≥ 0, the root mean square of A x − y that is allowed, in the units of A x.

    Returns:
        ``(B, *shape_in)``.
    """
    operator = problem.operator
    missing = y - operator.apply(x)
    energy = missing.flatten(1).square().sum(1)
    budget = tolerance**2 * operator.size_out
    if isinstance(operator.gram, ScaledIdentity):
        share = (1 - (budget / energy.clamp(min=torch.finfo(x.dtype).tiny)).sqrt()).clamp(min=0)
        step = operator.adjoint(missing) / operator.gram.mean
        return x + share.view(-1, *(1,) * (x.ndim - 1)) * step
    spectrum = operator.spectrum()
    rho = spectrum.analyze_measurement(missing)
    unexplained = (energy - rho.flatten(1).square().sum(1)).clamp(min=0)
    squares = spectrum.singular_values.square().to(rho)
    ridge = _ridge(rho, squares, (budget - unexplained).clamp(min=0))
    gain = torch.where(squares > 0, squares.sqrt() / (squares + ridge), 0)
    return x + spectrum.synthesize(gain * rho)


def _ridge(rho: Tensor, squares: Tensor, budget: Tensor) -> Tensor:
    """λ of each image, as a column: Σ ρ² (λ/(s² + λ))² is the budget, or λ is 0 for none."""
    column = (-1,) + (1,) * (rho.ndim - 1)
    scale = squares.max()
    low = torch.full_like(budget, 1 / SPAN).log()
    high = -low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        ridge = (scale * middle.exp()).view(column)
        left = (rho * (ridge / (squares + ridge))).square().flatten(1).sum(1)
        low, high = (
            torch.where(left < budget, middle, low),
            torch.where(left < budget, high, middle),
        )
    return torch.where(budget > 0, scale * low.exp(), 0).view(column)


def adamw_descent(
    problem: Problem,
    y: Tensor,
    start: Tensor,
    steps: int,
    lr: float,
    tolerance: float,
    decode: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Where AdamW ends on the mean of (A decode(z) − y)², from ``start``, each image by itself.

    An image stands still once its misfit was at most ``tolerance``² or did not fall for
    `PATIENCE` steps. Weight decay is 0.01, PyTorch's.

    Args:
        y: measurements ``(B, *shape_out)``.
        start: images, or latents ``(B, …)``.
        steps: the most that are taken.
        lr: learning rate.
        tolerance: ε, as above.
        decode: from latents to images ``(B, *shape_in)``; None for images themselves.
    """
    operator, z = problem.operator, torch.nn.Parameter(start.clone(), requires_grad=False)
    optimizer = torch.optim.AdamW([z], lr=lr)
    moving = torch.ones(len(start), *(1,) * (start.ndim - 1), dtype=torch.bool, device=z.device)
    history: list[Tensor] = []
    for step in range(steps):
        image, pullback = (z.data, None) if decode is None else differentiated(decode, z.data)
        residual = operator.apply(image) - y
        slope = operator.adjoint(residual) * (2 / operator.size_out)
        z.grad, before = slope if pullback is None else pullback(slope), z.data.clone()
        optimizer.step()
        z.data = torch.where(moving, z.data, before)
        history.append(residual.square().flatten(1).mean(1).view(moving.shape))
        ended = history[-1] < tolerance**2
        if step >= PATIENCE:
            ended = ended | (history.pop(0) < history[-1])
        moving = moving & ~ended
        if step % LOOK == LOOK - 1 and not bool(moving.any()):
            break
    return z.data
