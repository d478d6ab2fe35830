"""Whole recoveries against their own bare network evaluations, and DiffEP against Diff-OneBit."""

from __future__ import annotations

from functools import partial

import torch
from common import cats, interleave, machine, one_bit, parser

import diffsplit as ds
from diffsplit.metrics import psnr


def main() -> None:
    parser(__doc__).parse_args()
    print(machine())
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
