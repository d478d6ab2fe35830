"""Whole recoveries against their own bare network evaluations, and DiffEP against Diff-OneBit.

With `--prior` and `--data`, such as a prior of 256×256 pixels and held-out pictures of that size,
DiffEP alone runs, on `--images` of them, from M/N = 1/16 by the Hadamard transform.
"""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

import torch
from common import cats, interleave, machine, one_bit, parser

import diffsplit as ds
from diffsplit.io.images import from_uint8, load_images
from diffsplit.metrics import psnr


def of_pictures(name: str, data: Path, images: int, dtype: torch.dtype | None) -> None:
    """DiffEP with a prior of any size."""
    prior = ds.load_prior(name, dtype=dtype)
    assert isinstance(prior, ds.Denoiser)
    x = from_uint8(load_images(data, prior.shape[-1], images))
    problem = ds.tasks.problem("onebit-cs", prior.shape, operator="hadamard")
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    solver = ds.solvers.DiffEP()
    first = solver(problem, y, prior)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(first.nfe):
                prior.denoise(x, 1.0)

    seconds = interleave({"whole": lambda: solver(problem, y, prior), "bare": bare}, 2)
    print(
        f"{len(x)} images {tuple(prior.shape)}, {dtype or torch.float32}: "
        f"{seconds['whole']:.2f} s, "
        f"{seconds['whole'] / seconds['bare']:.2f} × its {first.nfe} bare network evaluations, "
        f"PSNR {psnr(first.image, x).mean():.2f}, peak memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prior", help="of other images than the cats: a name or a folder")
    options.add_argument("--data", type=Path, help="folder or zip of held-out images for it")
    options.add_argument("--images", type=int, default=4, help="of them (default 4)")
    options.add_argument("--bfloat16", action="store_true", help="evaluate the network in it")
    chosen = options.parse_args()
    print(machine())
    if chosen.prior is not None:
        dtype = torch.bfloat16 if chosen.bfloat16 else None
        of_pictures(chosen.prior, chosen.data, chosen.images, dtype)
        return
    prior, x = ds.load_prior("cats-64"), cats()
    assert isinstance(prior, ds.Denoiser)
    solvers = {
        "DiffEP": ds.solvers.DiffEP(),
        "Diff-OneBit, Adam": ds.solvers.DiffOneBit(),
        "Diff-OneBit, exact": ds.solvers.DiffOneBit(data_step="exact"),
    }
    for kind in ("hadamard", "gaussian"):
        for rows in (768, 4096):
            problem = one_bit(rows, kind)
            y = problem.measure(x, generator=torch.Generator().manual_seed(0))
            first = {name: solver(problem, y, prior) for name, solver in solvers.items()}
            runs = {
                name: partial(solver, problem, y, prior)
                for name, solver in solvers.items()
                if rows == 768 or name == "DiffEP"
            }

            def bare(evaluations: int = first["DiffEP"].nfe) -> None:
                with torch.no_grad():
                    for _ in range(evaluations):
                        prior.denoise(x, 1.0)

            seconds = interleave({**runs, "bare": bare}, 3)
            for name in runs:
                print(
                    f"{kind:9} M={rows:<5} {name:18} {seconds[name]:6.2f} s, "
                    f"{first[name].nfe:3} evaluations, "
                    f"PSNR {psnr(first[name].image, x).mean():5.2f}, "
                    f"{seconds[name] / seconds['DiffEP']:5.1f} × DiffEP"
                )
            print(
                f"{kind:9} M={rows:<5} DiffEP is {seconds['DiffEP'] / seconds['bare']:.2f} × its "
                f"{first['DiffEP'].nfe} bare network evaluations"
            )


if __name__ == "__main__":
    main()
