"""Few bits behind a blur, a reduction and masks: a picture and a table of the bundled cats.

    python benchmarks/uneven_bits.py --figure uneven-bits.png

Each row is what was measured, a linear estimate, and DiffEP's answer with its mean PSNR.
"""

from __future__ import annotations

from pathlib import Path

import torch
from common import SHAPE, machine, parser
from torch import Tensor

import diffsplit as ds
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr, ssim
from diffsplit.noise import seeded
from diffsplit.plots import comparison, markdown_table, measurement_pictures

BITS = ds.channels.Quantized
PROBLEMS = {
    "blur std 1.5, 4 bits": ds.Problem(
        ds.operators.Blur.gaussian(SHAPE, 15, 1.5), BITS(bits=4, sigma=0.0)
    ),
    "x4 bicubic, 1 bit, dither 0.3": ds.Problem(
        ds.operators.Downsample(SHAPE, 4, "bicubic"), ds.channels.OneBit(0.3)
    ),
    "box 25x25, 2 bits": ds.Problem(
        ds.operators.PixelMask.box(SHAPE, 19, 19, 25, 25), BITS(bits=2, sigma=0.0)
    ),
    "half of the pixels, 4 bits": ds.Problem(
        ds.operators.PixelMask(SHAPE, 0.5, 0), BITS(bits=4, sigma=0.0)
    ),
}


def main() -> None:
    options_of = parser(__doc__)
    options_of.add_argument("--figure", type=Path, help="also write a picture")
    options = options_of.parse_args()
    x, prior = example_cats(), ds.load_prior("cats-64")
    pictures: list[tuple[str, Tensor]] = [("truth", x)]
    rows: list[dict[str, object]] = []
    for name, problem in PROBLEMS.items():
        y = problem.measure(x, generator=seeded(0, "measure"))
        linear = ds.solvers.linear_baseline(problem)
        estimate = linear(problem, y)
        found = ds.solvers.DiffEP()(problem, y, prior, generator=seeded(0, "recover"))
        _, measured = measurement_pictures(problem, y)
        dB = psnr(found.image, x).mean().item()
        pictures += [
            (f"{name}:\nmeasured", measured.clamp(-1, 1)),
            (f"DiffEP {dB:.1f} dB", found.image),
        ]
        rows.append(
            {
                "problem": name,
                "linear": f"{type(linear).__name__} {psnr(estimate.image, x).mean().item():.2f}",
                "DiffEP, PSNR": dB,
                "DiffEP, SSIM": ssim(found.image, x).mean().item(),
                "evaluations": found.nfe,
            }
        )
    print(f"{machine()}; {len(x)} bundled cats\n\n{markdown_table(rows)}")
    if options.figure is not None:
        ds.save_image(
            comparison([(a, torch.as_tensor(b)) for a, b in pictures], 2, label_width=200),
            options.figure,
        )


if __name__ == "__main__":
    main()
