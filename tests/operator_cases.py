"""Operators of every kind, and what the tests of operators share."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.operators import (
    Blur,
    ChannelMix,
    Downsample,
    FunctionOperator,
    GaussianMatrix,
    Grayscale,
    Identity,
    LinearOperator,
    MatrixOperator,
    PixelMask,
    RandomizedTransform,
    Stacked,
    from_function,
    from_matrix,
)

SHAPE = (3, 8, 8)


def randn(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(operator: LinearOperator) -> Tensor:
    """The matrix (M, N), column by column."""
    units = torch.eye(operator.size_in, dtype=torch.float64)
    return operator(units.reshape(-1, *operator.shape_in)).flatten(1).T


def columns(x: Tensor) -> Tensor:
    """Differences of neighboring columns: a linear function with no symmetry."""
    return x[..., 1:] - 0.5 * x[..., :-1]


def columns_adjoint(y: Tensor) -> Tensor:
    pad = torch.nn.functional.pad
    return pad(y, (1, 0)) - 0.5 * pad(y, (0, 1))


SEEDED = {
    "gaussian": lambda seed: GaussianMatrix(SHAPE, 40, seed),
    "gaussian-float64": lambda seed: GaussianMatrix(SHAPE, 40, seed, torch.float64),
    "gaussian-float16": lambda seed: GaussianMatrix(SHAPE, 40, seed, torch.float16),
    "hadamard": lambda seed: RandomizedTransform(SHAPE, 40, seed),
    "hadamard-all-rows": lambda seed: RandomizedTransform((1, 4, 8), 32, seed),
    "hadamard-long-odd": lambda seed: RandomizedTransform((1, 2, 67), 30, seed),
    "dct": lambda seed: RandomizedTransform(SHAPE, 40, seed, "dct"),
    "mask": lambda seed: PixelMask(SHAPE, fraction=0.4, seed=seed),
    "mask-channels-apart": lambda seed: PixelMask(SHAPE, 0.4, seed, channels_apart=True),
    "mask-scaled": lambda seed: -2.5 * PixelMask(SHAPE, 0.4, seed),
    "composed-orthogonal": lambda seed: (
        RandomizedTransform((120,), 30, seed) @ RandomizedTransform(SHAPE, 120, 9)
    ),
    "composed-gaussian": lambda seed: (
        GaussianMatrix((78,), 20, seed) @ PixelMask(SHAPE, fraction=0.4, seed=1)
    ),
    "composed-unknown": lambda seed: (
        RandomizedTransform((60,), 30, 2) @ GaussianMatrix(SHAPE, 60, seed)
    ),
    "scaled": lambda seed: -2.5 * RandomizedTransform(SHAPE, 40, seed),
    "scaled-gaussian": lambda seed: 0.5 * GaussianMatrix(SHAPE, 40, seed),
    "stacked": lambda seed: Stacked(GaussianMatrix(SHAPE, 20, 4), PixelMask(SHAPE, 0.2, seed)),
    "stack-of-one": lambda seed: Stacked(PixelMask(SHAPE, 0.2, seed)),
    "blur-motion": lambda seed: Blur.motion(SHAPE, 7, 0.5, seed),
    "blur-motion-reflect": lambda seed: Blur.motion(SHAPE, 8, 0.5, seed, "reflect"),
}
NAMED = {name: (lambda build=build: build(1)) for name, build in SEEDED.items()} | {
    "mask-box": lambda: PixelMask.box(SHAPE, 1, 2, 5, 3),
    "mask-flat-bits": lambda: PixelMask.from_mask(randn(8, 8) > 0, SHAPE),
    "mask-entry-bits": lambda: PixelMask.from_mask(randn(*SHAPE) > 0),
    "mask-of-multiple": lambda: PixelMask(SHAPE, 0.4, 0) @ (-0.5 * Identity(SHAPE)),
    "multiple-of-mask": lambda: (2.0 * Identity((78,))) @ PixelMask(SHAPE, 0.4, 0),
    "identity": lambda: Identity(SHAPE),
    "identity-flat": lambda: Identity((7,)),
    "identity-twice": lambda: Identity(SHAPE) @ (2.0 * Identity(SHAPE)),
    "average": lambda: Downsample((3, 8, 12), 4),
    "average-by-one": lambda: Downsample(SHAPE, 1),
    "bicubic": lambda: Downsample((3, 8, 12), 4, "bicubic"),
    "bicubic-even": lambda: Downsample(SHAPE, 2, "bicubic"),
    "bicubic-odd": lambda: Downsample((1, 9, 15), 3, "bicubic"),
    "bicubic-by-one": lambda: Downsample(SHAPE, 1, "bicubic"),
    "lanczos": lambda: Downsample((2, 8, 6), 2, "lanczos"),
    "blur": lambda: Blur((2, 7, 9), randn(4, 5)),
    "blur-channels": lambda: Blur(SHAPE, randn(3, 3, 8)),
    "blur-reflect": lambda: Blur((2, 7, 9), randn(7, 4), "reflect"),
    "blur-reflect-channels": lambda: Blur(SHAPE, randn(3, 5, 8), "reflect"),
    "blur-gaussian": lambda: Blur.gaussian(SHAPE, size=7, std=1.2),
    "blur-gaussian-reflect": lambda: Blur.gaussian(SHAPE, size=7, std=1.2, boundary="reflect"),
    "blur-shift": lambda: Blur(SHAPE, torch.eye(3)[:1]),
    "blur-of-one-pixel": lambda: Blur((1, 1, 5), torch.ones(1, 4), "reflect"),
    "blur-box-with-zeros": lambda: Blur(SHAPE, torch.ones(4, 1) / 4),
    "blur-scaled": lambda: -2.5 * Blur(SHAPE, randn(3, 4, 4)),
    "blur-of-average": lambda: Blur((3, 4, 4), randn(4, 4)) @ Downsample(SHAPE, 2),
    "average-of-blur": lambda: Downsample(SHAPE, 2) @ Blur(SHAPE, randn(3, 4, 4)),
    "average-of-zeros": lambda: Downsample(SHAPE, 2) @ Blur(SHAPE, torch.ones(4, 4) / 16),
    "average-scaled": lambda: (3.0 * Downsample(SHAPE, 2)) @ (-1.0 * Blur(SHAPE, randn(4, 4))),
    "bicubic-of-blur": lambda: Downsample(SHAPE, 4, "bicubic") @ Blur.motion(SHAPE, 7, 0.5, 0),
    "average-of-reflect": lambda: Downsample(SHAPE, 4) @ Blur(SHAPE, randn(4, 4), "reflect"),
    "grayscale": lambda: Grayscale(SHAPE),
    "channel-mix": lambda: ChannelMix(SHAPE, randn(2, 3)),
    "channel-rotation": lambda: ChannelMix(SHAPE, torch.linalg.qr(randn(3, 3)).Q),
    "channels-more": lambda: ChannelMix(SHAPE, randn(5, 3)),
    "channels-dependent": lambda: ChannelMix(SHAPE, torch.ones(2, 3)),
}
EVERY = NAMED | {
    "function": lambda: FunctionOperator(columns, SHAPE),
    "function-with-adjoint": lambda: from_function(columns, SHAPE, adjoint=columns_adjoint),
    "matrix": lambda: from_matrix(randn(17, 192), SHAPE),
    "matrix-flat": lambda: MatrixOperator(randn(9, 20).float()),
    "matrix-tall": lambda: MatrixOperator(randn(30, 20)),
    "matrix-poor": lambda: MatrixOperator(randn(9, 2) @ randn(2, 20)),
    "matrix-orthogonal": lambda: MatrixOperator(3 * torch.linalg.qr(randn(20, 9)).Q.T),
    "matrix-sparse": lambda: from_matrix((randn(17, 192) * (randn(17, 192) > 1)).to_sparse()),
}
