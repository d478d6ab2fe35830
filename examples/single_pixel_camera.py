"""A single-pixel camera: the patterns of its mirror and what its diode saw, from files.

    python single_pixel_camera.py camera.safetensors       # or camera.npz, with "patterns" and "y"
    python single_pixel_camera.py patterns.npy y.npy

Patterns are (M, 64, 64); y is (3, M), one number a pattern and color. Without files the script
plays the camera first and writes camera.npz. Writes single-pixel-camera.png.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

import diffsplit as ds

SIGMA = 0.02  # of the diode, in the units of y


def simulated() -> Path:
    """512 random masks of open and closed mirrors, and a cat seen through them."""
    generator = torch.Generator().manual_seed(0)
    patterns = (torch.rand(512, 64, 64, generator=generator) < 0.5).float()
    x = ds.images.example_cats()[1]
    y = x.flatten(1) @ patterns.flatten(1).T / 64
    noise = torch.randn(y.shape, generator=generator)
    np.savez("camera.npz", patterns=patterns.numpy(), y=(y + SIGMA * noise).numpy())
    return Path("camera.npz")


def read(paths: list[Path]) -> tuple[Tensor, Tensor]:
    if len(paths) == 2:
        arrays = [np.load(path, allow_pickle=False) for path in paths]
    else:
        safe = paths[0].suffix == ".safetensors"
        stored = load_file(paths[0]) if safe else np.load(paths[0], allow_pickle=False)
        arrays = [stored["patterns"], stored["y"]]
    return torch.from_numpy(arrays[0]).float(), torch.from_numpy(arrays[1]).float()


def main() -> None:
    patterns, y = read([Path(name) for name in sys.argv[1:]] or [simulated()])
    rows = patterns.flatten(1) / 64
    operator = ds.operators.from_function(lambda x: x.flatten(2) @ rows.T, (3, 64, 64))
    problem = ds.Problem(operator, ds.channels.GaussianNoise(SIGMA))
    result = ds.solvers.DiffEP()(problem, y[None], ds.load_prior("cats-64"))
    back = ds.plots.stretch(operator.adjoint((y - y.mean(1, keepdim=True))[None]))
    ds.save_image(
        ds.plots.comparison([("A^T y", back), ("DiffEP", result.image)]), "single-pixel-camera.png"
    )
    misfit = problem.residual(result.image, y[None]).std() / SIGMA
    print(f"{y.numel()} numbers for {operator.size_in}: misfit {misfit:.2f} times the noise")


if __name__ == "__main__":
    main()
